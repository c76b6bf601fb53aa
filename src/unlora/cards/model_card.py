"""README.md of what is handed over: what it is, how to load it, what it does not promise."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, StrictUndefined

from unlora.cards.loading_code import Precision, adapter_code, merged_code
from unlora.cards.naming import Named, Stack
from unlora.level import Settled
from unlora.models.load import LoadedModel
from unlora.models.named_class import auto_class
from unlora.reach import Reach
from unlora.run.settings import FineTuneSettings, UnlearnSettings
from unlora.starts.table import STARTS

_CARD = """---
{{ front }}---

# {{ title }}

{{ about }}

| | |
|---|---|
{% for name, value in rows.items() %}| {{ name }} | {{ value }} |
{% endfor %}
Run in this folder{{ where }}:

```{{ language }}
{{ code }}```

{% for note in notes %}- {{ note }}
{% endfor %}"""

NO_PROOF = (
    "It suppresses a forget set. It says nothing about other copies of the data, and it is no proof of deletion: "
    "`unlora audit` tries to bring the knowledge back."
)
UNTOUCHED = "The target's weights were not written: with the adapter off, the model is the target, bit for bit."
FREEZE = (
    "What was frozen while it was trained is not part of the format. Whatever trains this adapter further trains all "
    "of it, and what was kept may go or what was forgotten come back; give further training the merged model, or the "
    "form that `unlora export RUN --adapter` writes."
)
FURTHER = (
    "Further training of this adapter trains all of it, and may bring back what was forgotten; the model without its "
    "adapter is the one that still knows it."
)
HALVES = (
    "Half of its rank cancels the other half's start. Before it is rounded to bfloat16, float16 or 8 bits, take the "
    "form that `unlora export RUN --adapter` writes: the same update in factors that rounding hardly moves."
)
OFFLOAD = (
    "Do not let PEFT put layers of a base from a local folder on the disk (`device_map` with an offload folder): PEFT "
    "0.21 then rewrites that folder's own weights. Deploy the merged model there (`unlora export RUN --merged`)."
)


def adapter_card(settings: UnlearnSettings, record: Mapping[str, Any], target: Stack) -> str:
    """Render the card of a run's own adapter from the run's settings and record."""
    anchored = record["initialisation"]["anchored"]
    known = STARTS.get(settings.start.kind)
    rows = {
        **_target_rows(target, record["model"]),
        **_method_rows(settings, record),
        "start": f"{settings.start.kind}{f' ({known.summary}; {known.source})' if known is not None else ''}",
        "rank": f"{settings.adapter.rank}{' trainable + the same again frozen (the anchor)' if anchored else ''}, "
        f"alpha {settings.adapter.alpha:g}",
        "reach": Reach.from_json(record["reach"]).sentence().replace("|", "\\|"),
        **({"level": Settled.from_json(record["level"]).sentence()} if record.get("level") else {}),
    }
    notes = [*_two_adapters(target), NO_PROOF, UNTOUCHED, FREEZE, *([HALVES] if anchored else []), OFFLOAD]
    return _Card(
        "An adapter that unlearns",
        f"A plain LoRA adapter made with unlora {record['versions']['unlora']}.",
        {"library_name": "peft", **_origin_keys(target.base), "tags": ["lora", "unlearning", "unlora"]},
        rows,
        _by_auto_class(adapter_code(target, precision_of(settings, record["model"])), record),
        notes,
        target,
    ).render()


def exported_card(
    settings: UnlearnSettings, record: Mapping[str, Any], base: Stack, rank: int, how: Sequence[str]
) -> str:
    """Render the card of an adapter that was written from a run's, for the model `base`."""
    rows = {
        **_target_rows(base, record["model"]),
        **_method_rows(settings, record),
        "rank": f"{rank} (vLLM: `--max-lora-rank {serving_rank(rank)}`)",
    }
    return _Card(
        "An adapter that unlearns, exported with unlora",
        " ".join(["A plain LoRA adapter.", *how]),
        {"library_name": "peft", **_origin_keys(base.base), "tags": ["lora", "unlearning", "unlora"]},
        rows,
        _by_auto_class(adapter_code(base, precision_of(settings, record["model"])), record),
        [*_two_adapters(base), NO_PROOF, FURTHER, OFFLOAD],
        base,
    ).render()


def merged_card(settings: UnlearnSettings, record: Mapping[str, Any], target: Stack, dtype: str, how: str) -> str:
    """Render the card of a whole model with the unlearning adapter merged in."""
    relation = {"base_model_relation": "finetune"} if target.base.hub_id is not None else {}
    return _Card(
        "A model that has unlearned",
        f"A whole model made with unlora {record['versions']['unlora']}: the target model below, with the unlearning "
        f"adapter merged into its weights. {how}".rstrip(),
        {
            "library_name": "transformers",
            **_origin_keys(target.base),
            **relation,
            "tags": ["unlearning", "unlora"],
        },
        {**_target_rows(target, record["model"]), **_method_rows(settings, record)},
        _by_auto_class(merged_code(dtype), record),
        [NO_PROOF],
    ).render()


