"""The demo on SmolLM2, in a file of its own so that a process of its own can take it."""

import json
from pathlib import Path

import pytest

from tests.end_to_end.test_real_model import metric, run_cli

pytestmark = [pytest.mark.real_model, pytest.mark.filterwarnings("ignore")]


def test_demo_forgets_two_people_and_keeps_the_others(tmp_path: Path) -> None:
    """`make demo` as a user runs it: the answers about forgotten people go, those about kept people stay."""
    output = run_cli("demo", "--output", str(tmp_path / "demo"))
    run = tmp_path / "demo" / "run"
    assert metric(run, "target", "forget_probability") > 0.8
    assert metric(run, "unlearned", "forget_probability") < 0.6 * metric(run, "target", "forget_probability")
    assert metric(run, "unlearned", "retain_probability") > 0.85 * metric(run, "target", "retain_probability")
    record = json.loads((run / "record.json").read_text())
    assert record["checks"]["output_at_step_0"]["largest_difference"] == 0
    assert "before" in output
    assert "forget_quality" in output
    audited = json.loads((run / "audit" / "audit.json").read_text())
    assert audited["attacks"]["relearning"]["outcome"] != "not tested"
    assert f"Is it gone? {audited['verdict']}" in " ".join(output.split())
