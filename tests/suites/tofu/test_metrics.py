"""Each metric against a number worked out by hand, and the whole suite against TOFU's own logs."""

import json
import math
import statistics
from pathlib import Path

import pytest

from tests.suites.tofu.made_scores import made_model, made_score, model_with_ratios
from unlora.errors import InputError
from unlora.results import Measurement
from unlora.suites.scores import ModelScores
from unlora.suites.tofu.metrics import measure_tofu

LOGS = Path(__file__).parents[3] / "shared" / "data" / "tofu-logs"
LOG_KEYS = {
    "forget": "eval_log_forget",
    "retain": "eval_log",
    "real_authors": "eval_real_author_wo_options",
    "world_facts": "eval_real_world_wo_options",
}


def metrics_of(scores: ModelScores, retain_only: ModelScores | None = None) -> dict[str, Measurement]:
    return measure_tofu(scores, retain_only=retain_only)


def test_means_are_taken_over_the_examples_of_a_set() -> None:
    examples = [made_score(0, probability=0.2, rouge_l_recall=1.0), made_score(1, probability=0.6, rouge_l_recall=0.5)]
    metrics = metrics_of(made_model(forget=examples, retain=examples[:1]))
    assert metrics["forget_probability"].value == pytest.approx(0.4)
    assert metrics["forget_probability"].standard_error == pytest.approx(0.2)  # stdev 0.283 / sqrt(2)
    assert metrics["forget_rouge_l_recall"].value == pytest.approx(0.75)
    assert metrics["exact_memorisation"].value == pytest.approx(0.75)
    assert metrics["extraction_strength"].value == pytest.approx(0.25)
    assert metrics["retain_probability"].value == pytest.approx(0.2)
    assert metrics["retain_exact_memorisation"].value == pytest.approx(0.75)
    assert metrics["retain_extraction_strength"].value == pytest.approx(0.25)


def test_truth_ratio_has_three_aggregations_and_two_scores() -> None:
    # wrong / right: geometric sqrt(1/8 * 1/2) / (1/2) = 1/2, arithmetic (5/16) / (1/2) = 5/8
    below = made_score(right=1 / 2, wrong=(1 / 8, 1 / 2))
    metrics = metrics_of(made_model(forget=[below], retain=[below]))
    assert metrics["forget_truth_ratio"].value == pytest.approx(1 / 2)
    assert metrics["forget_truth_ratio_arithmetic"].value == pytest.approx(5 / 8)
    assert metrics["retain_truth_ratio"].value == pytest.approx(1 / 2)
    assert metrics["retain_truth_ratio_arithmetic"].value == pytest.approx(3 / 8)
    # right / (right + wrong), wrong geometric: (1/2) / (1/2 + 1/4), on both sets
    assert metrics["forget_truth_ratio_prob_mean"].value == pytest.approx(2 / 3)
    assert metrics["retain_truth_ratio_prob_mean"].value == pytest.approx(2 / 3)
    # R = 4: as far from 1 as 1/4 on the forget set, and as bad as can be on the retain set
    above = made_score(right=1 / 8, wrong=(1 / 2,))
    metrics = metrics_of(made_model(forget=[above], retain=[above]))
    assert metrics["forget_truth_ratio"].value == pytest.approx(1 / 4)
    assert metrics["retain_truth_ratio"].value == 0


def test_examples_may_have_different_numbers_of_perturbed_answers() -> None:
    examples = [made_score(0, right=0.5, wrong=(0.25,)), made_score(1, right=0.5, wrong=(0.5, 0.5, 0.5)), made_score(2)]
    ratio = metrics_of(made_model(forget=examples))["forget_truth_ratio"]
    assert ratio.value == pytest.approx((0.5 + 1.0) / 2)
    assert (ratio.example_count, ratio.unscored_count) == (2, 1)


