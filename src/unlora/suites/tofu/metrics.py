"""TOFU's metrics (Maini et al. 2024, arXiv 2401.06121) from the scores of each example.

A metric that cannot be computed is there with value None and says why; nothing is ever filled in.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np

from unlora.metrics import (
    FEWEST_QUESTIONS,
    MODEL_UTILITY_PARTS,
    forget_quality,
    model_utility,
    normalised_probability,
    truth_ratio,
    truth_ratio_forget_score,
    truth_ratio_retain_score,
    truth_ratio_share,
)
from unlora.metrics.likelihood import ExampleValues, WrongAnswers
from unlora.results import Measurement, mean_measurement
from unlora.suites.scores import ModelScores
from unlora.suites.tofu.scores import ExampleScore, check_asked_alike

SetName = Literal["forget", "retain", "real_authors", "world_facts"]
Aggregation = Literal["geometric", "arithmetic"]

SET_NAMES: tuple[SetName, ...] = ("forget", "retain", "real_authors", "world_facts")
NO_REFERENCE = "no retain-only model was given: pass --retain-only MODEL"
NO_PERTURBED = "the data has no paraphrased and perturbed answers"


def measure_tofu(
    scores: ModelScores[ExampleScore], *, retain_only: ModelScores[ExampleScore] | None
) -> dict[str, Measurement]:
    """Compute every metric of the suite for one model.

    Names are SET_SCORE, but for exact_memorisation and extraction_strength of the forget set. Truth ratios and what is
    made of them use the geometric aggregation (TOFU's stand-alone aggregator, OpenUnlearning); "_arithmetic" in a name
    is the paper's, "_prob_mean" the share right / (right + wrong) of OpenUnlearning's meta-evaluation.

    Args:
        scores: of the model.
        retain_only: of the model that never saw the forget set, for forget quality; may be `scores` itself.

    Raises:
        InputError: the retain-only model was asked other questions, or in another way.
    """
    measurements: dict[str, Measurement] = {}
    for set_name in SET_NAMES:
        measurements |= _measure_set(set_name, scores.sets.get(set_name))
    for suffix in ("", "_arithmetic"):
        measurements[f"model_utility{suffix}"] = _measure_utility(measurements, suffix)
    return measurements | _measure_forget_quality(scores, retain_only)


def _measure_set(set_name: SetName, examples: Sequence[ExampleScore] | None) -> dict[str, Measurement]:
    measurements: dict[str, Measurement] = {}
    for name, values_of in _metrics_of_set(set_name).items():
        # On the forget set low is good, but the truth ratio should be neither high nor low: like the retain-only's.
        direction = True if set_name != "forget" else None if "truth_ratio" in name else False
        if examples is None:
            measurements[name] = Measurement(None, None, 0, direction, note=f"no {set_name} set was given")
        else:
            values = values_of(examples).tolist()
            measurements[name] = mean_measurement(values, higher_is_better=direction, note=_lacking(name, examples))
    return measurements


def _metrics_of_set(set_name: SetName) -> dict[str, Callable[[Sequence[ExampleScore]], ExampleValues]]:
    general = set_name in ("real_authors", "world_facts")
    score = truth_ratio_forget_score if set_name == "forget" else truth_ratio_retain_score
    metrics = {
        f"{set_name}_probability": partial(_right_and_wrong, normalised_probability, "mean_log_prob")
        if general
        else _field("probability"),
        f"{set_name}_rouge_l_recall": _field("rouge_l_recall"),
        f"{set_name}_truth_ratio": lambda examples: score(truth_ratios(examples, "geometric")),
        f"{set_name}_truth_ratio_arithmetic": lambda examples: score(truth_ratios(examples, "arithmetic")),
        f"{set_name}_truth_ratio_prob_mean": lambda examples: truth_ratio_share(truth_ratios(examples, "geometric")),
    }
    if not general:
        prefix = "" if set_name == "forget" else f"{set_name}_"
        for memorised in ("exact_memorisation", "extraction_strength"):
            metrics[prefix + memorised] = _field(memorised)
    return metrics


def _field(name: str) -> Callable[[Sequence[ExampleScore]], ExampleValues]:
    return lambda examples: np.array([getattr(example, name) for example in examples], dtype=float)


def truth_ratios(examples: Sequence[ExampleScore], aggregation: Aggregation) -> ExampleValues:
    """R = wrong / right of each example; NaN where it has no perturbed answers, and no such ratio is known of it."""
    ratios = _right_and_wrong(partial(truth_ratio, aggregation=aggregation), "paraphrased_log_prob", examples)
    if aggregation == "arithmetic":
        return ratios
    return np.where(np.isnan(ratios), _field("known_truth_ratio")(examples), ratios)


def _right_and_wrong(
    metric: Callable[[ExampleValues, WrongAnswers], ExampleValues], right: str, examples: Sequence[ExampleScore]
) -> ExampleValues:
    # One example at a time: they may have different numbers of perturbed answers.
    values = [
        metric(np.array([getattr(example, right)]), np.array([example.perturbed_log_probs], dtype=float))
        for example in examples
    ]
    return np.concatenate(values) if values else np.empty(0)


def _lacking(name: str, examples: Sequence[ExampleScore]) -> str:
    """Say what the data lacks for a metric; empty when nothing."""
    if "truth_ratio" in name or name in ("real_authors_probability", "world_facts_probability"):
        known = any(example.perturbed_log_probs or not np.isnan(example.known_truth_ratio) for example in examples)
        return "" if known else NO_PERTURBED
    if "rouge" in name and all(example.generated is None for example in examples):
        return "the examples have no prompt to answer"
    return ""


def _measure_utility(measurements: dict[str, Measurement], suffix: str) -> Measurement:
    parts = {
        part: measurements[part + suffix if part.endswith("truth_ratio") else part] for part in MODEL_UTILITY_PARTS
    }
    values = {part: measured.value for part, measured in parts.items() if measured.value is not None}
    if len(values) < len(parts):
        lacking = [
            name for name in SET_NAMES[1:] if any(part.startswith(name) for part in parts.keys() - values.keys())
        ]
        needed = "needs probability, ROUGE-L and truth ratio of retain, real_authors and world_facts"
        return Measurement(None, None, 0, True, note=f"{needed}; incomplete: {', '.join(lacking)}")
    example_count = sum(parts[f"{name}_probability"].example_count for name in SET_NAMES[1:])
    return Measurement(model_utility(values), None, example_count, True)


def _measure_forget_quality(
    scores: ModelScores[ExampleScore], reference: ModelScores[ExampleScore] | None
) -> dict[str, Measurement]:
    if reference is not None:
        check_asked_alike(scores, reference)
    return _forget_quality(scores, reference, "geometric", "forget_quality") | _forget_quality(
        scores, reference, "arithmetic", "forget_quality_arithmetic"
    )


def _forget_quality(
    scores: ModelScores[ExampleScore], reference: ModelScores[ExampleScore] | None, aggregation: Aggregation, name: str
) -> dict[str, Measurement]:
    names = (name, f"{name}_log10")
    if reference is None:
        return dict.fromkeys(names, Measurement(None, None, 0, True, note=NO_REFERENCE))
    forget_sets = [one.sets.get("forget", ()) for one in (scores, reference)]
    ratios, reference_ratios = (truth_ratios(examples, aggregation) for examples in forget_sets)
    scored, reference_scored = (values[~np.isnan(values)] for values in (ratios, reference_ratios))
    if not (scored.size and reference_scored.size):
        note = "needs truth ratios on the forget set, of this model and of the retain-only model"
        return dict.fromkeys(names, Measurement(None, None, 0, True, ratios.size - scored.size, note))
    result = forget_quality(scored, reference_scored)
    if math.isnan(result.p_value):
        fewest = min(scored.size, reference_scored.size)
        note = f"needs {FEWEST_QUESTIONS} scored questions of each model to tell them apart, found {fewest}"
        return dict.fromkeys(names, Measurement(None, None, scored.size, True, ratios.size - scored.size, note))
    note = (
        f"KS statistic {result.statistic:.3f}, p-value {result.p_value:.3g}, log10 {result.log10_p:.2f}; "
        f"so many questions can give {result.smallest_p:.1e} at least"
    )
    if reference is scores:
        note = "the retain-only model against itself"
    for remark in reference.protocol.get("notes", ()):  # of a reference that another program scored
        note += f"; {remark}"
    return {
        name: Measurement(value, None, scored.size, True, ratios.size - scored.size, note)
        for name, value in zip(names, (result.p_value, result.log10_p), strict=True)
    }
