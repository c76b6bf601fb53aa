"""What is printed below an evaluation's table."""

from typing import Any

import pytest

from unlora.cli.tables import print_whether_forgotten


def evaluation(**probabilities: float | None) -> dict[str, Any]:
    metrics = {model: {"forget_probability": {"value": value}} for model, value in probabilities.items()}
    return {"models": {model: {"metrics": values} for model, values in metrics.items()}}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            evaluation(target=0.98, unlearned=0.97),
            "hardly forgotten: forget probability 0.980 in the target, 0.970 now",
        ),
        (evaluation(target=0.98, unlearned=0.87), None),
        (evaluation(target=0.98), None),
        (evaluation(target=None, unlearned=None), None),
        ({"models": {"target": {"metrics": {"accuracy": {"value": 0.3}}}}}, None),  # a suite that asks otherwise
    ],
)
def test_a_run_that_took_next_to_nothing_is_told(
    record: dict[str, Any], said: str | None, capsys: pytest.CaptureFixture[str]
):
    for aimed in (False, True):
        print_whether_forgotten(record, aimed=aimed)
        printed = capsys.readouterr().out
        assert printed.startswith(said) if said is not None else printed == ""
        assert ("aim at a level" in printed) == (said is not None and not aimed)
