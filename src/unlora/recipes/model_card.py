"""README.md of an adapter folder: what it is, how to load it, what it does not promise."""

from typing import Any

from jinja2 import Environment, StrictUndefined

from unlora.recipes.loading import base_name
from unlora.recipes.settings import WEIGHTED, UnlearnSettings

_CARD = """---
library_name: peft
base_model: {{ base }}
tags: [lora, unlearning, unlora]
---

# An adapter that unlearns

A plain LoRA adapter made with unlora {{ version }}. Added to the model below it suppresses a forget set; it says
nothing about other copies of the data, and it is no proof of deletion.

| | |
|---|---|
| target model | `{{ base }}` (weights {{ fingerprint }}) |
| objective | {{ objective }} |
| start | {{ settings.importance.initialisation }}{{ space }} |
| rank | {{ settings.adapter.rank }}{{ anchored }}, alpha {{ settings.adapter.alpha }} |
| training | {{ training.epochs }} epochs, learning rate {{ training.learning_rate }}, seed {{ settings.seed }} |

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("TARGET MODEL"), "THIS FOLDER")
```

The base weights were not written: with the adapter off, the model is the target model, bit for bit.
"""


def adapter_card(settings: UnlearnSettings, record: dict[str, Any]) -> str:
    """Render the card from a run's settings and record."""
    importance, objective = settings.importance, settings.objective
    weighted = importance.initialisation in WEIGHTED
    template = Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(_CARD)
    return template.render(
        settings=settings,
        training=settings.training,
        objective=objective.forget
        + (f" + {objective.retain_weight:g} x {objective.retain}" if objective.retain is not None else ""),
        base=base_name(settings.model),
        version=record["versions"]["unlora"],
        fingerprint=record["model"]["fingerprint"][:16],
        space=f" ({importance.statistic} of {importance.space}, {importance.arithmetic})" if weighted else "",
        anchored=" trainable + the same again frozen (the anchor)" if record["initialisation"]["anchored"] else "",
    )
