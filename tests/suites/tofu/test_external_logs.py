"""Logs of TOFU and of OpenUnlearning, made by hand and real, read as a model's scores."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.suites.tofu.made_scores import made_model, made_score
from unlora.errors import InputError
from unlora.suites.tofu.external_logs import read_external_log
from unlora.suites.tofu.metrics import measure_tofu

LOGS = Path(__file__).parents[3] / "shared" / "data" / "tofu-logs"
TOFU_LOG = {
    "eval_log_forget": {
        "avg_gt_loss": {"0": 0.5, "1": 1.5},
        "avg_paraphrased_loss": {"0": 1.0, "1": 2.0},
        "average_perturb_loss": {"0": [2.0, 4.0], "1": [1.0, 2.0]},
        "rougeL_recall": {"0": 1.0, "1": 0.25},
        "generated_text": {"0": ["Who?", "Noor.", "Noor A."], "1": ["Where?", "Here.", "There."]},
    }
}
RATIOS = {"0": math.exp(1.0 - 3.0), "1": math.exp(2.0 - 1.5)}
"""Wrong over right of the two items, geometric."""


def probabilities(losses: list[float] | list[list[float]]) -> dict[str, Any]:
    """As OpenUnlearning writes a metric of losses: the mean is not read."""
    return {"agg_value": 0.5, "value_by_index": {str(item): {"avg_loss": loss} for item, loss in enumerate(losses)}}


def scores_by_item(values: dict[str, float | None]) -> dict[str, Any]:
    return {"agg_value": 0.5, "value_by_index": {item: {"score": value} for item, value in values.items()}}


EVAL = {
    "forget_Q_A_Prob": probabilities([0.5, 1.5]),
    "forget_Q_A_PARA_Prob": probabilities([1.0, 2.0]),
    "forget_Q_A_PERT_Prob": probabilities([[2.0, 4.0], [1.0, 2.0]]),
    "forget_Q_A_ROUGE": {
        "agg_value": 0.6,
        "value_by_index": {
            "0": {"rougeL_recall": 1.0, "input": "Who?", "ground_truth": "Noor A.", "generation": "Noor."},
            "1": {"rougeL_recall": None, "input": "Where?", "ground_truth": "There.", "generation": ""},
        },
    },
    "forget_truth_ratio": scores_by_item(RATIOS),
    "ra_Q_A_Prob": probabilities([0.25]),
    "ra_Q_A_PERT_Prob": probabilities([[1.0, 1.0, 1.0]]),
    "extraction_strength": scores_by_item({"0": 0.5, "1": 0.1}),
    "forget_quality": {"agg_value": None},
}


def write(folder: Path, content: Any) -> Path:
    path = folder / "log.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.skipif(not LOGS.is_dir(), reason="TOFU's logs are not here")
def test_tofu_s_own_logs_give_the_published_numbers() -> None:
    full, retain90 = (read_external_log(LOGS / f"tofu_log_llama2-7b_{one}.json") for one in ("full", "retain90"))
    metrics, reference = (measure_tofu(one, retain_only=retain90) for one in (full, retain90))
    expected = {
        "model_utility": (0.62268, 0.61374),
        "model_utility_arithmetic": (0.58589, 0.57524),
        "forget_quality_log10": (-20.7366, 0.0),
        "forget_quality_arithmetic_log10": (-22.2195, 0.0),
    }
    for name, values in expected.items():
        assert [metrics[name].value, reference[name].value] == pytest.approx(values, abs=5e-5)
    assert metrics["model_utility"].example_count == 300 + 100 + 117
    assert "only the number of questions was compared" in metrics["forget_quality"].note
    assert metrics["exact_memorisation"].value is None


@pytest.mark.parametrize("suffix", ["", ".json"])
def test_tofu_s_log_has_its_tasks_with_or_without_the_ending(tmp_path: Path, suffix: str) -> None:
    log = {f"{task}{suffix}": values for task, values in TOFU_LOG.items()}
    scores = read_external_log(write(tmp_path, log))
    assert list(scores.sets) == ["forget"]
    first, second = scores.sets["forget"]
    assert (first.mean_log_prob, first.probability) == (-0.5, math.exp(-0.5))
    assert (first.paraphrased_log_prob, first.perturbed_log_probs) == (-1.0, (-2.0, -4.0))
    assert (second.question, second.generated, second.answer) == ("Where?", "Here.", "There.")
    assert second.rouge_l_recall == 0.25
    assert math.isnan(second.exact_memorisation)
    assert scores.protocol["name"] == "tofu"


def test_items_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    losses = {str(item): float(item) for item in (10, 9, 2, 0)}
    scores = read_external_log(write(tmp_path, {"eval_log_forget": {"avg_gt_loss": losses}}))
    assert [one.mean_log_prob for one in scores.sets["forget"]] == [0, -2, -9, -10]


def test_open_unlearning_s_log_gives_what_it_holds(tmp_path: Path) -> None:
    scores = read_external_log(write(tmp_path, EVAL))
    assert list(scores.sets) == ["forget", "real_authors"]
    first, second = scores.sets["forget"]
    assert (first.mean_log_prob, first.paraphrased_log_prob, first.perturbed_log_probs) == (-0.5, -1.0, (-2.0, -4.0))
    assert (first.question, first.answer, first.generated) == ("Who?", "Noor A.", "Noor.")
    assert (first.extraction_strength, second.extraction_strength) == (0.5, 0.1)
    assert math.isnan(second.rouge_l_recall)
    assert math.isnan(first.known_truth_ratio)  # the losses say it
    (author,) = scores.sets["real_authors"]
    assert (author.paraphrased_log_prob, len(author.perturbed_log_probs)) == (-0.25, 3)
    metrics = measure_tofu(scores, retain_only=scores)
    assert metrics["forget_truth_ratio"].value == pytest.approx((RATIOS["0"] + 1 / RATIOS["1"]) / 2)
    assert "needs 4 scored questions" in metrics["forget_quality"].note
    assert scores.protocol["name"] == "open_unlearning"


def test_the_ratio_alone_serves_the_geometric_test_only(tmp_path: Path) -> None:
    ratios = RATIOS | {"2": None, "3": RATIOS["0"], "4": RATIOS["1"]}
    scores = read_external_log(write(tmp_path, {"forget_truth_ratio": scores_by_item(ratios)}))
    metrics = measure_tofu(scores, retain_only=scores)
    assert metrics["forget_truth_ratio"].value == pytest.approx((RATIOS["0"] + 1 / RATIOS["1"]) / 2)
    assert metrics["forget_truth_ratio"].unscored_count == 1
    assert metrics["forget_quality"].value == pytest.approx(1)
    assert metrics["forget_quality_arithmetic"].value is None
    assert metrics["forget_probability"].value is None
    assert len(scores.protocol["notes"]) == 1  # above 1: prob_mean it is not


def test_ratios_that_could_be_of_either_kind_say_what_was_assumed(tmp_path: Path) -> None:
    """Under the older spelling of the metric, too."""
    reference = read_external_log(write(tmp_path, {"forget_Truth_Ratio": scores_by_item(dict.fromkeys("0123", 0.4))}))
    quality = measure_tofu(made_model(forget=[made_score(0, right=0.5, wrong=(0.1,))] * 4), retain_only=reference)
    assert "forget_Truth_Ratio: taken as wrong / right" in quality["forget_quality"].note


def test_ratios_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    shares = {item: 1 / (1 + ratio) for item, ratio in RATIOS.items()}
    with pytest.raises(InputError, match=r"forget_truth_ratio: is right / \(right \+ wrong\), .*prob_mean"):
        read_external_log(write(tmp_path, EVAL | {"forget_truth_ratio": scores_by_item(shares)}))
    with pytest.raises(InputError, match="contradicts the losses"):
        read_external_log(write(tmp_path, EVAL | {"forget_truth_ratio": scores_by_item({"0": 0.3, "1": 0.3})}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "must be a JSON object"),
        ({}, "not a result log of TOFU or OpenUnlearning; expected"),
        ({"models": {}}, "not a result log of TOFU or OpenUnlearning; expected"),
        ({"forget_quality": 0.3, "model_utility": 0.6}, r"give the TOFU_EVAL.json beside it"),
        ({"eval_log": TOFU_LOG["eval_log_forget"]}, "nothing about the forget set"),
        ({"ra_Q_A_Prob": probabilities([0.1])}, "nothing about the forget set"),
        ({"eval_log_forget": {"avg_gt_loss": {"0": "low"}}}, "eval_log_forget, item 0: must hold numbers, found 'low'"),
        ({"forget_truth_ratio": scores_by_item({"7": True})}, "forget item 7: must hold numbers"),  # type: ignore[dict-item]
    ],
)
def test_what_is_no_log_is_refused_with_the_reason(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_external_log(write(tmp_path, content))


def test_another_number_of_forget_items_is_refused(tmp_path: Path) -> None:
    reference = read_external_log(write(tmp_path, TOFU_LOG))
    scores = made_model(forget=[made_score(item, right=0.5, wrong=(0.1,)) for item in range(3)])
    with pytest.raises(InputError, match=r"different forget questions \(3 and 2 examples\)"):
        measure_tofu(scores, retain_only=reference)


def test_infinite_losses_are_unscored(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"eval_log_forget": {"avg_gt_loss": {"0": math.inf, "1": math.nan, "2": 1.0}}}))
    metrics = measure_tofu(read_external_log(path), retain_only=None)
    assert (metrics["forget_probability"].value, metrics["forget_probability"].unscored_count) == (math.exp(-1.0), 2)
