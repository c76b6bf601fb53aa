"""training.trainer: a trainer of one's own in place of `UnlearnTrainer`."""

import json
from pathlib import Path

import pytest

from tests.cli.commands import error_line, unlora
from tests.taught import Taught

SOURCE = """
import unlora

class Twice(unlora.UnlearnTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        forget, retain = self.forget_side(model, inputs), self.retain_side(model, inputs)
        self.log_sides(forget, retain, inputs)
        return 2 * forget.loss + retain.loss
"""


@pytest.fixture
def command(taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "my_trainer.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    sets = ["--model", taught.target, "--forget", taught.forget, "--retain", taught.retain, "--output", "run"]
    chosen = ["training.epochs=1", "training.batch_size=4", "adapter.rank=2", "evaluation.skip=true"]
    return ["unlearn", *map(str, sets), *(word for one in chosen for word in ("--set", one))]


def test_a_trainer_of_ones_own_trains_and_is_recorded(command: list[str], tmp_path: Path):
    result = unlora(*command, "--set", "training.trainer=my_trainer:Twice")
    assert result.exit_code == 0, result.output
    (line,) = [json.loads(text) for text in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    assert line["loss"] == pytest.approx(2 * line["forget_term"] + 1.6 * line["retain_term"], rel=1e-5)
    assert "my_trainer:Twice" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_trainer:Thrice", "has no 'Thrice'. Did you mean 'Twice'?"),
        ("no_such_module:Twice", "cannot be imported"),
        ("pathlib:Path", "must be a class that subclasses unlora.UnlearnTrainer"),
    ],
)
def test_what_is_no_trainer_is_refused_before_anything_is_read(
    command: list[str], tmp_path: Path, name: str, message: str
):
    result = unlora(*command, "--set", f"training.trainer={name}")
    assert result.exit_code == 2
    assert message in error_line(result)
    assert not (tmp_path / "run").exists()
