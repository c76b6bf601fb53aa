"""What other programs wrote about a model that never saw the forget set, as scores: logs of TOFU and OpenUnlearning.

TOFU's `eval_log_aggregated.json` (Maini et al. 2024, arXiv 2401.06121) and OpenUnlearning's `TOFU_EVAL.json` (Dorna et
al. 2025, arXiv 2506.12618). Neither says reliably what was asked, so only the number of questions can be compared.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unlora.artifacts import read_json
from unlora.errors import InputError
from unlora.suites.scores import ModelScores
from unlora.suites.tofu.metrics import SET_NAMES, SetName
from unlora.suites.tofu.scores import UNKNOWN_QUESTION, ExampleScore

TOFU_TASKS: dict[SetName, str] = {
    "forget": "eval_log_forget",
    "retain": "eval_log",
    "real_authors": "eval_real_author_wo_options",
    "world_facts": "eval_real_world_wo_options",
}
"""TOFU's name of each set; the aggregated file adds ".json"."""
EXPECTED = "expected eval_log_aggregated.json or TOFU_EVAL.json"
OPEN_UNLEARNING_PREFIXES: dict[SetName, str] = {
    "forget": "forget",
    "retain": "retain",
    "real_authors": "ra",
    "world_facts": "wf",
}
"""What OpenUnlearning's metrics of each set begin with."""


def read_external_log(path: Path) -> ModelScores[ExampleScore]:
    """Read the result log of another program as the scores of a model.

    What the log lacks is NaN. `protocol` of the scores holds the name of the protocol that the program follows and
    "notes", what had to be assumed.

    Raises:
        InputError: not such a log, nothing about the forget set in it, a value that is no number, truth ratios of
            another kind (OpenUnlearning's aggregator prob_mean), or ratios that contradict the losses beside them.
    """
    content = read_json(path, finite=False)
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a JSON object; {EXPECTED}.")
    notes = ["the reference log does not say what was asked, only the number of questions was compared"]
    tasks = {name: _mapping(content.get(task, content.get(f"{task}.json"))) for name, task in TOFU_TASKS.items()}
    if any(tasks.values()):
        sets = {name: _tofu_set(tasks[name], f"{path}, {TOFU_TASKS[name]}") for name in SET_NAMES}
        protocol = "tofu"
    elif any(isinstance(metric, dict) and "value_by_index" in metric for metric in content.values()):
        sets = {name: _open_unlearning_set(content, name, path, notes) for name in SET_NAMES}
        protocol = "open_unlearning"
    else:
        summary = all(isinstance(value, int | float) for value in content.values()) and bool(content)
        advice = "it holds means only: give the TOFU_EVAL.json beside it" if summary else EXPECTED
        raise InputError(f"{path}: not a result log of TOFU or OpenUnlearning; {advice}.")
    if not sets.get("forget"):
        raise InputError(f"{path}: holds nothing about the forget set, and that is what a reference is for.")
    given = {name: examples for name, examples in sets.items() if examples}
    return ModelScores(given, {"name": protocol, "source": str(path), "notes": notes})


class _Logged(NamedTuple):
    """What a log says about one example; losses are means over tokens in nats."""

    texts: tuple[str, str, str | None]
    """Question, answer, what was generated."""
    loss: float
    right_loss: float
    wrong_losses: tuple[float, ...]
    recall: float
    exact_memorisation: float = math.nan
    extraction_strength: float = math.nan
    known_truth_ratio: float = math.nan

    def score(self, source: str) -> ExampleScore:
        """The same as the scores of an example of ours."""
        question, answer, generated = self.texts
        return ExampleScore(
            source=source,
            question=question,
            answer=answer,
            question_sha256=UNKNOWN_QUESTION,
            token_count=0,
            mean_log_prob=-self.loss,
            probability=math.exp(-self.loss),
            exact_memorisation=self.exact_memorisation,
            extraction_strength=self.extraction_strength,
            generated=generated,
            rouge_l_recall=self.recall,
            paraphrased_log_prob=-self.right_loss,
            perturbed_log_probs=tuple(-wrong for wrong in self.wrong_losses),
            known_truth_ratio=self.known_truth_ratio,
        )


