"""MUSE's scores in the files of OpenUnlearning (Dorna et al. 2025, arXiv 2506.12618), under its names, both ways.

Items are those that MUSE's own code scores (Shi et al. 2024, arXiv 2407.06460). OpenUnlearning's differ in three ways:
its ROUGE stems words (here too, in what is written), it compares a continuation of 128 tokens with the whole true text,
and its Min-K% leaves the last token of a text out.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

from unlora.artifacts import read_json, write_json
from unlora.errors import InputError
from unlora.metrics import membership_auc
from unlora.suites.muse.metrics import MuseScores
from unlora.suites.muse.scores import AnswerScore, TextScore
from unlora.suites.scores import ModelScores
from unlora.suites.tofu.open_unlearning import TINY

NAME = "open_unlearning"
ANSWERED = {
    "forget_questions": "forget_knowmem_ROUGE",
    "retain_questions": "retain_knowmem_ROUGE",
    "verbatim": "forget_verbmem_ROUGE",
}
"""Part -> OpenUnlearning's metric of it."""
TEXTS = {"forget_texts": "forget", "holdout_texts": "holdout"}
"""Part -> its key in `mia_min_k`."""
SUMMARISED = (*ANSWERED.values(), "privleak")
"""Metrics of its MUSE configuration that can be had from a model's answers."""
STEMMED = RougeScorer(["rougeL"], use_stemmer=True)


def write_open_unlearning_muse(folder: Path, scores: MuseScores, retain_only: MuseScores | None) -> None:
    """Write `MUSE_EVAL.json` (item by item) and `MUSE_SUMMARY.json` (one number a metric) atomically.

    Args:
        folder: made where it is not there.
        scores: of the model.
        retain_only: of the model that never saw the forget texts; without it there is no privleak.
    """
    logs = muse_logs(scores, retain_only)
    summary = {name: logs[name]["agg_value"] for name in SUMMARISED if name in logs}
    write_json(folder / "MUSE_EVAL.json", logs)
    write_json(folder / "MUSE_SUMMARY.json", summary)


def muse_logs(scores: MuseScores, retain_only: MuseScores | None) -> dict[str, dict[str, Any]]:
    """Return what `MUSE_EVAL.json` holds; a metric that no item has a value for is not in it."""
    logs = {metric: _answers(scores.sets.get(part, ())) for part, metric in ANSWERED.items()}
    logs["mia_min_k"] = _membership(scores)
    if retain_only is not None:
        auc, reference = logs["mia_min_k"]["agg_value"], _membership(retain_only)["agg_value"]
        value = None if auc is None or reference is None else (reference - auc) / (1 - reference + TINY) * 100
        logs["privleak"] = {"agg_value": value}
    return {metric: log for metric, log in logs.items() if log["agg_value"] is not None}


def read_muse_log(path: Path) -> MuseScores:
    """Read OpenUnlearning's `MUSE_EVAL.json` as the scores of a model; what the log lacks is NaN or not there.

    Raises:
        InputError: not such a log, one without a text's Min-K%, or a value that is no number.
    """
    content = read_json(path, finite=False)
    if not isinstance(content, dict) or not isinstance(content.get("mia_min_k"), dict):
        raise InputError(f"{path}: holds no mia_min_k; expected OpenUnlearning's MUSE_EVAL.json.")
    sets: dict[str, tuple[Any, ...]] = {}
    for part, metric in ANSWERED.items():
        if metric in content:
            items = _items(content[metric], f"{path}, {metric}")
            sets[part] = tuple(_answer(item, f"{path}, {metric}, item {place}") for place, item in items.items())
    for part, key in TEXTS.items():
        items = _items(content["mia_min_k"].get(key), f"{path}, mia_min_k, {key}")
        sets[part] = tuple(_text(item, f"{path}, mia_min_k, {key}, item {place}") for place, item in items.items())
    return ModelScores(sets, {"name": NAME, "source": str(path)})


def _answers(items: Sequence[AnswerScore]) -> dict[str, Any]:
    values = {
        str(place): {
            "rougeL_f1": None if math.isnan(one.rouge_l_f1) else _stemmed(one),
            "input": one.asked,
            "ground_truth": one.reference,
            "generation": one.answered,
        }
        for place, one in enumerate(items)
    }
    known = [item["rougeL_f1"] for item in values.values() if item["rougeL_f1"] is not None]
    return {"agg_value": float(np.mean(known)) if known else None, "value_by_index": values}


def _stemmed(score: AnswerScore) -> float:
    return float(STEMMED.score(target=score.reference, prediction=score.answered)["rougeL"].fmeasure)


def _membership(scores: MuseScores) -> dict[str, Any]:
    """Its `mia_min_k`: a score is minus a mean log-probability; an AUC of 1 says that forget texts are likelier."""
    sides = {key: [one.min_40_score for one in scores.sets.get(part, ())] for part, key in TEXTS.items()}
    known = {key: [value for value in values if not math.isnan(value)] for key, values in sides.items()}
    logs: dict[str, Any] = {
        key: {
            "agg_value": -float(np.mean(values)) if values else None,
            "value_by_index": {
                str(place): {"score": -value} for place, value in enumerate(sides[key]) if not math.isnan(value)
            },
        }
        for key, values in known.items()
    }
    auc = membership_auc(np.array(known["forget"]), np.array(known["holdout"])) if all(known.values()) else None
    return logs | {"auc": auc, "agg_value": auc}


def _items(log: Any, where: str) -> Mapping[str, Any]:
    items = log.get("value_by_index") if isinstance(log, dict) else None
    if not isinstance(items, dict):
        raise InputError(f"{where}: no value_by_index; not a log that OpenUnlearning wrote.")
    return items


def _answer(item: Any, where: str) -> AnswerScore:
    texts = [item.get(key) if isinstance(item, dict) else None for key in ("input", "ground_truth", "generation")]
    asked, reference, answered = (text if isinstance(text, str) else "" for text in texts)
    return AnswerScore(where, asked, reference, answered, _number(item, "rougeL_f1", where), math.nan, False)


def _text(item: Any, where: str) -> TextScore:
    return TextScore(where, "", 0, -_number(item, "score", where), False)


def _number(item: Any, key: str, where: str) -> float:
    value = item.get(key) if isinstance(item, dict) else None
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: must hold a number, found {value!r}.")
    return float(value)
