import json

import pytest

from tests.suites.asking import TOFU
from tests.suites.tofu.made_scores import made_model, made_score, model_with_ratios
from unlora.errors import InputError
from unlora.suites.record import comparison_rows, evaluation_record, missing_notes


def test_record_has_the_contract_s_form() -> None:
    models = {"target": model_with_ratios([0.1, 0.2, 0.3, 0.4]), "retain_only": model_with_ratios([0.5, 0.6, 0.7, 0.8])}
    record = evaluation_record(TOFU, models)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert (record["suite"], record["protocol"]) == (
        "tofu",
        {"max_new_tokens": 32, "likelihood": "mean over completion tokens, end of text included"},
    )
    assert list(record["models"]) == ["target", "retain_only"]
    probability = record["models"]["target"]["metrics"]["forget_probability"]
    assert probability == {
        "value": 0.5,
        "standard_error": 0.0,
        "example_count": 4,
        "higher_is_better": False,
        "unscored_count": 0,
    }
    assert record["models"]["target"]["metrics"]["forget_quality"]["value"] == pytest.approx(2 / 70)
    assert record["models"]["retain_only"]["metrics"]["forget_quality"]["value"] == 1


def test_rows_show_value_and_error_of_what_any_model_has() -> None:
    target = made_model(forget=[made_score(0, probability=0.9), made_score(1, probability=0.8)], retain=[made_score()])
    unlearned = made_model(forget=[made_score(0, probability=0.0001), made_score(1, probability=0.0003)])
    rows = dict(comparison_rows(evaluation_record(TOFU, {"target": target, "unlearned": unlearned})))
    assert rows["forget_probability"] == {"target": "0.850 ± 0.050", "unlearned": "2.0e-04 ± 0.000"}
    assert rows["retain_probability"] == {"target": "0.500", "unlearned": "–"}
    assert "world_facts_probability" not in rows
    assert "forget_quality" not in rows


def test_notes_say_each_reason_once_and_for_whom() -> None:
    target = made_model(forget=[made_score()], retain=[made_score()])
    notes = missing_notes(evaluation_record(TOFU, {"target": target, "unlearned": made_model(forget=[made_score()])}))
    reference = "no retain-only model was given: pass --retain-only MODEL"
    assert f"forget_quality and 3 more: {reference}" in notes
    assert "retain_probability and 6 more (unlearned): no retain set was given" in notes
    assert len(notes) == len(set(notes))


def test_models_asked_different_questions_are_refused() -> None:
    models = {"target": made_model(forget=[made_score(0)]), "unlearned": made_model(forget=[made_score(1)])}
    with pytest.raises(InputError, match="different forget questions"):
        evaluation_record(TOFU, models)