def _tofu_set(log: Mapping[str, Any], where: str) -> tuple[ExampleScore, ...]:
    losses = ("avg_gt_loss", "avg_paraphrased_loss", "average_perturb_loss")
    columns = {key: _mapping(log.get(key)) for key in (*losses, "rougeL_recall", "generated_text")}
    scores: list[ExampleScore] = []
    for item in _items(columns[key] for key in (*losses, "rougeL_recall")):
        here = f"{where}, item {item}"
        texts = columns["generated_text"].get(item)
        question, generated, answer = texts if isinstance(texts, list) and len(texts) == 3 else ("", None, "")
        answer_loss, right_loss, wrong_losses = (columns[key].get(item) for key in losses)
        logged = _Logged(
            texts=(question, answer, generated),
            loss=_number(answer_loss, here),
            right_loss=_number(right_loss, here),
            wrong_losses=_numbers(wrong_losses, here),
            recall=_number(columns["rougeL_recall"].get(item), here),
        )
        scores.append(logged.score(here))
    return tuple(scores)


def _open_unlearning_set(
    content: Mapping[str, Any], name: SetName, path: Path, notes: list[str]
) -> tuple[ExampleScore, ...]:
    prefix = OPEN_UNLEARNING_PREFIXES[name]
    on_forget = name == "forget"
    right = f"{prefix}_Q_A_PARA_Prob" if on_forget or name == "retain" else f"{prefix}_Q_A_Prob"
    # A metric may be spelt like the file that defines it.
    ratio = next((key for key in (f"{prefix}_truth_ratio", f"{prefix}_Truth_Ratio") if key in content), "")
    metrics = {
        "answer": f"{prefix}_Q_A_Prob",
        "right": right,
        "wrong": f"{prefix}_Q_A_PERT_Prob",
        "rouge": f"{prefix}_Q_A_ROUGE",
        "ratio": ratio,
        **({"memorised": "exact_memorization", "strength": "extraction_strength"} if on_forget else {}),
    }
    columns = {part: _mapping(_mapping(content.get(metric)).get("value_by_index")) for part, metric in metrics.items()}
    scores: list[ExampleScore] = []
    for item in _items(columns.values()):
        here = f"{path}, {prefix} item {item}"
        values = {part: _mapping(column.get(item)) for part, column in columns.items()}
        rouge = values["rouge"]
        logged = _Logged(
            texts=(rouge.get("input", ""), rouge.get("ground_truth", ""), rouge.get("generation")),
            loss=_number(values["answer"].get("avg_loss"), here),
            right_loss=_number(values["right"].get("avg_loss"), here),
            wrong_losses=_numbers(values["wrong"].get("avg_loss"), here),
            recall=_number(rouge.get("rougeL_recall"), here),
            exact_memorisation=_number(values.get("memorised", {}).get("score"), here),
            extraction_strength=_number(values.get("strength", {}).get("score"), here),
            known_truth_ratio=_number(values["ratio"].get("score"), here),
        )
        scores.append(logged.score(here))
    return _with_checked_ratios(scores, f"{path}, {ratio}", notes)


def _with_checked_ratios(scores: list[ExampleScore], where: str, notes: list[str]) -> tuple[ExampleScore, ...]:
    """Keep stored ratios where nothing else is known; refuse those that can be seen not to be wrong / right."""
    stored = np.array([score.known_truth_ratio for score in scores])
    right = np.exp([score.paraphrased_log_prob for score in scores])
    wrong = np.exp([_mean(score.perturbed_log_probs) for score in scores])
    checkable = ~np.isnan(stored * right * wrong)
    stored_there, right, wrong = stored[checkable], right[checkable], wrong[checkable]
    # Both formulas as OpenUnlearning computes them, its small number included.
    if not np.allclose(stored_there, wrong / (right + 1e-10), rtol=1e-3):
        if np.allclose(stored_there, right / (right + wrong + 1e-10), rtol=1e-3):
            advice = "make it with closer_to_1_better and true_better, or remove this metric: its losses are enough"
            raise InputError(f"{where}: is right / (right + wrong), OpenUnlearning's prob_mean; {advice}.")
        raise InputError(f"{where}: contradicts the losses beside it; not a log that OpenUnlearning wrote.")
    alone = stored[~checkable & ~np.isnan(stored)]
    if alone.size and alone.max() <= 1:  # prob_mean never exceeds 1, but wrong / right may stay below it too
        notes.append(f"{where}: taken as wrong / right, but nothing in the file shows that it is not prob_mean")
    return tuple(
        dataclasses.replace(score, known_truth_ratio=math.nan) if known else score
        for score, known in zip(scores, checkable.tolist(), strict=True)
    )


def _mean(values: tuple[float, ...]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(columns: Iterable[Mapping[str, Any]]) -> list[str]:
    found = dict.fromkeys(item for column in columns for item in column)
    return sorted(found, key=lambda item: (len(item), item))  # numbers as text: "10" after "9"


def _number(value: Any, where: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: must hold numbers, found {value!r}.")
    return float(value) if math.isfinite(value) else math.nan


def _numbers(value: Any, where: str) -> tuple[float, ...]:
    listed = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(_number(one, where) for one in listed)