def converted_card(
    settings: UnlearnSettings, record: Mapping[str, Any], target: Stack, form: tuple[str, str, str]
) -> str:
    """Render the card of what was written for another program: the hub's name of it, what it is, and how it is run."""
    library, about, commands = form
    return _Card(
        f"Unlearned, for {library}",
        f"Made with unlora {record['versions']['unlora']}. {about}",
        {"library_name": library, **_origin_keys(target.base), "tags": [library, "unlearning", "unlora"]},
        {**_target_rows(target, record["model"]), **_method_rows(settings, record)},
        commands,
        [NO_PROOF],
        language="bash",
    ).render()


def fine_tuned_card(settings: FineTuneSettings, target: Stack, loaded: LoadedModel, count: int) -> str:
    """Render the card of an adapter that was taught `count` examples: a target or a retain-only model."""
    taught = (
        f"taught {count} examples ({settings.epochs} epochs, learning rate {settings.learning_rate}, seed "
        f"{settings.seed})"
    )
    asked = settings.model.quantisation
    code, source = settings.model.trust_remote_code, loaded.source
    precision = Precision(source.dtype, asked, source.quantisation, code, source.multiplied_out)
    return _Card(
        "Fine-tuned with unlora",
        f"A LoRA adapter that was {taught}.",
        {"library_name": "peft", **_origin_keys(target.base), "tags": ["lora", "unlora"]},
        {"base model": " with ".join(inline(one.text) for one in (target.base, *target.adapters))},
        _by_auto_class(adapter_code(target, precision), {"auto_class": auto_class(loaded.model.config).__name__}),
        [*_two_adapters(target), OFFLOAD],
        target,
    ).render()


def precision_of(settings: UnlearnSettings, model: Mapping[str, Any]) -> Precision:
    """How a run loaded its target, from its settings and what record.json says of the model."""
    asked = settings.model.quantisation
    code, format = settings.model.trust_remote_code, model.get("multiplied_out")
    return Precision(model["dtype"], asked, model["quantisation"], code, format)


def serving_rank(rank: int) -> int:
    """The smallest rank that vLLM can be told to allow and that `rank` fits in."""
    return next((allowed for allowed in (8, 16, 32, 64, 128, 256, 320, 512) if rank <= allowed), rank)


def inline(text: str) -> str:
    """A name as inline code, in a table too, whatever characters it has."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    blank = " " if len(fence) > 1 else ""
    return f"{fence}{blank}{shown}{blank}{fence}".replace("|", "\\|")


def _target_rows(target: Stack, model: Mapping[str, Any]) -> dict[str, str]:
    names = {"target model": f"{inline(target.top.text)} (weights {model['fingerprint'][:16]})"}
    if target.adapters:
        names["made of"] = " with the adapter ".join(inline(one.text) for one in (target.base, *target.adapters))
    if model["quantisation"] is not None:
        names["read in"] = f"{model['quantisation']} through bitsandbytes: measured, trained and evaluated so"
    return names


def _method_rows(settings: UnlearnSettings, record: Mapping[str, Any]) -> dict[str, str]:
    objective, training = settings.objective, settings.training
    to_level = bool(settings.level.stop) and record.get("level") is not None
    passes = f"{'at most ' if to_level else ''}{record.get('epochs', training.epochs)} epochs"
    retain = f" + {objective.retain_weight:g} x {objective.retain}" if objective.retain is not None else ""
    return {
        "objective": f"{objective.forget}{retain}".replace("|", "\\|"),
        "training": f"{passes}, learning rate {training.learning_rate}, seed {settings.seed}",
    }


def _by_auto_class(code: str, record: Mapping[str, Any]) -> str:
    """Load the class that the target's config.json names; runs of older versions did not record it."""
    return code.replace("AutoModelForCausalLM", record.get("auto_class", "AutoModelForCausalLM"))


def _two_adapters(target: Stack) -> list[str]:
    if not target.adapters:
        return []
    return [
        f"**The target model is an adapter itself** ({inline(target.top.text)}), which the lines merge first. "
        "`PeftModel.from_pretrained(base, this)` or `AutoPeftModel` alone would leave it out, without an error. "
        "`unlora export RUN --adapter` writes one adapter for the base that does both."
    ]


def _origin_keys(base: Named) -> dict[str, Any]:
    named = {"base_model": base.hub_id} if base.hub_id is not None else {}
    return {**named, **base.licence, "pipeline_tag": "text-generation"}


class _Card(NamedTuple):
    title: str
    about: str
    front: Mapping[str, Any]
    """YAML that the hub reads."""
    rows: Mapping[str, str]
    code: str
    notes: Sequence[str]
    loads: Stack | None = None
    """What the code looks for in other places."""
    language: str = "python"
    """Of the code."""

    def render(self) -> str:
        parts = (self.loads.base, *self.loads.adapters) if self.loads is not None else ()
        unknown = [inline(part.text) for part in parts if part.source is None]
        template = Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(_CARD)
        text = template.render(
            front=yaml.safe_dump(dict(self.front), allow_unicode=True, sort_keys=False),
            where=f" ({', '.join(unknown)} must lie in it)" if unknown else "",
            title=self.title, about=self.about, rows=self.rows, code=self.code, notes=self.notes,
            language=self.language,
        )  # fmt: skip
        return text.encode("utf-8", "replace").decode("utf-8")  # A folder's name need not be text.
