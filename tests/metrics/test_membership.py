import math
import zlib

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from unlora.errors import InputError
from unlora.metrics import (
    gradient_norm_score,
    loss_score,
    membership_auc,
    min_k_plus_plus_score,
    min_k_score,
    privacy_leakage,
    reference_score,
    true_positive_rate,
    zlib_score,
)

LOG_PROBS = np.array([-1.0, -4.0, -2.0, -0.5, -3.0])
NOTHING = np.empty(0)


def random_scores(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Few distinct values, so that many tie."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 9, 40) + 1.0, generator.integers(0, 8, 70) + 0.0


def test_scores_of_hand_computed_tokens() -> None:
    assert loss_score(LOG_PROBS) == pytest.approx(-2.1)
    assert zlib_score(LOG_PROBS, "ä a a a") == pytest.approx(-2.1 / len(zlib.compress("ä a a a".encode())))
    assert min_k_score(LOG_PROBS) == pytest.approx((-4 - 3) / 2)  # floor(0.4 * 5) = 2
    assert min_k_score(LOG_PROBS, 0.79) == pytest.approx((-4 - 3 - 2) / 3)  # floor, not round
    assert min_k_score(LOG_PROBS, 1.0) == pytest.approx(loss_score(LOG_PROBS))
    assert reference_score(LOG_PROBS, np.array([-3.0, -4.0])) == pytest.approx(-2.1 + 3.5)
    assert gradient_norm_score(2.5) == -2.5


def test_min_k_of_tied_tokens_takes_each_once() -> None:
    assert min_k_score(np.array([-2.0, -2.0, -2.0, -1.0, -1.0]), 0.8) == pytest.approx(-7 / 4)


def test_min_k_of_a_short_text_takes_one_token_or_is_nan_as_in_muse() -> None:
    short = np.array([-5.0, -1.0])  # floor(0.4 * 2) = 0
    assert min_k_score(short) == -5.0
    assert math.isnan(min_k_score(short, minimum_tokens=0))
    assert min_k_score(LOG_PROBS, minimum_tokens=0) == min_k_score(LOG_PROBS)


def test_min_k_plus_plus_equals_sums_over_a_small_vocabulary() -> None:
    log_probs = np.log([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05], [0.4, 0.35, 0.25]])
    tokens = [2, 1, 0]
    means, stds, scores = [], [], []
    for row, token in zip(log_probs, tokens, strict=True):
        mean = sum(math.exp(value) * value for value in row)
        std = math.sqrt(sum(math.exp(value) * (value - mean) ** 2 for value in row))
        means.append(mean)
        stds.append(std)
        scores.append((row[token] - mean) / std)
    of_tokens = log_probs[[0, 1, 2], tokens]
    lowest, second, _ = sorted(scores)
    assert min_k_plus_plus_score(of_tokens, np.array(means), np.array(stds)) == pytest.approx(lowest)
    expected = (lowest + second) / 2
    assert min_k_plus_plus_score(of_tokens, np.array(means), np.array(stds), 0.7) == pytest.approx(expected)


def test_min_k_plus_plus_of_a_certain_position_divides_by_the_floor() -> None:
    score = min_k_plus_plus_score(np.array([-0.002]), np.array([-0.001]), np.array([0.0]))
    assert score == pytest.approx(-0.001 / 1e-3)


def test_score_of_a_text_without_tokens_is_nan() -> None:
    scores = [
        loss_score(NOTHING),
        zlib_score(NOTHING, ""),
        min_k_score(NOTHING),
        min_k_plus_plus_score(NOTHING, NOTHING, NOTHING),
        reference_score(LOG_PROBS, NOTHING),
        reference_score(NOTHING, LOG_PROBS),
    ]
    assert all(math.isnan(score) for score in scores)
    assert math.isnan(gradient_norm_score(math.nan))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 40.0])
def test_fraction_is_a_share(fraction: float) -> None:
    with pytest.raises(InputError, match="fraction must lie in"):
        min_k_score(LOG_PROBS, fraction)
    with pytest.raises(InputError, match="fraction must lie in"):
        min_k_plus_plus_score(LOG_PROBS, LOG_PROBS, -LOG_PROBS, fraction)


def test_every_score_is_higher_for_the_text_the_model_knows() -> None:
    generator = np.random.default_rng(0)
    known, new = -generator.random(30) * 0.2, -generator.random(30) * 6
    means, stds = np.full(30, -1.5), np.full(30, 1.2)
    assert loss_score(known) > loss_score(new)
    assert zlib_score(known, "the same text") > zlib_score(new, "the same text")
    assert min_k_score(known) > min_k_score(new)
    assert min_k_plus_plus_score(known, means, stds) > min_k_plus_plus_score(new, means, stds)
    assert reference_score(known, new) > reference_score(new, new) == 0
    assert gradient_norm_score(0.1) > gradient_norm_score(3.0)


@pytest.mark.parametrize(
    ("members", "nonmembers", "auc"),
    [
        ([2.0, 3.0], [0.0, 1.0], 1.0),
        ([0.0, 1.0], [2.0, 3.0], 0.0),
        ([1.0, 1.0], [1.0, 1.0, 1.0], 0.5),  # nothing but ties
        ([1.0, 2.0], [1.0], 0.75),  # half a tie and a win
        ([1.0, 4.0], [0.0, 2.0, 3.0], 4 / 6),
        ([0.5], [0.5], 0.5),
        ([-np.inf, 0.0], [-np.inf], 0.75),  # an impossible text ties with another
    ],
)
def test_auc_of_hand_computed_scores(members: list[float], nonmembers: list[float], auc: float) -> None:
    assert membership_auc(np.array(members), np.array(nonmembers)) == pytest.approx(auc)


