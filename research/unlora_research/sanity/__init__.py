"""Does an importance map find the weights that carry what was learnt? A causal check where the answer is known.

A model that knows everything but the forget set learns it, in all linear layers or in a few of them. So the place is
known, the true change of every row is known, and the weights before are known: rows that are put back to them forget
what they carried. A map is right if the rows that it ranks highest, put back, take the forget set with them and leave
the rest.
"""

from unlora_research.sanity.study import STUDY as STUDY
