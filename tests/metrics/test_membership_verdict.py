import math

import numpy as np
import pytest
from scipy.stats import norm

from unlora.errors import InputError
from unlora.metrics import membership_auc, membership_difference, membership_test, true_positive_rate


def scores(seed: int, shift: float, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Members around `shift`, non-members around 0; standard deviation 1."""
    generator = np.random.default_rng(seed)
    return generator.normal(shift, size=count), generator.normal(size=count)


def test_membership_test_reports_the_plain_numbers_and_counts_unscored_examples() -> None:
    members, nonmembers = scores(0, 1.0)
    result = membership_test(np.append(members, [np.nan, np.nan]), np.append(nonmembers, np.nan))
    assert result.auc == membership_auc(members, nonmembers)
    assert result.true_positive_rate == true_positive_rate(members, nonmembers, false_positive_rate=0.01)
    assert (result.member_count, result.nonmember_count, result.unscored_count) == (60, 60, 3)
    assert result.auc_interval.low < result.auc < result.auc_interval.high
    assert result.true_positive_rate_interval.low <= result.true_positive_rate


def test_membership_intervals_equal_a_plain_loop_of_resamples() -> None:
    members, nonmembers = scores(1, 0.7, count=25)
    generator = np.random.default_rng(5)
    aucs, rates = [], []
    for _ in range(1500):
        drawn = generator.choice(members, 25), generator.choice(nonmembers, 25)
        aucs.append(membership_auc(*drawn))
        rates.append(true_positive_rate(*drawn))
    result = membership_test(members, nonmembers, resamples=4000, confidence=0.8)
    assert result.auc_interval == pytest.approx(np.quantile(aucs, [0.1, 0.9]), abs=0.01)
    assert result.true_positive_rate_interval == pytest.approx(np.quantile(rates, [0.1, 0.9]), abs=0.04)


def test_auc_interval_holds_the_true_auc_as_often_as_it_says() -> None:
    true_auc = norm.cdf(1 / math.sqrt(2))
    tests = [membership_test(*scores(seed, 1.0), seed=seed, resamples=200) for seed in range(200)]
    covered = sum(test.auc_interval.low <= true_auc <= test.auc_interval.high for test in tests)
    assert 0.90 <= covered / 200 <= 0.98


def test_membership_test_is_repeatable() -> None:
    members, nonmembers = scores(2, 0.5)
    assert membership_test(members, nonmembers, seed=4) == membership_test(members, nonmembers, seed=4)
    intervals = {membership_test(members, nonmembers, seed=seed).auc_interval for seed in range(4)}
    assert len(intervals) > 1


def test_membership_test_of_separated_and_of_single_examples() -> None:
    separated = membership_test(np.array([3.0, 4.0, 5.0]), np.array([0.0, 1.0]))
    assert (separated.auc, separated.auc_interval, separated.true_positive_rate) == (1.0, (1.0, 1.0), 1.0)
    single = membership_test(np.array([3.0]), np.array([0.0, 1.0]))
    assert single.auc == 1.0
    assert all(math.isnan(end) for end in (*single.auc_interval, *single.true_positive_rate_interval))


@pytest.mark.parametrize("nothing", [np.empty(0), np.array([np.nan, np.nan])])
def test_membership_test_without_a_side_is_refused(nothing: np.ndarray) -> None:
    with pytest.raises(InputError, match="0 scored members and 2 scored non-members"):
        membership_test(nothing, np.array([0.5, 0.6]))
    with pytest.raises(InputError, match="2 scored members and 0 scored non-members"):
        membership_test(np.array([0.5, 0.6]), nothing)


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [
        (2.0, "more member-like than retain-only"),
        (-2.0, "less member-like than retain-only"),
        (0.0, "like retain-only"),
    ],
)
def test_difference_from_the_retain_only_model_has_two_sides(shift: float, verdict: str) -> None:
    unlearned, retain_only = scores(0, shift), scores(1, 0.0)
    result = membership_difference(unlearned, retain_only)
    assert result.verdict == verdict
    assert result.difference == pytest.approx(membership_auc(*unlearned) - membership_auc(*retain_only))
    assert result.interval.low < result.difference < result.interval.high
    swapped = membership_difference(retain_only, unlearned)
    assert swapped.difference == -result.difference
    assert swapped.interval == pytest.approx((-result.interval.high, -result.interval.low))


def test_model_beside_itself_is_like_retain_only_with_ties_and_without_width() -> None:
    members, nonmembers = np.array([1.0, 1.0, 2.0]), np.array([1.0, 0.0])
    result = membership_difference((members, nonmembers), (members, nonmembers))
    assert (result.difference, result.interval, result.verdict) == (0.0, (0.0, 0.0), "like retain-only")


def test_difference_is_paired_by_example() -> None:
    members, nonmembers = scores(3, 0.3)
    noise = np.random.default_rng(4).normal(scale=0.05, size=(2, 60))
    result = membership_difference((members + 0.2, nonmembers), (members + noise[0], nonmembers + noise[1]))
    alone = membership_test(members, nonmembers).auc_interval
    assert result.interval.high - result.interval.low < 0.3 * (alone.high - alone.low)
    assert result.verdict == "more member-like than retain-only"  # which the two intervals apart could not say


def test_difference_equals_a_plain_loop_of_paired_resamples() -> None:
    generator = np.random.default_rng(6)
    unlearned, retain_only = scores(7, 0.8, count=20), scores(8, 0.2, count=20)
    differences = []
    for _ in range(1500):
        member, nonmember = generator.integers(20, size=20), generator.integers(20, size=20)
        of_unlearned = membership_auc(unlearned[0][member], unlearned[1][nonmember])
        differences.append(of_unlearned - membership_auc(retain_only[0][member], retain_only[1][nonmember]))
    interval = membership_difference(unlearned, retain_only, resamples=4000).interval
    assert interval == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.02)


def test_models_that_do_not_differ_are_seldom_told_apart() -> None:
    results = [membership_difference(scores(2 * i, 0.4), scores(2 * i + 1, 0.4), resamples=200) for i in range(100)]
    assert sum(result.verdict != "like retain-only" for result in results) <= 12  # 5 expected


def test_example_unscored_by_one_model_is_left_out_of_both() -> None:
    unlearned = (np.array([3.0, np.nan, 5.0, 1.0]), np.array([0.0, 2.0, 4.0]))
    retain_only = (np.array([1.0, 9.0, 0.5, 2.0]), np.array([0.0, 1.5, np.nan]))
    result = membership_difference(unlearned, retain_only)
    expected = membership_auc(unlearned[0][[0, 2, 3]], unlearned[1][:2])
    expected -= membership_auc(retain_only[0][[0, 2, 3]], retain_only[1][:2])
    assert result.difference == pytest.approx(expected)
    assert (result.member_count, result.nonmember_count, result.unscored_count) == (3, 2, 2)


def test_scores_of_other_or_too_few_examples_are_refused() -> None:
    two, three = np.array([0.1, 0.2]), np.array([0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="3 members of the unlearned model, 2 of the retain-only model"):
        membership_difference((three, two), (two, two))
    with pytest.raises(InputError, match="2 non-members of the unlearned model, 3 of the retain-only model"):
        membership_difference((two, two), (two, three))
    with pytest.raises(InputError, match="1 scored members and 2 scored non-members; needs 2"):
        membership_difference((np.array([0.1, np.nan]), two), (two, two))