def test_general_knowledge_probability_is_normalised_against_wrong_answers() -> None:
    example = made_score(mean_log_prob=math.log(0.5), right=0.5, wrong=(0.25, 0.125, 0.125))
    metrics = metrics_of(made_model(real_authors=[example], world_facts=[example]))
    for name in ("real_authors", "world_facts"):
        assert metrics[f"{name}_probability"].value == pytest.approx(0.5)
        assert metrics[f"{name}_truth_ratio_arithmetic"].value == pytest.approx(1 - 1 / 3)


def test_model_utility_is_the_harmonic_mean_of_nine_parts() -> None:
    example = made_score(right=0.5, wrong=(0.1, 0.3), rouge_l_recall=0.9)
    metrics = metrics_of(made_model(retain=[example], real_authors=[example], world_facts=[example]))
    for suffix, ratio in (("", math.sqrt(0.1 * 0.3) / 0.5), ("_arithmetic", 0.2 / 0.5)):
        general = 0.5 / (0.5 + 0.1 + 0.3)
        parts = [0.5, general, general, 0.9, 0.9, 0.9, *[1 - ratio] * 3]
        assert metrics[f"model_utility{suffix}"].value == pytest.approx(statistics.harmonic_mean(parts))
        assert metrics[f"model_utility{suffix}"].example_count == 3


def test_forget_quality_of_disjoint_samples_is_the_exact_p_value() -> None:
    # Two of the C(8, 4) = 70 orders keep four values apart from four others.
    quality = metrics_of(model_with_ratios([0.1, 0.2, 0.3, 0.4]), model_with_ratios([1.1, 1.2, 1.3, 1.4]))
    assert quality["forget_quality"].value == pytest.approx(2 / 70)
    assert quality["forget_quality_log10"].value == pytest.approx(math.log10(2 / 70))
    assert "log10 -1.54" in quality["forget_quality"].note


def test_forget_quality_names_its_aggregation() -> None:
    lows = (0.01, 0.02, 0.03, 0.04)
    first = [made_score(place, right=0.5, wrong=(low, 0.9)) for place, low in enumerate(lows)]
    second = [made_score(place, right=0.5, wrong=(even, even)) for place, even in enumerate((0.08, 0.12, 0.15, 0.2))]
    quality = metrics_of(made_model(forget=first), made_model(forget=second))
    # geometric 0.095, 0.134, 0.164, 0.190 against 0.08 to 0.2: D = 1/4; arithmetic 0.455 and more: D = 1
    assert quality["forget_quality"].value == pytest.approx(1)
    assert quality["forget_quality_arithmetic"].value == pytest.approx(2 / 70)
    assert quality["forget_quality_arithmetic_log10"].value == pytest.approx(math.log10(2 / 70))


def test_a_ratio_that_another_program_stored_counts_as_geometric_only() -> None:
    known, reference = (
        [made_score(one, known_truth_ratio=ratio) for one, ratio in enumerate(ratios)]
        for ratios in ((0.5, 4.0) * 2, (0.5, 4.0) * 2)
    )
    metrics = metrics_of(made_model(forget=known), made_model(forget=reference))
    assert metrics["forget_truth_ratio"].value == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert metrics["forget_quality"].value == pytest.approx(1)
    assert metrics["forget_truth_ratio_arithmetic"].value is None
    assert metrics["forget_quality_arithmetic"].value is None


def test_fewer_than_four_questions_have_no_forget_quality_and_say_so() -> None:
    quality = metrics_of(model_with_ratios([0.1, 0.2, 0.3]), model_with_ratios([1.1, 1.2, 1.3]))["forget_quality"]
    assert quality.value is None
    assert quality.note == "needs 4 scored questions of each model to tell them apart, found 3"


def test_forget_quality_says_how_low_so_many_questions_can_go() -> None:
    quality = metrics_of(model_with_ratios([0.1, 0.2, 0.3, 0.4]), model_with_ratios([0.1, 0.2, 0.3, 0.4]))
    assert "so many questions can give 2.9e-02 at least" in quality["forget_quality"].note


