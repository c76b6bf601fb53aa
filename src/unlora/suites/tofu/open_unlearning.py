"""The scores of a model in the files of OpenUnlearning (Dorna et al. 2025, arXiv 2506.12618), under its names.

Per-item values and means are computed as its code does, with the 1e-10 that it adds to denominators, so that its own
runs can take `TOFU_EVAL.json` as `retain_logs_path` and `TOFU_SUMMARY.json` can stand in one table with its results.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from unlora.artifacts import write_json
from unlora.metrics import harmonic_mean
from unlora.suites.scores import ModelScores
from unlora.suites.tofu.external_logs import OPEN_UNLEARNING_PREFIXES
from unlora.suites.tofu.scores import ExampleScore

SUMMARISED = (
    *("forget_quality", "forget_truth_ratio", "forget_Q_A_Prob", "forget_Q_A_ROUGE", "model_utility"),
    *("extraction_strength", "exact_memorization"),
)
"""Metrics of the summary, all that its TOFU configuration names and that can be had from a model's answers."""
UTILITY_PARTS = tuple(
    f"{prefix}_{part}"
    for prefix, probability in (("retain", "Q_A_Prob"), ("ra", "Q_A_Prob_normalised"), ("wf", "Q_A_Prob_normalised"))
    for part in (probability, "Q_A_ROUGE", "Truth_Ratio")
)
TINY = 1e-10
"""What OpenUnlearning adds to a denominator."""

LoggedItem = dict[str, Any]
Logs = dict[str, dict[str, Any]]
"""{metric: {"agg_value": mean, "value_by_index": {item: its scores}}}."""


def write_open_unlearning(
    folder: Path, scores: ModelScores[ExampleScore], retain_only: ModelScores[ExampleScore] | None
) -> None:
    """Write `TOFU_EVAL.json` (item by item) and `TOFU_SUMMARY.json` (one number a metric) atomically.

    Args:
        folder: made where it is not there.
        scores: of the model, asked by the protocol open_unlearning, or the numbers compare with nobody's.
        retain_only: of the model that never saw the forget set; without it there is no forget quality.
    """
    logs = evaluation_logs(scores, retain_only)
    summary = {name: logs[name]["agg_value"] for name in SUMMARISED if name in logs}
    write_json(folder / "TOFU_EVAL.json", logs)
    write_json(folder / "TOFU_SUMMARY.json", {name: value for name, value in summary.items() if value is not None})


def evaluation_logs(scores: ModelScores[ExampleScore], retain_only: ModelScores[ExampleScore] | None) -> Logs:
    """Return what `TOFU_EVAL.json` holds; a metric that no example has a value for is not in it.

    An item without a value is null, but left out of truth ratios: OpenUnlearning cannot test those against null.
    """
    logs: Logs = {}
    for name, prefix in OPEN_UNLEARNING_PREFIXES.items():
        logs |= _logs_of_set(prefix, scores.sets.get(name, ()))
    if all(part in logs for part in UTILITY_PARTS):
        logs["model_utility"] = {"agg_value": harmonic_mean([logs[part]["agg_value"] for part in UTILITY_PARTS])}
    reference = {} if retain_only is None else _logs_of_set("forget", retain_only.sets.get("forget", ()))
    if "forget_truth_ratio" in logs and "forget_truth_ratio" in reference:
        ratios, others = (
            [item["score"] for item in one["forget_truth_ratio"]["value_by_index"].values()]
            for one in (logs, reference)
        )
        result: Any = ks_2samp(ratios, others)  # scipy's own annotation hides the fields
        logs["forget_quality"] = {"agg_value": float(result.pvalue)}
    return logs


def _logs_of_set(prefix: str, examples: Sequence[ExampleScore]) -> Logs:
    answers = [_probability(one.mean_log_prob) for one in examples]
    wrong = [_several(list(map(_probability, one.perturbed_log_probs))) for one in examples]
    logs = {
        f"{prefix}_Q_A_Prob": _log(answers, "prob"),
        f"{prefix}_Q_A_PERT_Prob": _log(wrong, "prob"),
        f"{prefix}_Q_A_ROUGE": _log([_rouge(one) for one in examples], "rougeL_recall"),
    }
    if prefix in ("forget", "retain"):
        logs[f"{prefix}_Q_A_PARA_Prob"] = _log([_probability(one.paraphrased_log_prob) for one in examples], "prob")
    else:
        logs[f"{prefix}_Q_A_Prob_normalised"] = _log([{"prob": _normalised(one)} for one in examples], "prob")
    ratios = [{"score": _truth_ratio(one)} for one in examples]
    if prefix == "forget":
        logs["forget_truth_ratio"] = _ratio_log(ratios, lambda ratio: np.minimum(ratio, 1 / (ratio + TINY)))
        logs["exact_memorization"] = _log([{"score": _or_null(one.exact_memorisation)} for one in examples], "score")
        logs["extraction_strength"] = _log([{"score": _strength(one)} for one in examples], "score")
    else:
        logs[f"{prefix}_Truth_Ratio"] = _ratio_log(ratios, lambda ratio: np.maximum(0, 1 - ratio))
    return {metric: log for metric, log in logs.items() if log["agg_value"] is not None}


def _log(items: Sequence[LoggedItem], key: str) -> dict[str, Any]:
    per_item = [_mean(item[key]) for item in items]
    known = [value for value in per_item if value is not None]
    values = {str(number): item for number, item in enumerate(items)}
    return {"agg_value": float(np.mean(known)) if known else None, "value_by_index": values}


def _mean(value: Any) -> float | None:
    """Of the wrong answers to one question; a single number stays what it is."""
    if not isinstance(value, list):
        return value
    return float(np.mean(value)) if value and None not in value else None


def _ratio_log(items: Sequence[LoggedItem], aggregate: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    scored = {str(number): item for number, item in enumerate(items) if item["score"] is not None}
    ratios = np.array([item["score"] for item in scored.values()])
    return {"agg_value": float(aggregate(ratios).mean()) if scored else None, "value_by_index": scored}


def _probability(mean_log_prob: float) -> LoggedItem:
    known = math.isfinite(mean_log_prob)
    return {"prob": math.exp(mean_log_prob) if known else None, "avg_loss": -mean_log_prob if known else None}


def _several(answers: Sequence[LoggedItem]) -> LoggedItem:
    return {key: [answer[key] for answer in answers] for key in ("prob", "avg_loss")}


def _rouge(score: ExampleScore) -> LoggedItem:
    texts = {"input": score.question, "ground_truth": score.answer, "generation": score.generated}
    return {"rougeL_recall": _or_null(score.rouge_l_recall), **texts}


def _normalised(score: ExampleScore) -> float | None:
    right, wrong = math.exp(score.mean_log_prob), np.exp(score.perturbed_log_probs).sum()
    return _or_null(float(right / (right + wrong + TINY))) if score.perturbed_log_probs else None


def _truth_ratio(score: ExampleScore) -> float | None:
    if not score.perturbed_log_probs:
        return _or_null(score.known_truth_ratio)
    wrong = np.exp(np.mean(score.perturbed_log_probs))
    return _or_null(float(wrong / (math.exp(score.paraphrased_log_prob) + TINY)))


def _strength(score: ExampleScore) -> float | None:
    # OpenUnlearning tries no prefix longer than all tokens but one; the end token is not among the tokens.
    tokens = score.token_count - 1
    shortest = 1 / tokens if tokens > 0 else 0.0
    return None if math.isnan(score.extraction_strength) else max(score.extraction_strength, shortest)


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None