@pytest.mark.parametrize("seed", range(5))
def test_auc_and_true_positive_rate_equal_scikit_learn(seed: int) -> None:
    members, nonmembers = random_scores(seed)
    labels, scores = np.repeat([1, 0], [40, 70]), np.concatenate([members, nonmembers])
    assert membership_auc(members, nonmembers) == pytest.approx(roc_auc_score(labels, scores))
    false_positives, true_positives, _ = roc_curve(labels, scores, drop_intermediate=False)
    for rate in (0.0, 0.01, 1 / 70, 0.1, 0.29, 0.5, 1.0):
        expected = true_positives[false_positives <= rate].max()
        assert true_positive_rate(members, nonmembers, false_positive_rate=rate) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_true_positive_rate_equals_trying_every_threshold(seed: int) -> None:
    members, nonmembers = random_scores(seed)
    for rate in (0.01, 0.05, 0.2):
        thresholds = [math.inf, *members]
        allowed = [t for t in thresholds if sum(score >= t for score in nonmembers) <= rate * 70]
        expected = max(sum(score >= t for score in members) / 40 for t in allowed)
        assert true_positive_rate(members, nonmembers, false_positive_rate=rate) == pytest.approx(expected)


def test_true_positive_rate_of_few_nonmembers_allows_no_false_positive() -> None:
    members, nonmembers = np.array([1.0, 2.0, 3.0, 5.0]), np.array([0.0, 3.0])
    assert true_positive_rate(members, nonmembers) == 1 / 4  # the tie at 3 is not found
    assert true_positive_rate(members, nonmembers, false_positive_rate=0.5) == 1.0
    assert true_positive_rate(-members, nonmembers) == 0.0


def test_true_positive_rate_allows_exactly_one_in_a_hundred() -> None:
    nonmembers, members = np.arange(100.0), np.array([97.5, 98.5, 99.5, 200.0])
    assert true_positive_rate(members, nonmembers) == 3 / 4  # one non-member, 99, lies above 98.5
    assert true_positive_rate(members, nonmembers[1:]) == 2 / 4  # 99 of them: none may


@pytest.mark.parametrize("statistic", [membership_auc, true_positive_rate])
@pytest.mark.parametrize("bad", [NOTHING, np.array([0.5, np.nan])])
def test_one_sided_or_unscored_input_is_refused(statistic, bad: np.ndarray) -> None:
    with pytest.raises(InputError, match=f"{statistic.__name__}: member_scores must hold"):
        statistic(bad, np.array([0.5]))
    with pytest.raises(InputError, match=f"{statistic.__name__}: nonmember_scores must hold"):
        statistic(np.array([0.5]), bad)


def test_false_positive_rate_is_a_share() -> None:
    with pytest.raises(InputError, match=r"must be in \[0, 1\], found 5"):
        true_positive_rate(np.array([0.5]), np.array([0.5]), false_positive_rate=5.0)


def muse_auc(members: np.ndarray, nonmembers: np.ndarray) -> float:
    """MUSE's: mean negative log-probabilities, the holdout set labelled 1, ranked by their negative."""
    labels = np.repeat([0, 1], [len(members), len(nonmembers)])
    return float(roc_auc_score(labels, np.concatenate([members, nonmembers])))


def test_privacy_leakage_equals_muse_on_its_own_orientation() -> None:
    generator = np.random.default_rng(0)
    unlearned, retain_only, holdout = (
        generator.normal(1, 1, 50),
        generator.normal(0.1, 1, 50),
        generator.normal(size=60),
    )
    published = 100 * (muse_auc(unlearned, holdout) - muse_auc(retain_only, holdout)) / muse_auc(retain_only, holdout)
    leakage = privacy_leakage(membership_auc(unlearned, holdout), membership_auc(retain_only, holdout))
    assert leakage == pytest.approx(published)
    assert leakage < 0


def test_privacy_leakage_of_an_untouched_target_is_strongly_negative() -> None:
    assert privacy_leakage(1.0, 0.5) == -100
    assert privacy_leakage(0.99, 1 - 0.4772) == pytest.approx(100 * (0.01 - 0.4772) / 0.4772)  # MUSE News: -97.9
    assert privacy_leakage(0.5, 0.5) == 0
    assert privacy_leakage(0.0, 1 - 0.4772) == pytest.approx(109.6, abs=0.05)  # the most over-forgetting on News
    assert privacy_leakage(0.0, 1 - 0.5393) == pytest.approx(85.4, abs=0.05)  # and on Books


def test_privacy_leakage_without_a_comparison_is_nan_and_a_percentage_is_refused() -> None:
    assert math.isnan(privacy_leakage(0.7, 1.0))
    assert math.isnan(privacy_leakage(math.nan, 0.5))
    assert math.isnan(privacy_leakage(0.5, math.nan))
    with pytest.raises(InputError, match="retain_only_auc must be an AUC in"):
        privacy_leakage(0.7, 47.72)
    with pytest.raises(InputError, match="unlearned_auc must be an AUC in"):
        privacy_leakage(-0.1, 0.5)
