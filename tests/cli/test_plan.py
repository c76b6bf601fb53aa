"""`unlora plan`, in the place of `unlora unlearn`."""

import json

import pytest

from tests.cli.commands import error_line, unlora
from tests.taught import Taught


def plan(taught: Taught, *arguments: object):
    sets = ("--forget", taught.forget, "--retain", taught.retain)
    return unlora("plan", "--model", taught.target, *sets, "--tflops", "0.1", *arguments)


def test_fits(taught: Taught):
    result = plan(taught, "--memory", "1000GB")
    assert result.exit_code == 0, result.output
    first = [line.split()[0] for line in result.stdout.splitlines()]
    assert first == ["model", "reach", "adapter", "data", "steps", "importance", "training", "time", "fits"]


def test_does_not_fit(taught: Taught, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unlora.recipes.plan.cost._process", lambda settings: {})
    result = plan(taught, "--memory", "3MiB", "--preset", "npo")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("does not fit"))
    assert "the largest part of training is " in lines[place]
    assert "--set training.gradient_checkpointing=true" in lines[place + 1]


def test_json_has_the_same(taught: Taught):
    said = json.loads(plan(taught, "--memory", "1000GB", "--devices", "2", "--json").stdout)
    assert said["fits"] is True
    assert said["available"] == 10**12
    assert said["devices"] == 2
    assert said["peak"] == max(sum(said[f"{stage}_memory"].values()) for stage in ("importance", "training"))
    assert said["seconds"][0] == pytest.approx((said["importance_flops"] + said["training_flops"]) / 2e11)


def test_same_options_as_unlearn(taught: Taught, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"model: {{name: {taught.target}}}\ndata: {{forget: {taught.forget}, retain: {taught.retain}}}\n")
    options = ("--preset", "npo", "--set", "adapter.rank=2", "--tflops", "1", "--memory", "1000")
    said = json.loads(unlora("plan", config, *options, "--json").stdout)
    assert said["trained_parameters"] * 2 == said["adapter_parameters"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--memory", "much"), "'much': give a positive size such as 24GB"),
        (("--memory", "-1GB"), "'-1GB': give a positive size"),
        (("--set", "adapter.rank=1000"), "adapter.rank: 1000 does not fit target module"),
        (("--set", "objective.forget=nothing"), "nothing"),
        (("--model", "./none"), "no such folder"),
    ],
)
def test_bad_input(taught: Taught, arguments: tuple[str, ...], message: str):
    result = plan(taught, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    if "--memory" not in arguments:
        assert message in error_line(result)
