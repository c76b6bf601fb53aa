"""README.md of an adapter folder: what it is, how to load it, what it does not promise."""

from typing import Any

from jinja2 import Environment, StrictUndefined

from unlora.models.quantised import Quantisation
from unlora.reach import Reach
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
| target model | `{{ base }}` (weights {{ fingerprint }}){{ rounded }} |
| objective | {{ objective }} |
| start | {{ settings.importance.initialisation }}{{ space }} |
| rank | {{ settings.adapter.rank }}{{ anchored }}, alpha {{ settings.adapter.alpha }} |
| reach | {{ reach }} |
| training | {{ training.epochs }} epochs, learning rate {{ training.learning_rate }}, seed {{ settings.seed }} |

```python
{{ loading }}```

The base weights were not written: with the adapter off, the model is the target model, bit for bit.
"""


_LOADING = """from peft import PeftModel
from transformers import AutoModelForCausalLM
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("TARGET MODEL"), "THIS FOLDER")
"""

_LOADING_ROUNDED = """from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
bits = BitsAndBytesConfig({options})
base = AutoModelForCausalLM.from_pretrained("TARGET MODEL", quantization_config=bits, dtype="{dtype}")
model = PeftModel.from_pretrained(base, "THIS FOLDER")
"""

_OPTIONS = {
    "8bit": "load_in_8bit=True",
    "4bit": 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="{dtype}"',
}


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
        reach=Reach.from_json(record["reach"]).sentence(),
        space=f" ({importance.statistic} of {importance.space}, {importance.arithmetic})" if weighted else "",
        rounded=_rounded(record["model"]["quantisation"]),
        loading=_loading(settings.model.quantisation, record["model"]["dtype"]),
        anchored=" trainable + the same again frozen (the anchor)" if record["initialisation"]["anchored"] else "",
    )


def _rounded(bits: Quantisation | None) -> str:
    return "" if bits is None else f", read in {bits} through bitsandbytes: measured, trained and evaluated so"


def _loading(asked: Quantisation | None, dtype: str) -> str:
    """Code that loads the adapter; a base whose own files are rounded says so itself."""
    if asked is None:
        return _LOADING
    return _LOADING_ROUNDED.format(options=_OPTIONS[asked].format(dtype=dtype), dtype=dtype)
