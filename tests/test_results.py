"""Means with their errors; what could not be scored is counted and never a zero."""

import json
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlora.results import Measurement, mean_measurement

SCORES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30)


@given(SCORES)
def test_mean_and_standard_error_are_the_textbooks(scores: list[float]):
    measured = mean_measurement(scores, higher_is_better=True)
    assert measured.value == pytest.approx(statistics.fmean(scores), abs=1e-9)
    assert measured.standard_error == pytest.approx(statistics.stdev(scores) / math.sqrt(len(scores)), abs=1e-6)
    assert (measured.example_count, measured.unscored_count) == (len(scores), 0)


def test_unscored_examples_are_counted_and_left_out():
    measured = mean_measurement([1.0, math.nan, 3.0, math.nan], higher_is_better=False)
    assert (measured.value, measured.standard_error) == (2.0, 1.0)
    assert (measured.example_count, measured.unscored_count) == (2, 2)


def test_one_score_has_no_standard_error():
    assert mean_measurement([0.5], higher_is_better=None).standard_error is None


@pytest.mark.parametrize("scores", [[], [math.nan, math.nan]])
def test_no_score_is_no_value_with_a_reason(scores: list[float]):
    measured = mean_measurement(scores, higher_is_better=True)
    assert (measured.value, measured.example_count, measured.unscored_count) == (None, 0, len(scores))
    assert measured.note == "no example could be scored"
    assert mean_measurement(scores, higher_is_better=True, note="no prompts").note == "no prompts"


def test_json_has_the_keys_of_the_contract_and_no_nan():
    record = Measurement(math.nan, math.inf, 3, None).to_json()
    assert record == {
        "value": None,
        "standard_error": None,
        "example_count": 3,
        "higher_is_better": None,
        "unscored_count": 0,
    }
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert Measurement(0.5, 0.1, 3, True, note="why").to_json()["note"] == "why"
