import numpy as np
import pytest

from unlora.metrics import (
    answer_probability,
    normalised_probability,
    truth_ratio,
    truth_ratio_forget_score,
    truth_ratio_retain_score,
    truth_ratio_share,
)

CORRECT = np.log([0.5, 0.2])
WRONG = np.log([[0.25, 0.04], [0.1, 0.9]])


def test_answer_probability_is_the_geometric_mean_of_token_probabilities() -> None:
    token_probs = np.array([0.9, 0.4, 0.3])
    mean_log_prob = np.array([np.log(token_probs).mean()])
    assert answer_probability(mean_log_prob) == pytest.approx([(0.9 * 0.4 * 0.3) ** (1 / 3)])


def test_normalised_probability_divides_by_all_answers() -> None:
    expected = [0.5 / (0.5 + 0.25 + 0.04), 0.2 / (0.2 + 0.1 + 0.9)]
    assert normalised_probability(CORRECT, WRONG) == pytest.approx(expected)


def test_normalised_probability_of_hopeless_answers_does_not_underflow() -> None:
    result = normalised_probability(np.array([-2000.0, -2000.0]), np.array([[-2000.0], [-4000.0]]))
    assert result == pytest.approx([0.5, 1.0])


def test_truth_ratio_aggregations_differ_as_defined() -> None:
    arithmetic = truth_ratio(CORRECT, WRONG, aggregation="arithmetic")
    geometric = truth_ratio(CORRECT, WRONG, aggregation="geometric")
    assert arithmetic == pytest.approx([0.145 / 0.5, 0.5 / 0.2])
    assert geometric == pytest.approx([0.1 / 0.5, 0.3 / 0.2])


@pytest.mark.parametrize("aggregation", ["geometric", "arithmetic"])
def test_truth_ratio_is_one_when_all_answers_tie(aggregation) -> None:
    same = np.array([-1.5])
    assert truth_ratio(same, np.array([[-1.5, -1.5, -1.5]]), aggregation=aggregation) == pytest.approx([1.0])


@pytest.mark.parametrize("aggregation", ["geometric", "arithmetic"])
def test_truth_ratio_without_examples_is_empty_and_without_wrong_answers_nan(aggregation) -> None:
    assert truth_ratio(np.empty(0), np.empty((0, 5)), aggregation=aggregation).shape == (0,)
    assert np.isnan(truth_ratio(CORRECT, np.empty((2, 0)), aggregation=aggregation)).all()
    assert np.isnan(normalised_probability(CORRECT, np.empty((2, 0)))).all()


def test_truth_ratio_keeps_nan_at_its_example() -> None:
    ratio = truth_ratio(np.array([np.nan, CORRECT[1]]), WRONG, aggregation="geometric")
    assert np.isnan(ratio).tolist() == [True, False]
    assert np.isnan(truth_ratio_forget_score(ratio)).tolist() == [True, False]
    assert np.isnan(truth_ratio_retain_score(ratio)).tolist() == [True, False]


def test_truth_ratio_scores_of_hand_computed_ratios() -> None:
    ratio = np.array([0.0, 0.25, 1.0, 4.0, np.inf])
    assert truth_ratio_forget_score(ratio).tolist() == [0.0, 0.25, 1.0, 0.25, 0.0]
    assert truth_ratio_retain_score(ratio).tolist() == [1.0, 0.75, 0.0, 0.0, 0.0]


def test_truth_ratio_share_sets_the_right_answer_against_the_geometric_mean_of_the_wrong() -> None:
    share = truth_ratio_share(truth_ratio(CORRECT, WRONG, aggregation="geometric"))
    # wrong answers: sqrt(0.25 * 0.04) = 0.1 and sqrt(0.1 * 0.9) = 0.3
    assert share == pytest.approx([0.5 / (0.5 + 0.1), 0.2 / (0.2 + 0.3)])
    assert share != pytest.approx(normalised_probability(CORRECT, WRONG), abs=0.01)


def test_truth_ratio_share_of_ties_extremes_and_unscored_examples() -> None:
    share = truth_ratio_share(np.array([0.0, 1.0, 3.0, np.inf, np.nan]))
    assert share[:4].tolist() == [1.0, 0.5, 0.25, 0.0]
    assert np.isnan(share[4])
    assert truth_ratio_share(np.empty(0)).shape == (0,)
