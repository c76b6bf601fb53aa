"""Trackers of the Trainer: by their names, refused before any work, heard every step."""

import gc
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from tests.cli.commands import error_line, unlora
from tests.cli.conftest import Inputs
from tests.taught import Taught
from unlora.errors import InputError
from unlora.recipes.unlearn import unlearn
from unlora.run.trackers import TENSORBOARD_FOLDER, refuse_trackers, tracked


class Heard(TrainerCallback):
    """A tracker that keeps what it is told."""

    lines: ClassVar[list[dict[str, Any]]] = []
    names: ClassVar[list[str]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.names.append(args.run_name)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.lines.append(dict(logs))


class Missing(TrainerCallback):
    """A tracker whose package is not there."""

    def __init__(self) -> None:
        raise RuntimeError("Missing requires missing to be installed. Run `pip install missing`.")


class HalfMade(Missing):
    """One that looks for what it has not got when it goes, as MLflow's does."""

    def __del__(self) -> None:
        raise AttributeError("'HalfMade' object has no attribute '_auto_end_run'")


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, callback in (("heard", Heard), ("missing", Missing)):
        monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, name, callback)
    Heard.lines.clear()
    Heard.names.clear()


@pytest.mark.usefixtures("trackers")
def test_a_tracker_hears_every_step(taught: Taught, tmp_path: Path):
    short = {"report_to": ["heard"], "epochs": 3}
    unlearn(taught.settings(training=short, evaluation={"skip": True}), tmp_path / "my-run")
    assert len(Heard.lines) == 3
    assert all({"forget_term", "retain_term"} <= line.keys() for line in Heard.lines)
    assert Heard.names == ["my-run"]


@pytest.mark.usefixtures("trackers")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", "training.report_to: there is no tracker 'tensorbord'. Did you mean 'tensorboard'?"),
        ("all", "training.report_to: there is no tracker 'all'. Known: azure_ml, "),
        (
            "missing",
            "training.report_to 'missing': Missing requires missing to be installed. Run `pip install missing`.",
        ),
    ],
)
def test_a_wrong_or_missing_tracker_is_refused_before_any_work(inputs: Inputs, tmp_path: Path, name: str, message: str):
    line = error_line(unlora("unlearn", *inputs.options, "--report-to", name, "--output", tmp_path / "run"))
    assert line.startswith(f"error: {message}")
    assert not (tmp_path / "run").exists()


def test_a_missing_tracker_says_one_line_and_nothing_when_it_goes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "half", HalfMade)
    said: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    with pytest.raises(InputError, match="'half': Missing requires missing to be installed"):
        refuse_trackers(["half"])
    gc.collect()
    assert said == []
    HalfMade.__new__(HalfMade)  # the hook hears what is not kept from it
    assert len(said) == 1


def test_no_tracker_unless_one_is_named(taught: Taught):
    assert taught.settings().training.report_to == []
    assert tracked([], Path("runs/x"))["report_to"] == "none"
    refuse_trackers([])
    with pytest.raises(InputError):
        refuse_trackers(["none"])


def test_tensorboard_writes_into_the_run_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TENSORBOARD_FOLDER, "elsewhere")
    tracked(["tensorboard"], Path("runs/x"))
    assert os.environ[TENSORBOARD_FOLDER] == "elsewhere"
    monkeypatch.delenv(TENSORBOARD_FOLDER)
    tracked(["tensorboard"], Path("runs/x"))
    assert os.environ[TENSORBOARD_FOLDER] == "runs/x/tensorboard"
    tracked(["tensorboard"], Path("runs/y"))  # the next run of the same process
    assert os.environ[TENSORBOARD_FOLDER] == "runs/y/tensorboard"


def test_a_missing_tensorboard_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: False)
    with pytest.raises(
        InputError, match=r"'tensorboard': its package is not installed\. Run `pip install tensorboard`\.$"
    ):
        refuse_trackers(["tensorboard"])
