"""The card of an audit, made from audit.json alone."""

from pathlib import Path
from typing import Any

import pytest

from tests.report.test_page import LOADS, Page
from unlora.artifacts import write_json
from unlora.errors import InputError
from unlora.report import write_audit_page
from unlora.report.audit_page import render_audit


def estimate(value: float | None, low: float | None = None, high: float | None = None, **fields: Any) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "example_count": 36, "unscored_count": 0, "note": "", **fields}


def made_audit(**entries: Any) -> dict[str, Any]:
    relearning = {
        "question": "Does a little fine-tuning bring it back?",
        "outcome": "fails",
        "sentence": "4 forget examples bring back 43% of the others in 12 steps (control 7%)",
        "tested": "40 forget examples, 12 steps of 4, 1 seed",
        "estimates": {
            "few_excess": estimate(0.361, 0.25, 0.47),
            "few_recovery": estimate(0.43),
            "full_excess": estimate(None, unscored_count=2, note="nothing was forgotten"),
        },
        "curves": [
            {"panel": "few", "label": "unlearned", "x": [0.0, 4.0, 12.0], "y": [0.0, 0.2, 0.43]},
            {"panel": "few", "label": "control", "x": [0.0, 4.0, 12.0], "y": [0.0, 0.03, 0.07]},
            {"panel": "full", "label": "unlearned", "x": [0.0, 12.0], "y": [0.0, 0.9]},
        ],
        "x_label": "optimiser steps of the attack",
        "y_label": "share that is back",
        "seconds": 75.0,
    }
    missing = {
        "question": "Can it be told that the model was trained on the forget set?",
        "outcome": "not tested",
        "sentence": "needs <holdout>",
        "tested": "",
        "estimates": {},
        "curves": [],
        "x_label": "",
        "y_label": "",
    }
    return {
        "run": "my run",
        "control": True,
        "verdict": "Suppressed, not gone.",
        "scope": "It is no proof of deletion.",
        "attacks": {"relearning": relearning, "membership": missing},
        "settings": {"seed": 0},
        **entries,
    }


def test_card_says_what_was_tested_with_numbers_and_intervals():
    page = Page(render_audit(made_audit()))
    for text in (
        "Suppressed, not gone.",
        "It is no proof of deletion.",
        "4 forget examples bring back 43% of the others in 12 steps (control 7%)",
        "40 forget examples, 12 steps of 4, 1 seed",
        "1 min 15 s",
        "0.361",
        "0.250 to 0.470",
        "nothing was forgotten, 2 not scored",
        "not tested",
        "needs <holdout>",
    ):
        assert text in page.text
    assert "There is no retain-only model" not in page.text


def test_each_panel_is_a_chart_with_named_axes_and_curves():
    source = render_audit(made_audit())
    page = Page(source)
    assert source.count("<svg") == 2
    assert page.text.count("share that is back") == 2
    assert page.text.count("optimiser steps of the attack") == 2
    assert "control" in page.text


def test_page_loads_nothing_and_runs_nothing():
    page = Page(render_audit(made_audit()))
    assert "script" not in page.tags
    assert not page.attributes & LOADS


def test_without_control_it_says_so():
    assert "There is no retain-only model" in Page(render_audit(made_audit(control=False))).text


def test_page_lies_beside_the_record(tmp_path: Path):
    write_json(tmp_path / "audit.json", made_audit())
    assert write_audit_page(tmp_path).read_text(encoding="utf-8") == render_audit(made_audit())
    with pytest.raises(InputError, match=r"audit\.json"):
        write_audit_page(tmp_path / "nowhere")
