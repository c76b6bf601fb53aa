"""What is lost when importance is measured without the retain set?

Importance divides what the forget set needs by what the retain set needs. Here the divisor comes from elsewhere: from
text that the target model writes itself, from general knowledge, from a model that never learnt the forget set, or from
nowhere. Training keeps its retain term; in a second comparison it too has nothing but the model's own text.
"""

from unlora_research.retain_free.study import STUDY as STUDY
