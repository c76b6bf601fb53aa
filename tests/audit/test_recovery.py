"""What came back, worked out by hand."""

import dataclasses
import math

import numpy as np
import pytest

from unlora.audit.course import Course
from unlora.audit.recovery import RelearningVariant, find, overall, records, sentence, strengths
from unlora.data.records import Example, ExampleSet

FORGET = ExampleSet(
    "forget", tuple(Example("question_answer", f"Q{place}?", f"A{place}.", f"line {place}") for place in range(5))
)
FEW = RelearningVariant("few", 0, FORGET.select(1), (1, 2, 3, 4))
TARGET = np.full(5, 0.9)


def course(*rows: list[float]) -> Course:
    """Step 0, then every fourth step."""
    values = np.array(rows)
    return Course(tuple(4 * step for step in range(len(rows))), values, values)


def test_recovery_is_the_share_of_what_was_taken_and_only_of_tested_examples() -> None:
    # Tested: 0.1 -> 0.5 of a target at 0.9, so half is back; the example trained on (0.1 -> 0.9) does not count.
    finding = find(FEW, course([0.1] * 5, [0.9, 0.5, 0.5, 0.5, 0.5]), None, TARGET, seed=0)
    assert finding.recovery == pytest.approx((0.0, 0.5))
    assert finding.control is None
    assert finding.outcome == "unclear"
    assert "bring" in sentence([finding])
    assert "no control" in sentence([finding])


def test_control_is_measured_in_the_same_unit() -> None:
    # The control rises by 0.2 where unlearning had taken 0.8: a quarter. The excess is another quarter.
    unlearned = course([0.1] * 5, [0.9, 0.5, 0.5, 0.5, 0.5])
    control = course([0.2] * 5, [0.9, 0.4, 0.4, 0.4, 0.4])
    finding = find(FEW, unlearned, control, TARGET, seed=0)
    assert finding.control == pytest.approx((0.0, 0.25))
    assert finding.excess.value == pytest.approx(0.25)
    assert finding.excess.example_count == 4
    assert finding.outcome == "fails"
    assert sentence([finding]) == "1 forget example brings back 50% of the others in 4 steps (control 25%)"
    assert set(finding.estimates()) == {"few_recovery", "few_control", "few_excess"}
    assert [curve.label for curve in finding.curves()] == ["unlearned", "control"]


def test_excess_interval_must_exclude_zero() -> None:
    # One example of four is back entirely, the others fell: on average 0.125, but four examples cannot tell.
    unlearned = course([0.1] * 5, [0.1, 0.9, 0.0, 0.0, 0.0])
    finding = find(FEW, unlearned, course([0.1] * 5, [0.1] * 5), TARGET, seed=0)
    assert finding.excess.value == pytest.approx((0.8 - 0.3) / 4 / 0.8)
    assert finding.excess.low is not None
    assert finding.excess.low < 0
    assert finding.outcome == "holds"


def test_nothing_forgotten_gives_no_number_and_says_so() -> None:
    finding = find(FEW, course([0.9] * 5, [0.95] * 5), course([0.1] * 5, [0.1] * 5), TARGET, seed=0)
    assert finding.excess.value is None
    assert all(math.isnan(share) for share in finding.recovery)
    assert "nothing was forgotten" in sentence([finding])
    assert finding.outcome == "unclear"


def test_an_unscored_example_is_counted() -> None:
    unlearned = course([0.1] * 5, [0.9, 0.5, math.nan, 0.5, 0.5])
    finding = find(FEW, unlearned, course([0.1] * 5, [0.1] * 5), TARGET, seed=0)
    assert (finding.excess.example_count, finding.excess.unscored_count) == (3, 1)
    assert finding.excess.value == pytest.approx(0.5)


def test_one_variant_that_succeeds_is_enough() -> None:
    back = find(FEW, course([0.1] * 5, [0.5] * 5), course([0.1] * 5, [0.1] * 5), TARGET, seed=0)
    gone = find(FEW, course([0.1] * 5, [0.1] * 5), course([0.1] * 5, [0.1] * 5), TARGET, seed=0)
    alone = find(FEW, course([0.1] * 5, [0.1] * 5), None, TARGET, seed=0)
    assert overall([gone, back]) == "fails"
    assert overall([gone, alone]) == "unclear"
    assert overall([gone, gone]) == "holds"


def test_records_say_what_was_trained_on() -> None:
    kept = records(FEW, {"unlearned": course([0.1] * 5, [0.2] * 5)}, FORGET)
    assert [record["tested"] for record in kept] == [False, True, True, True, True]
    assert kept[1]["probability"] == [0.1, 0.2]
    assert kept[1]["steps"] == [0, 4]


def test_extraction_strength_is_that_of_the_tested_examples_after_the_last_step() -> None:
    found = strengths(FEW, {"unlearned": course([0.1] * 5, [0.9, 0.2, 0.2, 0.4, 0.4])}, seed=0)
    assert found["few_extraction_strength_unlearned"].value == pytest.approx(0.3)
    assert found["few_extraction_strength_unlearned"].example_count == 4


def test_several_seeds_are_one_clause_with_their_spread_and_what_succeeds_comes_first() -> None:
    control = course([0.1] * 5, [0.1] * 5)
    seeds = [
        find(dataclasses.replace(FEW, seed=seed), course([0.1] * 5, [after] * 5), control, TARGET, seed=0)
        for seed, after in enumerate((0.5, 0.3, 0.1))
    ]
    nothing = find(dataclasses.replace(FEW, variant="full"), course([0.1] * 5, [0.1] * 5), control, TARGET, seed=0)
    assert sentence([nothing, *seeds]) == (
        "1 forget example brings back 25% of the others in 4 steps (nothing to 50% over 3 seeds) (control nothing); "
        "the whole forget set brings back nothing in 4 steps (control nothing)"
    )
