"""What the page says in numbers and words: the result in one sentence, the metrics, the answers before and after."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unlora.results import NO_VALUE

Records = Sequence[Mapping[str, Any]]
Direction = Literal["lower", "higher", "as retain-only", "not said"]

SHOWN_ANSWERS = 5
"""Questions shown of each set."""
FEW = 0.1
"""Share of the retain questions that is looked at for what they carry of the loss."""
LONGEST_ANSWER = 320
"""Characters; models that have lost the thread repeat themselves without end."""

SETS = {
    "forget": "Forget set",
    "retain": "Retain set",
    "real_authors": "Real authors",
    "world_facts": "World facts",
}
OVERALL = ("model_utility", "forget_quality", "forget_quality_log10")
AMONG_WRONG = ("Answer probability", "of the true answer among the wrong ones it is set against")
EXPLAINED = {
    "probability": ("Answer probability", "of the true answer, per token: 1 = certain"),
    "real_authors_probability": AMONG_WRONG,
    "world_facts_probability": AMONG_WRONG,
    "rouge_l_recall": ("ROUGE-L recall", "share of the true answer's words that the model's own answer repeats"),
    "truth_ratio": ("Truth ratio", "near 1 = the true answer, reworded, is far likelier than wrong ones"),
    "forget_truth_ratio": ("Truth ratio", "1 = the true answer, reworded, is exactly as likely as wrong ones"),
    "truth_ratio_prob_mean": (
        "Truth ratio, share",
        "of the true answer, reworded, against wrong ones: 0.5 = as likely",
    ),
    "exact_memorisation": ("Exact memorisation", "share of the answer's tokens the model would choose itself"),
    "extraction_strength": ("Extraction strength", "share of the answer the model completes once it has the beginning"),
    "model_utility": ("Model utility", "one number for all that should stay"),
    "forget_quality": ("Forget quality", "p-value: near 0 = clearly not like a model that never saw the data"),
    "forget_quality_log10": ("Forget quality, log10", "of the p-value"),
}
"""Label and meaning of every score, by its name with the set or without."""
DIRECTIONS: dict[bool | None, Direction] = {True: "higher", False: "lower", None: "as retain-only"}


@dataclass(frozen=True)
class Cell:
    """One model's value of one metric."""

    text: str
    standard_error: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class MetricRow:
    """One metric, side by side."""

    name: str
    label: str
    meaning: str
    direction: Direction
    example_count: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Metrics:
    """The metric table."""

    models: tuple[str, ...]
    groups: tuple[tuple[str, tuple[MetricRow, ...]], ...]
    """(heading, rows); variants of a metric are in `variants`."""
    variants: tuple[MetricRow, ...]
    missing: tuple[tuple[str, tuple[str, ...]], ...]
    """(reason, metrics without a value in any model)."""


@dataclass(frozen=True)
class ShownAnswer:
    """A question and what was answered before and after; `retain_only` where that model's answers are there."""

    question: str
    truth: str
    before: str
    after: str
    retain_only: str | None
    overlap: str
    """ROUGE-L recall of the answer after."""


def metric_table(evaluation: Mapping[str, Any]) -> Metrics:
    """Arrange evaluation.json for reading."""
    models = {role: model["metrics"] for role, model in evaluation["models"].items()}
    groups: dict[str, list[MetricRow]] = {}
    variants: list[MetricRow] = []
    missing: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for metrics in models.values() for name in metrics):
        measured = [metrics[name] for metrics in models.values()]
        if all(one["value"] is None for one in measured):
            missing.setdefault(measured[0].get("note", "no value"), []).append(name)
            continue
        row = metric_row(name, measured)
        if name.endswith(("_arithmetic", "_log10", "_prob_mean")):
            variants.append(row)
        else:
            groups.setdefault(_heading(name), []).append(row)
    return Metrics(
        tuple(role.replace("_", "-") for role in models),
        tuple((heading, tuple(rows)) for heading, rows in groups.items()),
        tuple(variants),
        tuple((reason, tuple(names)) for reason, names in missing.items()),
    )


def result_sentence(evaluation: Mapping[str, Any]) -> str | None:
    """Say in plain words what happened to the answer probabilities; None without a before and an after."""
    models = evaluation["models"]
    probability = {role: _values(model["metrics"], "probability") for role, model in models.items()}
    before, after = probability.get("target", {}), probability.get("unlearned", {})
    sentences: list[str] = []
    if "forget" in before and "forget" in after:
        sentence = f"Answer probability on the forget set {_change(before['forget'], after['forget'])}"
        never_saw = probability.get("retain_only", {}).get("forget")
        if never_saw is not None:
            sentence += f"; a model that never saw it has {number_text(never_saw)}"
        sentences.append(f"{sentence}.")
    if "retain" in before and "retain" in after:
        sentences.append(f"On the retain set it {_change(before['retain'], after['retain'])}.")
    return " ".join(sentences) or None


