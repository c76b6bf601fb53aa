"""A start, a loss, an attack and a suite of one's own, each a file of one's own, through the doors everybody has."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.commands import error_line, unlora
from tests.taught import Taught

START = '''
"""Plain LoRA whose A has entries of one size."""
from typing import Any, ClassVar

import torch

from unlora.adapters.initial import InitialFactors
from unlora.starts.start import Start, Started, StartInputs


class Ones(Start):
    anchored: ClassVar[bool] = False
    size: float = 0.5

    def begin(self, inputs: StartInputs, measured: Any) -> Started:
        r = inputs.rank
        return Started(
            {
                name: InitialFactors(torch.zeros(one.d_out, r), torch.full((r, one.d_in), self.size), None, "", None)
                for name, one in inputs.targets.items()
            }
        )
'''
LOSS = '''
"""The log-probability itself."""
from dataclasses import dataclass

from torch import Tensor

from unlora.losses import ForgetInputs, ForgetTerm


@dataclass(frozen=True)
class Ascent(ForgetTerm):
    name = "ascent"

    def __call__(self, inputs: ForgetInputs) -> Tensor:
        return inputs.predictions.mean_log_probs()
'''
ATTACK = '''
"""Counts what it could ask."""
from unlora.audit.attack import Attack, AttackResult, Estimate
from unlora.audit.bench import Workbench
from unlora.audit.cost import Cost
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject


class Count(Attack):
    name = "count"
    question = "How much is there to ask?"

    def lacks(self, subject: AuditSubject, settings: AuditSettings) -> str | None:
        return None

    def cost(self, subject: AuditSubject, settings: AuditSettings) -> Cost:
        return Cost()

    def run(self, bench: Workbench) -> AttackResult:
        count = len(bench.subject.forget)
        return AttackResult("holds", f"There are {count}.", {"count": Estimate(float(count))}, records=({"n": count},))
'''
SUITE = '''
"""Asks how many tokens a word has."""
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from unlora.results import Measurement, mean_measurement
from unlora.suites.scores import ScoreFile
from unlora.suites.suite import Asked, Suite


@dataclass(frozen=True)
class Word:
    source: str
    text: str
    tokens: float = 0.0

    @property
    def identity(self) -> tuple[str]:
        return (self.text,)

    @property
    def content(self) -> str:
        return self.text


class Words(Suite):
    name: ClassVar[str] = "words"
    score_file: ClassVar[ScoreFile[Any]] = ScoreFile("words", 1, "set", Word)
    text: str = "Bergen"

    def load(self) -> Any:
        return self.text.split()

    def hashes(self, loaded: Any) -> dict[str, str]:
        return {"words": self.text}

    def prepare(self, loaded: Any, reader: Any) -> Asked:
        return Asked({"words": [Word("the setting", word) for word in loaded]}, {}, {}, reader.tokenizer)

    def ask(self, model: Any, asked: Asked, name: str, questions: Any, progress: Any) -> Any:
        return [replace(one, tokens=float(len(asked.means(one.text)["input_ids"]))) for one in questions]

    def measure(self, scores: Any, retain_only: Any) -> dict[str, Measurement]:
        return {"tokens": mean_measurement([one.tokens for one in scores.sets["words"]], higher_is_better=False)}
'''
MODULES = {"own_start": START, "own_loss": LOSS, "own_attack": ATTACK, "own_suite": SUITE}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with all four modules."""
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source.lstrip(), encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def well(result: Result) -> None:
    assert result.exit_code == 0, result.output


def test_a_run_with_a_start_a_loss_and_a_suite_from_outside(here: Path, taught: Taught):
    well(
        unlora(
            "unlearn", "--model", taught.target, "--forget", taught.forget, "--retain", taught.retain,
            "--start", "own_start:Ones", "--set", "start.size=0.25", "--loss", "own_loss:Ascent",
            "--set", "evaluation.suites=[tofu, {name: 'own_suite:Words', text: 'Bergen Graz'}]",
            "--set", "evaluation.max_new_tokens=2", "--set", "training.epochs=1", "--output", "run",
        )
    )  # fmt: skip
    record = json.loads((here / "run" / "record.json").read_text())
    assert record["objective"]["forget"] == "ascent"
    evaluation = json.loads((here / "run" / "evaluation.json").read_text())
    found = evaluation["others"]["own_suite:Words"]["models"]["unlearned"]["metrics"]["tokens"]
    assert found["example_count"] == 2
    assert found["value"] >= 1
    # Somebody else's run is not trusted with code: neither its start, its loss nor its suite.
    text = (here / "run" / "config.yaml").read_text()
    for section, own in (("start.kind", "own_start:Ones"), ("objective.forget", "own_loss:Ascent")):
        line = error_line(unlora("unlearn", "run/config.yaml", "--output", "again"))
        assert "runs code, and the configuration of a run alone is not trusted with that" in line
        (here / "run" / "config.yaml").write_text(text := text.replace(own, {"start.kind": "plain"}.get(section, "ga")))
    line = error_line(unlora("unlearn", "run/config.yaml", "--output", "again"))
    assert "evaluation.suites" in line
    assert "own_suite:Words" in line
    assert not (here / "again").exists()


def test_an_audit_with_an_attack_from_outside(here: Path, finished_run: Path):
    shutil.copytree(finished_run, here / "run")
    well(unlora("audit", "run", "--attack", "own_attack:Count"))
    audit = json.loads((here / "run" / "audit" / "audit.json").read_text())
    found = audit["attacks"]["own_attack:Count"]
    assert (found["question"], found["sentence"]) == ("How much is there to ask?", "There are 4.")
    assert json.loads((here / "run" / "audit" / "records" / "own_attack-Count.jsonl").read_text()) == {"n": 4}
    assert "How much is there to ask?" in (here / "run" / "audit" / "audit.html").read_text()


def test_an_evaluation_with_a_suite_from_outside(here: Path, taught: Taught):
    well(unlora("evaluate", "--suite", "own_suite:Words", "--model", taught.target, "--output", "out"))
    record = json.loads((here / "out" / "evaluation.json").read_text())
    assert record["suite"] == "words"
    assert record["models"]["target"]["metrics"]["tokens"]["value"] >= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--attack", "own_suite:Words"), "attack 'own_suite:Words': must subclass unlora.audit.attack.Attack"),
        (("--attack", "own_attack:Cont"), "own_attack has no 'Cont'. Did you mean 'Count'?"),
        (("--attack", "nowhere:Count"), "nowhere cannot be imported"),
        (("--attack", "relearing"), "unknown attack 'relearing'. Did you mean 'relearning'?"),
    ],
)
def test_an_attack_that_is_none_is_one_line(here: Path, finished_run: Path, words: tuple[str, ...], message: str):
    assert message in error_line(unlora("audit", finished_run, *words, "--output", "out"))
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_attack:Count", "suite 'own_attack:Count': must subclass unlora.suites.suite.Suite"),
        ("own_suite:Wrds", "own_suite has no 'Wrds'. Did you mean 'Words'?"),
        ("muse:music", "'muse:music' is not one of"),
        ("wmpd:bio", "Did you mean 'wmdp:bio'?"),
    ],
)
def test_a_suite_that_is_none_is_one_line(here: Path, taught: Taught, name: str, message: str):
    result = unlora("evaluate", "--suite", name, "--model", taught.target, "--output", "out")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (here / "out").exists()