def test_retain_only_model_against_itself_has_forget_quality_one() -> None:
    scores = model_with_ratios([0.3, 0.9, 1.7, 2.5])
    metrics = measure_tofu(scores, retain_only=scores)
    assert metrics["forget_quality"].value == pytest.approx(1)
    assert metrics["forget_quality"].note == "the retain-only model against itself"
    assert metrics_of(scores, model_with_ratios([0.3, 0.9, 1.7, 2.5]))["forget_quality"].value == pytest.approx(1)


def test_directions_are_those_for_the_unlearned_model() -> None:
    directions = {name: measured.higher_is_better for name, measured in metrics_of(made_model()).items()}
    lower = {name for name, direction in directions.items() if direction is False}
    assert lower == {"forget_probability", "forget_rouge_l_recall", "exact_memorisation", "extraction_strength"}
    two_sided = {name for name, direction in directions.items() if direction is None}
    assert two_sided == {f"forget_truth_ratio{suffix}" for suffix in ("", "_arithmetic", "_prob_mean")}


def test_what_cannot_be_computed_is_none_and_says_why() -> None:
    metrics = metrics_of(made_model(forget=[made_score(generated=None, rouge_l_recall=math.nan)]))
    notes = {name: measured.note for name, measured in metrics.items() if measured.value is None}
    assert notes["forget_quality"] == "no retain-only model was given: pass --retain-only MODEL"
    assert notes["forget_truth_ratio"] == "the data has no paraphrased and perturbed answers"
    assert notes["forget_rouge_l_recall"] == "the examples have no prompt to answer"
    assert notes["retain_probability"] == "no retain set was given"
    assert notes["model_utility"].endswith("incomplete: retain, real_authors, world_facts")
    assert "forget_probability" not in notes


def test_a_model_that_gives_no_numbers_is_unscored_not_zero() -> None:
    lost = made_score(
        mean_log_prob=math.nan,
        probability=math.nan,
        exact_memorisation=math.nan,
        extraction_strength=math.nan,
        rouge_l_recall=math.nan,
    )
    metrics = metrics_of(made_model(forget=[lost]))
    for name in ("forget_probability", "forget_rouge_l_recall", "exact_memorisation", "extraction_strength"):
        assert metrics[name].value is None
        assert metrics[name].unscored_count == 1
        assert metrics[name].note == "no example could be scored"


def test_forget_quality_without_truth_ratios_is_none_even_with_a_reference() -> None:
    plain = made_model(forget=[made_score()])
    quality = metrics_of(plain, plain)["forget_quality"]
    assert quality.value is None
    assert "truth ratios" in quality.note


def test_retain_only_model_asked_other_questions_is_refused() -> None:
    with pytest.raises(InputError, match=r"different forget questions \(2 and 3 examples\)"):
        metrics_of(model_with_ratios([0.1, 0.2]), model_with_ratios([0.1, 0.2, 0.3]))


def scores_from_log(model: str) -> ModelScores:
    """Turn TOFU's per-item losses into our scores."""
    log = json.loads((LOGS / f"tofu_log_llama2-7b_{model}.json").read_text())
    sets = {}
    for name, key in LOG_KEYS.items():
        answer, paraphrase, wrong, rouge = (list(values.values()) for values in log[key].values())
        sets[name] = [
            made_score(
                number,
                mean_log_prob=-answer[number],
                probability=math.exp(-answer[number]),
                right=math.exp(-paraphrase[number]),
                wrong=tuple(math.exp(-loss) for loss in wrong[number]),
                rouge_l_recall=rouge[number],
            )
            for number in range(len(answer))
        ]
    return made_model(**sets)


@pytest.mark.skipif(not LOGS.is_dir(), reason="TOFU's logs are not here")
def test_suite_equals_tofu_s_own_logs() -> None:
    metrics = metrics_of(scores_from_log("full"), scores_from_log("retain90"))
    assert metrics["model_utility"].value == pytest.approx(0.62268, abs=5e-6)
    assert metrics["model_utility_arithmetic"].value == pytest.approx(0.58589, abs=5e-6)
    assert metrics["forget_quality_log10"].value == pytest.approx(-20.7366, abs=5e-5)
    assert metrics["forget_quality_arithmetic_log10"].value == pytest.approx(-22.2195, abs=5e-5)
