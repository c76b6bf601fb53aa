"""One class through the whole path: built, saved, measured, unlearned from two starts, loaded in plain PEFT, merged."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from unlora.data.people import generate_people
from unlora.data.records import Example, ExampleSet
from unlora.errors import UnloraError
from unlora.models.load import load_model
from unlora.models.named_class import auto_class
from unlora.models.quiet import quiet
from unlora.reach import Reach
from unlora.recipes.export import export_merged
from unlora.recipes.plan.batches import read_run_data
from unlora.recipes.plan.cost import make_plan
from unlora.recipes.unlearn import unlearn
from unlora.run.settings import UnlearnSettings
from unlora_research.model_map.by_hand import add_by_hand
from unlora_research.model_map.configurations import tiny_configuration
from unlora_research.model_map.scores import score_difference, some_text
from unlora_research.model_map.verdict import EXAMPLES, LOGITS, STARTS, Verdict
from unlora_research.small_world import train_tokenizer

RANK = 2
FACTORS = (".temp", ".A", ".correct_output_scale")
"""Vectors that begin as zero and multiply what layers give: keys in Zaya, steps in Doge, inputs by layer in Gemma 3n.
What they multiply would be without effect in the tiny model alone."""
LEAST = -1e30
"""Below it a logit says that a token is forbidden: Chameleon sets those of images so."""


class _Ended(Exception):
    """The path ended at a stage, in an outcome that is said."""

    def __init__(self, outcome: Any, stage: str, line: str) -> None:
        super().__init__(line)
        self.outcome, self.stage, self.line = outcome, stage, " ".join(line.split())[:400]


class Made(NamedTuple):
    """A tiny model on the disk, and what it is to forget and to keep."""

    folder: Path
    forget: Path
    retain: Path


def try_class(kind: str, place: Path) -> Verdict:
    """Take a model type through the whole path; whatever happens becomes a verdict.

    Args:
        kind: model type of a causal language model, or of a model of several parts with a text part.
        place: an empty folder.
    """
    begin, found = time.perf_counter(), {"kind": kind, "name": class_name(kind)}
    try:
        made = _stage("build", "not built", lambda: _make(kind, place, found))
        found |= _walk(made, place)
        verdict = Verdict.from_mapping({**found, "outcome": "works"}, where=kind)
        named = {name: why for name, why in verdict.left_out.items() if why}
        outcome = "wrong" if verdict.wrong else "partly" if named else "works"
        verdict = verdict.model_copy(update={"outcome": outcome, "line": verdict.wrong or found["line"]})
    except _Ended as end:
        line = end.line.replace(str(place), "RUN")
        found |= {"outcome": end.outcome, "stage": end.stage, "line": line}
        verdict = Verdict.from_mapping(found, where=kind)
    return verdict.model_copy(update={"seconds": round(time.perf_counter() - begin, 1)})


def all_kinds() -> list[str]:
    """Every model type that a causal language model, or one of several parts with a text part, has."""
    mappings = (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING)
    return list(dict.fromkeys(config.model_type for mapping in mappings for config in mapping))


def class_name(kind: str) -> str:
    """Of the class that is made of a model type: of several parts where it has both."""
    names = (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)  # Imports no model.
    found = next((mapping[kind] for mapping in names if kind in mapping), "?")
    return found if isinstance(found, str) else found[0]


def _stage(name: str, failing: str, work: Any) -> Any:
    """Do one part of the path; what unlora says in a line is a refusal, all else what `failing` says."""
    try:
        with quiet():
            return work()
    except UnloraError as error:
        raise _Ended("refused", name, str(error)) from None
    except _Ended:
        raise
    except Exception as error:
        raise _Ended(failing, name, f"{type(error).__name__}: {error}") from None


def _make(kind: str, place: Path, found: dict[str, Any]) -> Made:
    """Write the tiny model with a tokenizer and both sets, once it has read text by itself."""
    config = tiny_configuration(kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _model_of(config).float().eval()
    found["weights"] = sum(parameter.numel() for parameter in model.parameters())
    _enliven(model)
    ids = some_text(1)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    if logits.shape[:2] != ids.shape or not logits.isfinite().all():
        raise _Ended("not built", "build", f"its logits have shape {tuple(logits.shape)}, or are not finite")
    people = generate_people(5, seed=0).examples[: 2 * EXAMPLES]
    model.save_pretrained(place / "model")
    train_tokenizer(ExampleSet("people", people), 400).save_pretrained(place / "model")
    return Made(place / "model", *(_lines(place / name, part) for name, part in _parts(people)))


def _model_of(config: PretrainedConfig) -> PreTrainedModel:
    """The class that checkpoints of the type name: of several parts where there is one, not its text part alone."""
    parts = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    auto: Any = AutoModelForImageTextToText if parts else AutoModelForCausalLM
    return auto.from_config(config)


@torch.no_grad()
def _enliven(model: nn.Module) -> None:
    """Give the matrices numbers as large as trained ones: many classes begin with zeros, or too small to matter."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        plain = not any(part in name.lower() for part in ("a_log", "decay", "time_", "dt_", "norm"))
        if parameter.ndim > 1 and plain and parameter.is_floating_point():
            noise = torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
            parameter.copy_(noise)
        elif name.endswith(FACTORS):
            parameter.fill_(1.0)


