"""A run folder of somebody else makes no command run its code or write outside of it."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.commands import error_line, unlora
from tests.faults.test_kills import command
from tests.recipes.processes import run
from tests.taught import Taught

OWN_CODE = """open({ran!r}, 'w')
from transformers import LlamaConfig, LlamaForCausalLM
class C(LlamaConfig):
    model_type = "own"
class M(LlamaForCausalLM):
    config_class = C
"""
"""Classes of its own: transformers marks what it loads from there, and would mark Llama's for the whole process."""
QUICK = ("--attack", "sampling", "--set", "sampling.samples=1", "--set", "sampling.k=[1]",
         "--set", "sampling.max_new_tokens=2", "--set", "max_examples=2")  # fmt: skip


@pytest.fixture(scope="module")
def finished(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign") / "run"
    code, text = run([*command(taught, folder), "--set", "evaluation.skip=true"])
    assert code == 0, text
    return folder


@pytest.fixture
def foreign(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, met where nothing else is."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished, tmp_path / "foreign"))


def change_config(folder: Path, section: str, **values: Any) -> None:
    file = folder / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    settings[section] |= values
    file.write_text(yaml.safe_dump(settings))


@pytest.fixture
def ran(foreign: Path, taught: Taught, tmp_path: Path) -> Path:
    """The foreign run's model brings code that leaves this file."""
    model, mark = Path(shutil.copytree(taught.target, tmp_path / "model")), tmp_path / "RAN"
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text(OWN_CODE.format(ran=str(mark)))
    change_config(foreign, "model", name=str(model), trust_remote_code=True)
    return mark


COMMANDS = (
    ("audit", "RUN", *QUICK),
    ("export", "RUN", "--merged"),
    ("export", "RUN", "--adapter"),
    ("export", "RUN", "--rank", "2"),
)
"""All that load the model; an export compares its logits."""


@pytest.mark.parametrize("words", COMMANDS, ids=["audit", "merged", "adapter", "rank"])
def test_code_of_its_model_runs_only_where_the_command_says_so(foreign: Path, ran: Path, words: tuple[str, ...]):
    given = [word.replace("RUN", str(foreign)) for word in words]
    result = unlora(*given)
    assert error_line(result).endswith("read that code, then allow it with --trust-remote-code.")
    assert f"{foreign}: was made with --trust-remote-code" in result.stderr
    assert not ran.exists()
    unlora(*given, "--trust-remote-code")
    assert ran.exists()


def test_report_never_runs_it(foreign: Path, ran: Path):
    assert unlora("report", str(foreign)).exit_code == 0
    assert not ran.exists()


@pytest.mark.parametrize("name", ["unlearn", "importance", "plan", "sequence"])
def test_its_configuration_is_not_trusted_with_code(foreign: Path, ran: Path, taught: Taught, name: str):
    output = () if name == "plan" else ("--output", "out")
    forget = ("--forget", str(taught.forget)) if name == "sequence" else ()
    line = error_line(unlora(name, foreign / "config.yaml", *output, *forget))
    assert line.endswith("read the code, then say --trust-remote-code.")
    assert not ran.exists()


@pytest.mark.parametrize("key", ["forget", "retain"])
def test_its_loss_is_not_imported(foreign: Path, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "loss", raising=False)
    (tmp_path / "loss.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w')\n")
    change_config(foreign, "objective", **{key: "loss:Mine"})
    config = str(foreign / "config.yaml")
    line = error_line(unlora("unlearn", config, "--output", "out"))
    assert f"objective.{key} 'loss:Mine' runs code" in line
    assert line.endswith(f"say --set objective.{key}=loss:Mine.")
    for words in (("audit", str(foreign), *QUICK), ("export", str(foreign), "--merged"), ("report", str(foreign))):
        result = unlora(*words)
        assert result.exit_code == 0, result.output
    assert not (tmp_path / "RAN").exists()
    unlora("unlearn", config, "--set", f"objective.{key}=loss:Mine", "--output", "out")
    assert (tmp_path / "RAN").exists()
    (tmp_path / "RAN").unlink()
    shutil.copy(config, tmp_path / "my.yaml")  # A configuration of one's own is trusted.
    sys.modules.pop("loss", None)
    unlora("unlearn", "my.yaml", "--output", "out")
    assert (tmp_path / "RAN").exists()


@pytest.mark.parametrize("name", ["audit", "scores", "export", "checkpoints", "audit/records", "open_unlearning"])
def test_nothing_is_written_or_removed_through_a_link(foreign: Path, tmp_path: Path, taught: Taught, name: str):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "checkpoint-7").mkdir(parents=True)
    (elsewhere / "checkpoint-7" / "mine").write_text("x")
    if (foreign / name).is_dir():
        shutil.rmtree(foreign / name)
    (foreign / name).parent.mkdir(exist_ok=True)
    (foreign / name).symlink_to(elsewhere)
    settings = command(taught, foreign)
    for words in ((*settings, "--set", "evaluation.skip=true"), ("audit", str(foreign), *QUICK),
                  ("export", str(foreign), "--adapter")):  # fmt: skip
        assert "a link that leads out of" in error_line(unlora(*words))
    assert sorted(elsewhere.rglob("*")) == [elsewhere / "checkpoint-7", elsewhere / "checkpoint-7" / "mine"]
    assert unlora("report", foreign).exit_code == 0
    elsewhere_audit = unlora("audit", foreign, *QUICK, "--output", tmp_path / "mine")
    assert elsewhere_audit.exit_code == 0, elsewhere_audit.output


def test_links_to_files_are_replaced_not_followed(foreign: Path, tmp_path: Path, taught: Taught):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    for name in ("report.html", "train_log.jsonl", "adapter/notes.txt"):
        (foreign / name).unlink(missing_ok=True)
        (foreign / name).symlink_to(secret)
    (foreign / "train_log.jsonl").unlink()
    assert unlora("report", foreign).exit_code == 0
    assert unlora("export", foreign, "--adapter", "--output", "out").exit_code == 0
    assert secret.read_text() == "mine"
    assert not (tmp_path / "out" / "notes.txt").exists()
    assert not os.path.islink(foreign / "report.html")


def test_an_adapter_that_names_a_module_to_import_is_refused(foreign: Path, tmp_path: Path):
    """PEFT imports what `megatron_core` names."""
    file = foreign / "adapter" / "adapter_config.json"
    config = json.loads(file.read_text()) | {"megatron_config": {"a": 1}, "megatron_core": "evil_module"}
    file.write_text(json.dumps(config))
    record = foreign / "record.json"
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w')\n")
    known = json.loads(record.read_text())
    known.pop("adapter_sha256")
    record.write_text(json.dumps(known))
    for words in (("export", str(foreign), "--merged"), ("audit", str(foreign), *QUICK)):
        error_line(unlora(*words))
    assert not (tmp_path / "RAN").exists()
