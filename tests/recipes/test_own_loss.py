"""docs/losses.md: its example runs, and its tables say what the code says."""

import dataclasses
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.cli.commands import error_line, unlora
from tests.taught import Taught
from unlora.losses import FORGET_TERMS, RETAIN_TERMS, ForgetTerm, RetainTerm
from unlora.training.callbacks import read_train_log

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "losses.md"


def blocks() -> list[tuple[str, str]]:
    """Language and text of each block of code."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def command(taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documented command on the taught model, in a folder with the documented module."""
    (source,) = [text for language, text in blocks() if language == "python"]
    (line,) = [text for language, text in blocks() if text.startswith("unlora unlearn")]
    assert len(source.splitlines()) <= 32
    (tmp_path / "my_losses.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_losses", raising=False)
    paths = {"M": taught.target, "F": taught.forget, "R": taught.retain, "runs/own": tmp_path / "run"}
    words = [str(paths.get(word, word)) for word in shlex.split(line.replace("\\\n", " "))[1:]]
    return [
        *words,
        "--set",
        "training.learning_rate=1e-2",
        "--set",
        "training.epochs=10",
        "--set",
        "evaluation.skip=true",
    ]


def test_documented_loss_runs_as_documented(command: list[str], tmp_path: Path):
    result = unlora(*command, "--set", "training.batch_size=4", "--set", "adapter.rank=4", "--set", "adapter.alpha=8")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["objective"] == {"forget": "bounded_ascent", "margin": 3, "retain": "nll", "retain_weight": 1.6}
    lines = read_train_log(tmp_path / "run" / "train_log.jsonl")
    assert lines[0]["forget_term"] == pytest.approx(3, abs=1e-4)  # policy and reference are one
    assert lines[-1]["forget_term"] < 2
    assert "my_losses:BoundedAscent + 1.6 x nll" in (tmp_path / "run" / "adapter" / "README.md").read_text()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("objective.forget_parameters.margin=-1", "bounded_ascent: margin must be a positive number, found -1.0."),
        ("objective.forget_parameters.margn=1", "'bounded_ascent' has no parameter 'margn'. Did you mean 'margin'?"),
        ("objective.forget=my_losses:BoundedAscend", "my_losses has no 'BoundedAscend'. Did you mean 'BoundedAscent'?"),
        ("objective.retain=my_losses:BoundedAscent", "must be a dataclass that subclasses RetainTerm"),
    ],
)
def test_wrong_use_of_it_is_one_line(command: list[str], tmp_path: Path, setting: str, message: str):
    assert message in error_line(unlora(*command, "--set", setting))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("section", "term"),
    [
        *(("## Forget terms", term) for term in FORGET_TERMS.values()),
        *(("## Retain terms", term) for term in RETAIN_TERMS.values()),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_tables_name_every_term_with_its_paper_and_defaults(section: str, term: type[ForgetTerm] | type[RetainTerm]):
    text = DOCUMENT.read_text(encoding="utf-8").split(section)[1].split("\n## ")[0]
    (row,) = [line for line in text.splitlines() if line.startswith(f"| `{term.name}` |")]
    _, equation, paper, needs, parameters, _ = re.split(r"(?<!\\)\|", row.strip().strip("|"))
    assert equation.strip()
    assert paper.strip() == term.paper
    assert bool(needs.strip()) == bool(term.needs or getattr(term, "completion", "answer") == "refusal")
    defaults = {field.name: field.default for field in dataclasses.fields(term)}  # pyright: ignore[reportArgumentType]
    shown = {name: json.loads(value) for name, value in re.findall(r"`(\w+)` ([\w.]+)", parameters)}
    assert shown == defaults