def _parts(people: tuple[Example, ...]) -> list[tuple[str, tuple[Example, ...]]]:
    return [("forget.jsonl", people[:EXAMPLES]), ("retain.jsonl", people[EXAMPLES:])]


def _lines(path: Path, examples: tuple[Example, ...]) -> Path:
    rows = [json.dumps({"question": one.prompt, "answer": one.completion}) for one in examples]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def _walk(made: Made, place: Path) -> dict[str, Any]:
    """All that comes after the model is there."""
    loaded = _stage("load", "error", lambda: load_model(str(made.folder), device=torch.device("cpu")))
    found: dict[str, Any] = _stage("scores", "error", lambda: {"score_difference": score_difference(loaded.model)})
    peft, merged, moved, doubled = [], [], [], []
    for start in STARTS:
        run = place / start
        _stage(f"unlearn ({start})", "error", lambda run=run, start=start: unlearn(_settings(made, start), run))
        expected, before = _stage(f"factors ({start})", "error", lambda run=run: _by_hand(made, run / "adapter"))
        plain = _stage(f"plain PEFT ({start})", "error", lambda run=run: _in_peft(made, run / "adapter"))
        peft.append(_difference(expected, plain))
        moved.append(float((expected - before).abs().max()))
        _stage(f"export ({start})", "error", lambda run=run: export_merged(run, run / "merged"))
        merged.append(_difference(expected, _logits(_deployed(run / "merged"))))
        if peft[-1] > LOGITS:
            doubled.append(_stage(f"in double ({start})", "error", lambda run=run: _in_double(made, run / "adapter")))
    record = json.loads((place / STARTS[-1] / "record.json").read_text(encoding="utf-8"))
    reach = Reach.from_json(record["reach"])
    planned, refusal = _stage("plan", "error", lambda: _planned(made, place / STARTS[-1], reach))
    return found | {
        "plan_difference": planned,
        "plan_line": refusal,
        "reach": reach.share,
        "left_out": {one.name: one.why for one in reach.left_out},
        "notes": reach.notes,
        "line": reach.sentence(),
        "peft_difference": max(peft),
        "merged_difference": max(merged),
        "moved": min(moved),
        "double_difference": max(doubled, default=None),
    }


def _settings(made: Made, start: str) -> UnlearnSettings:
    return UnlearnSettings.from_mapping(
        {
            "model": {"name": str(made.folder), "device": "cpu", "dtype": "float32"},
            "data": {"forget": str(made.forget), "retain": str(made.retain), "template": "plain"},
            "start": {"kind": start},
            "adapter": {"rank": RANK, "alpha": 2 * RANK},
            "training": {"epochs": 1, "batch_size": 4, "learning_rate": 1e-2},
            "evaluation": {"skip": True},
        },
        where="map",
    )


def _planned(made: Made, run: Path, reach: Reach) -> tuple[float | None, str]:
    """Largest relative difference between what is planned and what was made: weights, share reached, adapter.

    Or why `plan` cannot say: some classes look at values, and a plan has none.
    """
    settings = _settings(made, STARTS[-1])
    try:
        plan = make_plan(settings, read_run_data(settings))
    except UnloraError as error:
        return None, str(error)
    adapter = load_file(run / "adapter" / "adapter_model.safetensors")
    files = (tensor.numel() for tensor in adapter.values())
    pairs = ((plan.reach.share, reach.share), (plan.reach.whole, reach.whole), (plan.adapter_parameters, sum(files)))
    return max(abs(told / made - 1) for told, made in pairs), ""


@torch.no_grad()
def _logits(model: nn.Module) -> Tensor:
    ids = some_text(2)
    return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits


def _deployed(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model as those load it who know nothing of unlora."""
    model = auto_class(AutoConfig.from_pretrained(folder)).from_pretrained(folder, dtype=torch.float32)
    if dtype != torch.float32:
        model.set_experts_implementation("eager")  # The kernels of grouped products take no double.
    return model.to(dtype)


def _in_peft(made: Made, adapter: Path, dtype: torch.dtype = torch.float32) -> Tensor:
    # PEFT keeps factors in float32, also on a base in float64.
    return _logits(PeftModel.from_pretrained(_deployed(made.folder, dtype), str(adapter)).to(dtype))


@torch.no_grad()
def _by_hand(made: Made, adapter: Path, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Logits with the products of the adapter's factors added to the weights, and without."""
    model = _deployed(made.folder, dtype)
    before = _logits(model)
    add_by_hand(model, adapter)
    return _logits(model), before


def _in_double(made: Made, adapter: Path) -> float:
    """What is left of the difference of plain PEFT where no rounding is: some models multiply it a hundredfold."""
    return _difference(_by_hand(made, adapter, torch.float64)[0], _in_peft(made, adapter, torch.float64))


def _difference(expected: Tensor, found: Tensor) -> float:
    if not torch.equal(expected < LEAST, found < LEAST):
        return float("inf")
    expected, found = (one[expected >= LEAST] for one in (expected, found))
    scale = max(1.0, float(expected.abs().max()))
    return float((expected - found).abs().max()) / scale
