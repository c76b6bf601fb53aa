"""What came back, worked out by hand."""

import dataclasses
import math

import numpy as np
import pytest

from unlora.audit.course import Course
from unlora.audit.lessons import DrawnLesson
from unlora.audit.recovery import Attempt, Recovery, find, overall, worst_of, worst_strengths
from unlora.audit.recovery_shown import curves, records, sentence
from unlora.data.records import Example, ExampleSet

FORGET = ExampleSet(
    "forget", tuple(Example("question_answer", f"Q{place}?", f"A{place}.", f"line {place}") for place in range(5))
)
FEW = Attempt("few", "few", 0, DrawnLesson(FORGET.select(1), (1, 2, 3, 4)))
TARGET = np.full(5, 0.9)


def course(*rows: list[float]) -> Course:
    """Step 0, then every fourth step."""
    values = np.array(rows)
    return Course(tuple(4 * step for step in range(len(rows))), values, values)


def found(unlearned: Course, control: Course | None, attempt: Attempt = FEW, **options: bool | int) -> Recovery:
    """One attacker with one seed."""
    courses = {"unlearned": unlearned} if control is None else {"unlearned": unlearned, "retain_only": control}
    return find([attempt], [courses], TARGET, seed=0, **options)  # type: ignore[list-item, arg-type]


def test_recovery_is_the_share_of_what_was_taken_and_only_of_tested_examples() -> None:
    # Tested: 0.1 -> 0.5 of a target at 0.9, so half is back; the example trained on (0.1 -> 0.9) does not count.
    finding = found(course([0.1] * 5, [0.9, 0.5, 0.5, 0.5, 0.5]), None)
    assert finding.recovery == pytest.approx((0.0, 0.5))
    assert finding.control is None
    assert finding.outcome == "unclear"
    assert "bring" in sentence([finding])
    assert "no control" in sentence([finding])


def test_control_is_measured_in_the_same_unit() -> None:
    # The control rises by 0.2 where unlearning had taken 0.8: a quarter. The excess is another quarter.
    unlearned = course([0.1] * 5, [0.9, 0.5, 0.5, 0.5, 0.5])
    control = course([0.2] * 5, [0.9, 0.4, 0.4, 0.4, 0.4])
    finding = found(unlearned, control)
    assert finding.control == pytest.approx((0.0, 0.25))
    assert finding.excess.value == pytest.approx(0.25)
    assert finding.excess.example_count == 4
    assert finding.outcome == "fails"
    assert sentence([finding]) == "1 forget example brings back 50% of the others in 4 steps (few; control 25%)"
    assert set(finding.estimates("few")) == {"few_recovery", "few_control", "few_excess"}
    assert [curve.label for curve in finding.curves()] == ["unlearned", "control"]


def test_excess_interval_must_exclude_zero() -> None:
    # One example of four is back entirely, the others fell: on average 0.125, but four examples cannot tell.
    unlearned = course([0.1] * 5, [0.1, 0.9, 0.0, 0.0, 0.0])
    finding = found(unlearned, course([0.1] * 5, [0.1] * 5))
    assert finding.excess.value == pytest.approx((0.8 - 0.3) / 4 / 0.8)
    assert finding.excess.low is not None
    assert finding.excess.low < 0
    assert finding.outcome == "holds"


def test_nothing_forgotten_gives_no_number_and_says_so() -> None:
    finding = found(course([0.9] * 5, [0.95] * 5), course([0.1] * 5, [0.1] * 5))
    assert finding.excess.value is None
    assert all(math.isnan(share) for share in finding.recovery)
    assert "nothing was forgotten" in sentence([finding])
    assert finding.outcome == "unclear"


def test_an_unscored_example_is_counted() -> None:
    unlearned = course([0.1] * 5, [0.9, 0.5, math.nan, 0.5, 0.5])
    finding = found(unlearned, course([0.1] * 5, [0.1] * 5))
    assert (finding.excess.example_count, finding.excess.unscored_count) == (3, 1)
    assert finding.excess.value == pytest.approx(0.5)


def test_one_variant_that_succeeds_is_enough() -> None:
    back = found(course([0.1] * 5, [0.5] * 5), course([0.1] * 5, [0.1] * 5))
    gone = found(course([0.1] * 5, [0.1] * 5), course([0.1] * 5, [0.1] * 5))
    alone = found(course([0.1] * 5, [0.1] * 5), None)
    assert overall([gone, back]) == "fails"
    assert overall([gone, alone]) == "unclear"
    assert overall([gone, gone]) == "holds"


