"""The numbers that TOFU's own logs give (Llama-2-7B, trained on all authors or on 90 % of them)."""

import json
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from unlora.metrics import (
    answer_probability,
    forget_quality,
    model_utility,
    normalised_probability,
    truth_ratio,
    truth_ratio_retain_score,
)

LOGS = Path(__file__).parents[3] / "shared" / "data" / "tofu-logs"
TASKS = {
    "retain": "eval_log",
    "real_authors": "eval_real_author_wo_options",
    "world_facts": "eval_real_world_wo_options",
    "forget": "eval_log_forget",
}
Aggregation = Literal["geometric", "arithmetic"]

pytestmark = pytest.mark.skipif(not LOGS.is_dir(), reason="TOFU's logs are not here")


@cache
def read_log(model: str) -> dict:
    return json.loads((LOGS / f"tofu_log_llama2-7b_{model}.json").read_text())


def values(model: str, examples: str, key: str) -> np.ndarray:
    return np.array(list(read_log(model)[TASKS[examples]][key].values()))


def ratio(model: str, examples: str, aggregation: Aggregation) -> np.ndarray:
    correct = -values(model, examples, "avg_paraphrased_loss")
    return truth_ratio(correct, -values(model, examples, "average_perturb_loss"), aggregation=aggregation)


def utility_parts(model: str, aggregation: Aggregation) -> dict[str, float]:
    parts = {}
    for examples in ("retain", "real_authors", "world_facts"):
        answer = -values(model, examples, "avg_gt_loss")
        wrong = -values(model, examples, "average_perturb_loss")
        probability = answer_probability(answer) if examples == "retain" else normalised_probability(answer, wrong)
        parts[f"{examples}_probability"] = float(probability.mean())
        parts[f"{examples}_rouge_l_recall"] = float(values(model, examples, "rougeL_recall").mean())
        score = truth_ratio_retain_score(ratio(model, examples, aggregation))
        parts[f"{examples}_truth_ratio"] = float(score.mean())
    return parts


@pytest.mark.parametrize(
    ("model", "aggregation", "expected"),
    [
        ("full", "geometric", 0.62268),
        ("retain90", "geometric", 0.61374),
        ("full", "arithmetic", 0.58589),
        ("retain90", "arithmetic", 0.57524),
    ],
)
def test_model_utility_equals_the_published_logs(model: str, aggregation: Aggregation, expected: float) -> None:
    assert model_utility(utility_parts(model, aggregation)) == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize(("aggregation", "expected"), [("geometric", -20.7366), ("arithmetic", -22.2195)])
def test_forget_quality_equals_the_published_logs(aggregation: Aggregation, expected: float) -> None:
    result = forget_quality(ratio("full", "forget", aggregation), ratio("retain90", "forget", aggregation))
    assert result.log10_p == pytest.approx(expected, abs=5e-5)
