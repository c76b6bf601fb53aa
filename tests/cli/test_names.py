"""Names that no file can have are refused in one line by every command, wherever they stand."""

import json
import os
from pathlib import Path

import pytest

from tests.cli.commands import error_line, unlora
from tests.cli.conftest import Inputs

LONG = "x" * 300
REFUSED = {LONG: "File name too long", "loop/x": "Too many levels of symbolic links", "file/x": "Not a directory"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a link to itself and a file."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = [
    ("unlearn", "--model", "NAME", "--forget", "FORGET", "--retain", "RETAIN", "--output", "out"),
    ("unlearn", "--model", "MODEL", "--base", "NAME", "--forget", "FORGET", "--retain", "RETAIN", "--output", "out"),
    ("unlearn", "--model", "MODEL", "--forget", "NAME", "--retain", "RETAIN", "--output", "out"),
    ("unlearn", "--model", "MODEL", "--forget", "FORGET", "--retain", "RETAIN", "--output", "NAME"),
    ("unlearn", "--model", "MODEL", "--forget", "FORGET", "--retain", "RETAIN", "--retain-only", "NAME",
     "--output", "out"),
    ("unlearn", "NAME", "--output", "out"),
    ("importance", "--model", "MODEL", "--forget", "FORGET", "--retain", "RETAIN", "--output", "NAME"),
    ("evaluate", "--model", "MODEL", "--forget", "FORGET", "--adapter", "NAME", "--output", "out"),
    ("evaluate", "--model", "MODEL", "--suite", "muse:news@NAME", "--output", "out"),
    ("evaluate", "--model", "MODEL", "--suite", "wmdp@NAME", "--output", "out"),
    ("finetune", "--model", "MODEL", "--data", "NAME", "--output", "out"),
    ("finetune", "--model", "MODEL", "--data", "FORGET", "--exclude", "NAME", "--output", "out"),
    ("sequence", "--model", "MODEL", "--forget", "NAME", "--retain", "RETAIN", "--output", "out"),
    ("data", "check", "NAME", "--model", "MODEL"),
    ("data", "check", "FORGET", "--model", "MODEL", "--against", "NAME"),
    ("data", "check", "FORGET", "--model", "NAME"),
    ("audit", "NAME"),
    ("export", "NAME", "--adapter"),
    ("report", "NAME"),
    ("presets", "cp", "vila", "NAME"),
    ("study", "sigma", "--quick", "--output", "NAME"),
    ("plan", "--model", "MODEL", "--forget", "FORGET", "--retain", "NAME"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("name", REFUSED, ids=["long", "loop", "under a file"])
def test_name_is_refused(inputs: Inputs, place: Path, command: tuple[str, ...], name: str):
    known = {"MODEL": inputs.model, "FORGET": inputs.forget, "RETAIN": inputs.retain}
    result = unlora(*[known.get(word, word.replace("NAME", name)) for word in command])
    if result.stderr.startswith("Usage:"):
        assert result.exit_code == 2
        assert "Error: Invalid value" in result.stderr
    else:
        error_line(result)
    assert sorted(path.name for path in place.iterdir()) == ["file", "loop"]


@pytest.mark.parametrize("key", ["data.forget", "data.retain", "model.name", "evaluation.retain_only"])
def test_name_with_a_nul_character_is_refused(inputs: Inputs, place: Path, key: str):
    values = {
        "model": {"name": str(inputs.model)},
        "data": {"forget": str(inputs.forget), "retain": str(inputs.retain)},
    }
    section, _, name = key.partition(".")
    values.setdefault(section, {})[name] = "a\0b"
    (place / "settings.yaml").write_text(json.dumps(values))
    line = error_line(unlora("unlearn", "settings.yaml", "--output", "out"))
    assert "\0" not in line
    assert not os.path.exists("out")
