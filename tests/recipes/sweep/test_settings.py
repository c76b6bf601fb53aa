"""What a sweep may search, and what is refused before any work."""

from typing import Any

import pytest

from unlora.config import merge
from unlora.errors import InputError
from unlora.recipes.sweep.settings import SweepSettings, as_trial, swept_starts, with_parameters

RUN = {
    "model": {"name": "m"},
    "data": {"forget": "f.jsonl", "retain": "r.jsonl"},
    "level": {"aim": 0.1},
}
SEARCH = {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "objective.forget": ["ihl", "npo"]}


def settings(**changes: Any) -> SweepSettings:
    return SweepSettings.from_mapping({"settings": RUN, "search": SEARCH} | changes)


def test_every_start_begins_from_the_same_settings():
    starts = swept_starts(settings(starts=["plain", "marginal", {"kind": "contrast_inputs", "damping": 0.5}, "plain"]))
    assert [one.label for one in starts] == ["plain", "marginal", "contrast_inputs", "plain~2"]
    assert [one.base.start.kind for one in starts] == ["plain", "marginal", "contrast_inputs", "plain"]
    assert starts[2].base.start.fields["damping"] == 0.5
    others = [one.base.model_dump(exclude={"start"}) for one in starts]
    assert all(other == others[0] for other in others)
    assert others[0]["level"]["aim"] == 0.1


def test_without_starts_the_one_of_the_settings_is_swept():
    (start,) = swept_starts(settings(settings=merge(RUN, {"start": {"kind": "plain"}})))
    assert (start.label, start.base.start.kind) == ("plain", "plain")


def test_parameters_are_laid_over_the_settings():
    (start,) = swept_starts(settings(starts=["plain"]))
    made = with_parameters(
        start.base, {"training.learning_rate": 3e-4, "objective.forget": "npo", "adapter.freeze_a": None}, where="x"
    )
    assert (made.training.learning_rate, made.objective.forget, made.adapter.freeze_a) == (3e-4, "npo", None)
    assert made.data == start.base.data


def test_a_trial_writes_no_long_answers_unless_they_are_asked_for():
    (start,) = swept_starts(settings(starts=["plain"]))
    assert as_trial(start.base).evaluation.max_new_tokens == 1
    asked = with_parameters(start.base, {"evaluation.max_new_tokens": 7}, where="x")
    assert as_trial(asked) == asked


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"training.learning_rat": [1e-3, 1e-4]}, "unknown key 'training.learning_rat'. Did you mean"),
        ({"training.learning_rate": {"low": -1.0, "high": 1.0}}, "training.learning_rate: must be greater than 0"),
        ({"training.epochs": {"low": 1.0, "high": 4.0}}, "training.epochs"),
        ({"training.epochs": {"low": 4, "high": 2}}, "low must be below high"),
        ({"training.learning_rate": {"low": 0.0, "high": 1.0, "log": True}}, "low must be above 0"),
        ({"objective.forget": ["ihl"]}, "objective.forget: needs two or more different choices"),
        ({"objective.forget": ["ihl", "ihl"]}, "objective.forget: needs two or more different choices"),
        ({"objective.forget": ["ihl", "nop"]}, "nop"),
        (
            {"level.aim": {"low": 0.01, "high": 0.5}},
            "search.level.aim: trials would be measured each by",
        ),
        ({"evaluation.max_examples": [2, 8]}, "search.evaluation.max_examples: trials would be measured"),
        ({"data.max_length": [64, 128]}, "search.data.max_length: trials would be measured"),
        ({"model.dtype": ["float32", "bfloat16"]}, "search.model.dtype: trials would be measured"),
        ({"start": ["plain", "marginal"]}, "name the starts under 'starts'"),
        ({"start.damping": {"low": 0.1, "high": 1.0}}, "damping"),
        ({"training": {"epochs": {"low": 2, "high": 4}}}, "keys are dotted: write training.epochs in one word"),
        ({"objective": {"forget": ["ihl", "npo"]}}, "keys are dotted: write objective.forget in one word"),
        ({"training.epochs": 3}, "training.epochs: must be {low: FROM, high: TO} or a list of values"),
        ({"training.epochs": {"low": 2, "high": 4, "lgo": True}}, "unknown key 'search.training.epochs.lgo'."),
        ({"training.epochs": {"low": 2}}, "key 'search.training.epochs.high' is missing"),
        ({}, "search"),
    ],
)
def test_what_cannot_be_searched_is_refused(search: dict[str, Any], message: str):
    with pytest.raises(InputError) as caught:
        swept_starts(settings(search=search, starts=["plain"]))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "function-" not in str(caught.value)  # pydantic's name of a range is no key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": {"aim": "none"}}, "no level to measure the distance from"),
        ({"evaluation": {"skip": True}}, "settings.evaluation.skip"),
        ({"evaluation": {"suites": ["wmdp", "tofu"]}}, "reads the suite tofu first (found 'wmdp' there)"),
    ],
)
def test_a_run_that_cannot_be_chosen_by_is_refused(changes: dict[str, Any], message: str):
    with pytest.raises(InputError) as caught:
        swept_starts(settings(settings=merge(RUN, changes)))
    assert message in str(caught.value)


def test_a_start_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="plian"):
        swept_starts(settings(starts=["plian"]))
