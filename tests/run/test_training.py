"""Losses through the whole recipe: refusals, their file, blocks, and what is refused before any work."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.taught import Taught
from unlora.data.refusals import REFUSAL_TEXTS
from unlora.errors import InputError
from unlora.losses import Objective
from unlora.recipes.unlearn import unlearn
from unlora.run.presets import presets, resolve_settings
from unlora.run.settings import ObjectiveSettings, UnlearnSettings
from unlora.run.training import load_refusals
from unlora.training.callbacks import read_train_log

QUICK: dict[str, Any] = {
    "training": {"epochs": 2},
    "evaluation": {"skip": True},
    "start": {"kind": "uniform"},
}


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "record.json").read_text())


@pytest.mark.parametrize("name", ["kl", "simnpo", "dpo", "idk", "undial", "wga", "satimp", "ce_u", "rmu"])
def test_presets_run_through(taught: Taught, tmp_path: Path, name: str):
    flags = {"model.name": str(taught.target), "data.forget": str(taught.forget), "data.retain": str(taught.retain)}
    overrides = ["adapter.rank=4", "training.epochs=2", "training.batch_size=4", "evaluation.skip=true"]
    unlearn(resolve_settings(preset_name=name, config_file=None, flags=flags, overrides=overrides), tmp_path / "run")
    lines = read_train_log(tmp_path / "run" / "train_log.jsonl")
    assert len(lines) == 2
    assert ("retain_weight" in record(tmp_path / "run")["objective"]) == (name not in ("undial", "ce_u"))


def test_refusals_are_part_of_what_a_run_is_made_of(taught: Taught, tmp_path: Path):
    """Another file of refusals under the same name is another run."""
    file = tmp_path / "refusals.jsonl"
    file.write_text('{"answer": "No idea."}\n')
    settings = taught.settings(**QUICK, objective={"forget": "dpo", "refusals": str(file)})
    unlearn(settings, tmp_path / "run")
    made = record(tmp_path / "run")
    assert made["objective"]["forget"] == "dpo"
    assert len(made["data"]["refusals_sha256"]) == 64
    unlearn(settings, tmp_path / "run")
    file.write_text('{"answer": "Not a clue."}\n')
    with pytest.raises(InputError, match="started with another data"):
        unlearn(settings, tmp_path / "run")
    unlearn(taught.settings(**QUICK), tmp_path / "ihl")
    assert "refusals_sha256" not in record(tmp_path / "ihl")["data"]


def test_refusals_come_from_the_file_or_the_list() -> None:
    objective = Objective("idk")
    assert load_refusals(objective, ObjectiveSettings()) == REFUSAL_TEXTS
    assert load_refusals(Objective("ihl"), ObjectiveSettings()) is None


def test_block_of_the_settings_reaches_the_run(taught: Taught, tmp_path: Path):
    chosen = {"forget": "rmu", "retain": "rmu", "forget_parameters": {"block": 1, "coefficient": 2}}
    unlearn(taught.settings(**QUICK, objective=chosen), tmp_path / "run")
    made = record(tmp_path / "run")["objective"]
    assert made == {
        "forget": "rmu", "coefficient": 2.0, "block": 1, "seed": 0, "retain": "rmu", "retain_weight": 1.3,
    }  # fmt: skip


def settings_with_text(taught: Taught, folder: Path) -> UnlearnSettings:
    file = folder / "text.jsonl"
    file.write_text('{"text": "Mira Solberg was born in Bergen, and nobody asked."}\n')
    return taught.settings(**QUICK, objective={"forget": "idk"}, data={"forget": str(file)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (settings_with_text, "text.jsonl, line 1: plain text has no prompt that a refusal could answer"),
        (
            lambda taught, _: taught.settings(**QUICK, objective={"forget": "rmu", "forget_parameters": {"block": 2}}),
            "block 2: the model has 2 blocks, 0 to 1.",
        ),
        (
            lambda taught, _: taught.settings(**QUICK, objective={"forget": "dpo", "refusals": "./none.jsonl"}),
            "none.jsonl: no such file.",
        ),
    ],
    ids=["text", "block", "file"],
)
def test_what_cannot_work_writes_nothing(taught: Taught, tmp_path: Path, make: Any, message: str):
    with pytest.raises(InputError) as error:
        unlearn(make(taught, tmp_path), tmp_path / "run")
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_every_recipe_says_what_it_is() -> None:
    for preset in presets().values():
        assert 20 <= len(preset.summary) <= 120