def test_records_say_what_was_trained_on() -> None:
    kept = records(FEW, {"unlearned": course([0.1] * 5, [0.2] * 5)}, FORGET)
    assert [record["tested"] for record in kept] == [False, True, True, True, True]
    assert kept[1]["probability"] == [0.1, 0.2]
    assert kept[1]["steps"] == [0, 4]


def test_extraction_strength_is_that_of_the_tested_examples_at_the_best_step() -> None:
    courses = {"unlearned": course([0.1] * 5, [0.9, 0.2, 0.2, 0.4, 0.4])}
    strengths = worst_strengths([FEW], [courses], 1, seed=0)  # type: ignore[list-item]
    assert strengths["worst_extraction_strength_unlearned"].value == pytest.approx(0.3)
    assert strengths["worst_extraction_strength_unlearned"].example_count == 4


def test_the_best_step_is_the_one_with_most_beyond_the_control() -> None:
    # The model recovers most at the end, but there the control has learnt the same; at step 4 it has not.
    unlearned = course([0.1] * 5, [0.5] * 5, [0.6] * 5)
    control = course([0.1] * 5, [0.1] * 5, [0.5] * 5)
    finding = found(unlearned, control)
    assert (finding.best, finding.excess.value) == (1, pytest.approx(0.5))
    assert finding.estimates("few")["few_recovery"].note == "step 4"


def test_an_example_counts_with_its_mean_over_the_seeds_in_which_it_was_tested() -> None:
    other = Attempt("few", "few", 1, DrawnLesson(FORGET.select(1), (0, 1)))
    control = course([0.1] * 5, [0.1] * 5)
    first = {"unlearned": course([0.1] * 5, [0.9, 0.5, 0.3, 0.1, 0.1]), "retain_only": control}
    second = {"unlearned": course([0.1] * 5, [0.9, 0.1, 0.9, 0.9, 0.9]), "retain_only": control}
    both = find([FEW, other], [first, second], TARGET, seed=0)  # type: ignore[list-item]
    # Example 0: 0.8 (second alone); 1: mean of 0.4 and 0; 2: 0.2; 3 and 4: 0. What was taken is 0.8 each.
    assert both.excess.value == pytest.approx((0.8 + 0.2 + 0.2) / 5 / 0.8)
    assert both.of_seeds == pytest.approx(((0.4 + 0.2) / 4 / 0.8, 0.8 / 2 / 0.8))
    assert "over 2 seeds" in sentence([both])


def test_what_training_knew_is_shown_and_does_not_count() -> None:
    control = course([0.1] * 5, [0.1] * 5)
    known = found(course([0.1] * 5, [0.9] * 5), control, known=True)
    mild = found(course([0.1] * 5, [0.12] * 5), control)
    assert known.outcome == "fails"
    assert overall([known, mild]) == "holds"
    assert overall([known]) == "unclear"
    assert worst_of([known, mild]) is mild
    assert worst_of([known]) is None
    assert "known to the training" in sentence([known])
    assert "does not count" in known.estimates("few")["few_recovery"].note


def test_the_more_attackers_tried_the_surer_each_must_be() -> None:
    unlearned, control = course([0.1] * 5, [0.1, 0.5, 0.5, 0.3, 0.12]), course([0.1] * 5, [0.1] * 5)
    alone, among_many = (found(unlearned, control, tried=tried) for tried in (1, 40))
    assert alone.excess == among_many.excess
    assert among_many.surely < alone.surely  # type: ignore[operator]


def test_curves_are_the_worst_of_each_lesson_and_what_any_reached() -> None:
    control = course([0.1] * 5, [0.1] * 5, [0.1] * 5)
    weak, strong = (
        found(course([0.1] * 5, [high] * 5, [0.1] * 5), control, dataclasses.replace(FEW, attacker=name))
        for name, high in (("weak", 0.2), ("strong", 0.5))
    )
    drawn = curves([weak, strong], 0.9)
    assert [(one.panel, one.label) for one in drawn[:2]] == [("strong", "unlearned"), ("strong", "control")]
    reached = {one.label: one.y for one in drawn[2:]}
    assert reached["unlearned"] == pytest.approx((0.1, 0.5, 0.5))  # what was reached stays reached
    assert reached["control"] == pytest.approx((0.1, 0.1, 0.1))
    assert reached["target"] == (0.9, 0.9, 0.9)
    assert sentence([weak, strong]).endswith("(strong; control nothing)")
