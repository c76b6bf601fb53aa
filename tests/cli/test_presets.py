"""`unlora presets`."""

from pathlib import Path

import pytest

from tests.cli.commands import error_line, unlora
from unlora.losses import FORGET_TERMS
from unlora.run.presets import presets, resolve_settings
from unlora.run.starting import chosen_start, freezes_a
from unlora.starts import STARTS

SETS = {"model.name": "m", "data.forget": "f", "data.retain": "r"}


def test_ls_names_every_preset_and_every_start_with_its_purpose_and_every_loss():
    recipes, starts, losses, _ = unlora("presets", "ls").stdout.split("\n\n")
    rows = dict(line.split(maxsplit=1) for line in recipes.splitlines()[1:])
    assert rows == {preset.name: preset.summary for preset in presets().values()}
    rows = dict(line.split(maxsplit=1) for line in starts.splitlines()[1:])
    assert rows == {kind: f"{row.summary} [{row.source}]" for kind, row in STARTS.items()}
    assert losses.split(": ")[1].split(", ") == list(FORGET_TERMS)


@pytest.mark.parametrize("name", presets())
def test_copied_preset_means_the_same_as_its_name(name: str, tmp_path: Path):
    file = tmp_path / "mine" / "run.yaml"
    result = unlora("presets", "cp", name, file)
    assert (result.exit_code, result.stdout) == (0, f"written: {file}\n")
    copied = resolve_settings(preset_name=None, config_file=file, flags=SETS, overrides=[])
    assert copied == resolve_settings(preset_name=name, config_file=None, flags=SETS, overrides=[])


def test_config_that_does_not_say_how_to_start_starts_like_the_default(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("objective: {forget: npo}\n")
    mine = resolve_settings(preset_name=None, config_file=file, flags=SETS, overrides=[])
    default = resolve_settings(preset_name=None, config_file=None, flags=SETS, overrides=["objective.forget=npo"])
    assert mine == default
    assert freezes_a(mine.adapter, chosen_start(mine))  # It is more than the section that was missing.


def test_cp_overwrites_nothing(tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text("mine")
    assert error_line(unlora("presets", "cp", "vila", file)) == f"error: {file}: already exists; choose another name."
    assert file.read_text() == "mine"


def test_cp_refuses_a_place_where_nothing_can_be_written():
    line = error_line(unlora("presets", "cp", "vila", "/proc/run.yaml"))
    assert line.startswith("error: /proc/run.yaml: cannot be written in /proc (")
    assert line.endswith("); choose another FILE.")


def test_cp_refuses_an_unknown_name(tmp_path: Path):
    line = error_line(unlora("presets", "cp", "vlia", tmp_path / "run.yaml"))
    assert line == "error: unknown preset 'vlia'. Did you mean 'vila'?"
    assert not list(tmp_path.iterdir())
