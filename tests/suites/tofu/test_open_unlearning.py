"""What OpenUnlearning would have written, worked out by hand, and read back."""

import json
import math
import statistics
from pathlib import Path

import pytest
from scipy.stats import ks_2samp

from tests.suites.tofu.made_scores import made_model, made_score
from unlora.suites.scores import ModelScores
from unlora.suites.tofu.external_logs import read_external_log
from unlora.suites.tofu.metrics import measure_tofu
from unlora.suites.tofu.open_unlearning import evaluation_logs, write_open_unlearning


def asked(ratios: list[float]) -> ModelScores:
    """Four sets; the truth ratios of the forget set are given, wrong answers twice the same."""
    forget = [made_score(item, right=0.1, wrong=(0.1 * ratio, 0.1 * ratio)) for item, ratio in enumerate(ratios)]
    general = made_score(mean_log_prob=math.log(0.5), right=0.5, wrong=(0.125, 0.125, 0.25), rouge_l_recall=0.8)
    retain = made_score(right=0.4, wrong=(0.1, 0.4), rouge_l_recall=0.9)
    return made_model(forget=forget, retain=[retain], real_authors=[general], world_facts=[general, general])


def test_each_metric_is_the_mean_of_its_items() -> None:
    logs = evaluation_logs(asked([0.5, 4.0]), None)
    assert logs["forget_Q_A_Prob"]["agg_value"] == pytest.approx(0.5)
    assert logs["forget_Q_A_Prob"]["value_by_index"]["1"] == {"prob": 0.5, "avg_loss": math.log(2)}
    assert logs["forget_truth_ratio"]["agg_value"] == pytest.approx((0.5 + 0.25) / 2)
    assert [one["score"] for one in logs["forget_truth_ratio"]["value_by_index"].values()] == pytest.approx([0.5, 4.0])
    assert logs["retain_Truth_Ratio"]["agg_value"] == pytest.approx(1 - 0.2 / 0.4)
    assert logs["ra_Q_A_Prob_normalised"]["agg_value"] == pytest.approx(0.5)
    assert logs["wf_Q_A_PERT_Prob"]["value_by_index"]["1"]["prob"] == pytest.approx([0.125, 0.125, 0.25])
    assert logs["exact_memorization"]["agg_value"] == pytest.approx(0.75)
    general = 1 - 0.125 ** (2 / 3) * 0.25 ** (1 / 3) / 0.5
    parts = [0.5, 0.9, 0.5, 0.5, 0.8, general, 0.5, 0.8, general]
    assert logs["model_utility"]["agg_value"] == pytest.approx(statistics.harmonic_mean(parts))
    assert "forget_quality" not in logs


def test_extraction_strength_never_falls_below_one_token() -> None:
    """Four tokens, one of them the end token: OpenUnlearning's smallest value is 1/3."""
    scores = made_model(forget=[made_score(0, extraction_strength=0.0), made_score(1, extraction_strength=0.5)])
    values = evaluation_logs(scores, None)["extraction_strength"]["value_by_index"].values()
    assert [one["score"] for one in values] == pytest.approx([1 / 3, 0.5])


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    scores, reference = asked([0.5, 4.0, 2.0, 1.5]), asked([0.3, 0.4, 0.2, 0.9])
    write_open_unlearning(tmp_path / "retain_only", reference, reference)
    read = read_external_log(tmp_path / "retain_only" / "TOFU_EVAL.json")
    assert list(read.sets) == list(reference.sets)
    alike = measure_tofu(ModelScores(reference.sets, {}), retain_only=read)
    for name in ("forget_quality", "forget_quality_arithmetic"):
        assert alike[name].value == pytest.approx(1)
    other = measure_tofu(ModelScores(scores.sets, {}), retain_only=read)
    assert other["forget_quality"].value == pytest.approx(
        measure_tofu(scores, retain_only=reference)["forget_quality"].value
    )
    for name, measured in measure_tofu(read, retain_only=read).items():
        expected = measure_tofu(reference, retain_only=reference)[name].value
        if expected is not None and "exact" not in name and "strength" not in name:
            assert measured.value == pytest.approx(expected, abs=1e-9), name


def test_open_unlearning_can_test_against_the_file(tmp_path: Path) -> None:
    """Its forget quality: the scores of `forget_truth_ratio` in both files, as they are."""
    scores, reference = asked([0.5, 4.0, 2.0, 1.5]), asked([0.3, 0.4, 0.2, 0.9])
    for name, one in (("target", scores), ("retain_only", reference)):
        write_open_unlearning(tmp_path / name, one, reference)
    first, second = (
        [item["score"] for item in json.loads(file.read_text())["forget_truth_ratio"]["value_by_index"].values()]
        for file in (tmp_path / "target" / "TOFU_EVAL.json", tmp_path / "retain_only" / "TOFU_EVAL.json")
    )
    summary = json.loads((tmp_path / "target" / "TOFU_SUMMARY.json").read_text())
    assert summary["forget_quality"] == pytest.approx(ks_2samp(first, second).pvalue)
    assert json.loads((tmp_path / "retain_only" / "TOFU_SUMMARY.json").read_text())["forget_quality"] == 1
    assert set(summary) == {
        *("forget_quality", "forget_truth_ratio", "forget_Q_A_Prob", "forget_Q_A_ROUGE", "model_utility"),
        *("extraction_strength", "exact_memorization"),
    }


def test_unscored_items_are_null_and_no_truth_ratio(tmp_path: Path) -> None:
    lost = made_score(
        2, mean_log_prob=math.nan, probability=math.nan, exact_memorisation=math.nan, rouge_l_recall=math.nan
    )
    scores = made_model(forget=[made_score(0, right=0.5, wrong=(0.25,)), lost])
    write_open_unlearning(tmp_path, scores, None)
    logs = json.loads((tmp_path / "TOFU_EVAL.json").read_text())
    assert logs["forget_Q_A_Prob"]["value_by_index"]["1"] == {"prob": None, "avg_loss": None}
    assert logs["forget_Q_A_Prob"]["agg_value"] == pytest.approx(0.5)
    assert logs["exact_memorization"]["value_by_index"]["1"] == {"score": None}
    assert list(logs["forget_truth_ratio"]["value_by_index"]) == ["0"]
    assert "model_utility" not in logs
    assert "retain_Q_A_Prob" not in logs


def test_a_destroyed_model_gives_finite_numbers(tmp_path: Path) -> None:
    """Right answers at e^-800: without OpenUnlearning's 1e-10 the ratio would be infinite."""
    dead = made_score(0, mean_log_prob=-800.0, paraphrased_log_prob=-800.0, perturbed_log_probs=(-5.0,))
    logs = evaluation_logs(made_model(forget=[dead], world_facts=[dead]), None)
    assert logs["forget_truth_ratio"]["value_by_index"]["0"]["score"] == pytest.approx(math.exp(-5) / 1e-10)
    assert logs["wf_Q_A_Prob_normalised"]["agg_value"] == 0
    write_open_unlearning(tmp_path, made_model(forget=[dead], world_facts=[dead]), None)