def loss_sentence(answers: Mapping[str, Records]) -> str | None:
    """Say how much of what the retain set lost its tenth of questions with the largest losses carries.

    A mean hides that a model has kept most questions and lost one (docs/results/depth.md). None where fewer than ten
    questions were asked before and after, or none of them lost anything that three decimals show.
    """
    before, after = (
        {one["question_sha256"]: math.exp(one["mean_log_prob"]) for one in answers.get(role, ()) if _is_kept(one)}
        for role in ("target", "unlearned")
    )
    losses = sorted(((before[key] - after[key], key) for key in after if key in before), reverse=True)
    lost = sum(max(loss, 0.0) for loss, _ in losses)
    if len(losses) < 1 / FEW or lost < 0.001 * len(losses):
        return None
    few = losses[: round(FEW * len(losses))]
    worst = few[0][1]
    questions = f"{len(few)} of {len(losses)} questions carry" if len(few) > 1 else f"one of {len(losses)} carries"
    return (
        f"Of what it lost there {questions} {sum(loss for loss, _ in few) / lost:.0%}; the worst fell from "
        f"{number_text(before[worst])} to {number_text(after[worst])}."
    )


def answers_of_set(answers: Mapping[str, Records], set_name: str, *, count: int = SHOWN_ANSWERS) -> list[ShownAnswer]:
    """Choose questions of a set evenly from the lowest to the highest overlap after unlearning, both ends included.

    A fixed rule, so that nobody picks the flattering ones; the list starts with what went least well: remembered
    answers of the forget set, lost answers of the others.
    """
    before, after, retain_only = (
        {one["question_sha256"]: one for one in answers.get(role, ()) if one["set"] == set_name}
        for role in ("target", "unlearned", "retain_only")
    )
    asked = [key for key in after if key in before and after[key]["rouge_l_recall"] is not None]
    asked.sort(key=lambda key: after[key]["rouge_l_recall"], reverse=set_name == "forget")
    if len(asked) > count:
        asked = [asked[round(place * (len(asked) - 1) / (count - 1))] for place in range(count)]
    return [_answer(before[key], after[key], retain_only.get(key)) for key in asked]


def number_text(value: float) -> str:
    """Three decimals, or two digits and a power of ten where these would show 0."""
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.1e}"


def metric_row(name: str, measured: Records) -> MetricRow:
    """Arrange one metric, measured of several models or in several runs."""
    score = name.replace("_arithmetic", "")
    without_set = [score.removeprefix(f"{key}_") for key in SETS if score.startswith(f"{key}_")]
    known = next((one for one in (score, *without_set) if one in EXPLAINED), None)
    label, meaning = EXPLAINED[known] if known is not None else (score.replace("_", " "), "")
    if score != name:
        label += ", arithmetic"
    direction = DIRECTIONS[measured[0]["higher_is_better"]]
    counts = [one["example_count"] for one in measured]
    return MetricRow(name, label, meaning, direction, max(counts), tuple(_cell(one) for one in measured))


def _is_kept(score: Mapping[str, Any]) -> bool:
    return score["set"] == "retain" and score.get("mean_log_prob") is not None


def _heading(name: str) -> str:
    if name in ("exact_memorisation", "extraction_strength"):
        return SETS["forget"]
    if name in OVERALL:
        return "Over all"
    return next((heading for key, heading in SETS.items() if name.startswith(f"{key}_")), "Other")


def _cell(measured: Mapping[str, Any]) -> Cell:
    value, error = measured["value"], measured["standard_error"]
    notes = [measured["note"]] if measured.get("note") else []
    if measured["unscored_count"]:
        notes.append(f"{measured['unscored_count']} not scored")
    return Cell(
        NO_VALUE if value is None else number_text(value), "" if error is None else f"± {error:.3f}", tuple(notes)
    )


def _values(metrics: Mapping[str, Mapping[str, Any]], score: str) -> dict[str, float]:
    named = {key: metrics.get(f"{key}_{score}", {}).get("value") for key in SETS}
    return {key: value for key, value in named.items() if value is not None}


def _change(before: float, after: float) -> str:
    old, new = number_text(before), number_text(after)
    if old == new:
        return f"stayed at {old}"
    return f"{'fell' if after < before else 'rose'} from {old} to {new}"


def _answer(before: Mapping[str, Any], after: Mapping[str, Any], retain_only: Mapping[str, Any] | None) -> ShownAnswer:
    return ShownAnswer(
        question=_shortened(after["question"]),
        truth=_shortened(after["answer"]),
        before=_shortened(before["generated"] or ""),
        after=_shortened(after["generated"] or ""),
        retain_only=_shortened(retain_only["generated"] or "") if retain_only is not None else None,
        overlap=f"{after['rouge_l_recall']:.2f}",
    )


def _shortened(text: str) -> str:
    folded = " ".join(text.split()) or "(nothing)"
    if len(folded) <= LONGEST_ANSWER:
        return folded
    return f"{folded[:LONGEST_ANSWER]} … ({len(folded)} characters in all)"
