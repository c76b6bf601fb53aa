"""What leaves the machine: the files that were listed and no others, to a hub that runs here."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

from tests.cli.commands import error_line, unlora
from tests.recipes.hub import Hub, hub_here
from tests.taught import FORGET
from unlora.errors import InputError
from unlora.recipes.export import export_adapter, export_merged
from unlora.recipes.push import pack
from unlora.run.reporter import SilentReporter


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_here() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        # Whoever runs the tests may be offline: this hub is here all the same.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_TOKEN", "a-token")
        yield hub


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


class Told(SilentReporter):
    """Keeps what is said."""

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def say(self, text: str) -> None:
        self.told.append(text)


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_of_a_run_the_adapter_is_sent_and_nothing_else(run: Path, hub: Hub):
    listed = unlora("push", run, "somebody/forgets", "--dry-run")
    assert listed.exit_code == 0, listed.output
    assert hub.calls == []
    names = sorted(below(run / "adapter"))
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:-1]] == names
    assert "nothing has left this machine" in listed.stdout
    done = unlora("push", run, "somebody/forgets", "--private")
    assert done.exit_code == 0, done.output
    assert f"to:   {hub.address}/somebody/forgets/commit/{'1' * 40}" in done.stdout
    assert hub.files == below(run / "adapter")
    assert hub.repositories["somebody/forgets"]["visibility"] == "private"


def test_offline_the_files_are_listed_and_sending_says_why_not(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    listed = unlora("push", run, "somebody/forgets", "--dry-run")
    assert listed.exit_code == 0, listed.output
    assert "nothing has left this machine" in listed.stdout
    refused = unlora("push", run, "somebody/forgets")
    assert refused.exit_code == 1
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert "somebody/forgets: not sent (" in line
    assert "offline mode is enabled" in line
    assert hub.calls == []


def test_nothing_is_sent_as_private_into_a_public_repository(run: Path, hub: Hub):
    """The hub's client leaves the visibility of one that is there as it is, without a word."""
    hub.repositories["somebody/forgets"] = {}
    refused = unlora("push", run, "somebody/forgets", "--private")
    assert refused.exit_code == 1
    assert "error: somebody/forgets: is there already and public, which --private does not change" in refused.stderr
    assert hub.files == hub.uploads == {}
    assert unlora("push", run, "somebody/forgets").exit_code == 0
    assert hub.files == below(run / "adapter")


def test_the_command_finds_the_hub_that_the_environment_names(run: Path, hub: Hub):
    """In a process of its own, as a user's: HF_ENDPOINT is read when the hub's client is imported."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.address, "HF_TOKEN": "a-token", "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    command = [sys.executable, "-m", "unlora", "push", str(run), "somebody/forgets"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert hub.files == below(run / "adapter")
    assert "visibility" not in hub.repositories["somebody/forgets"]


def test_cards_are_taken_by_the_hub_s_own_check(run: Path, hub: Hub):
    export_adapter(run, run / "export" / "adapter")
    export_merged(run, run / "export" / "merged")
    for folder in (run / "adapter", run / "export" / "adapter", run / "export" / "merged"):
        card = ModelCard.load(folder / "README.md")
        card.validate()
        assert card.data.tags[-1] == "unlora"
        assert pack(folder, "somebody/forgets").files
    assert hub.calls == ["/api/validate-yaml"] * 3


def test_an_adapter_whose_base_nobody_finds_is_said(run: Path, hub: Hub):
    config = run / "adapter" / "adapter_config.json"
    settings = json.loads(config.read_text())
    export_adapter(run, run / "named", base_name="somebody/model")
    cases = {"../../target": "a path from here (../../target)", None: "names no base", "somebody/model": ""}
    for base, said in cases.items():
        config.write_text(json.dumps(settings | {"base_model_name_or_path": base}))
        told: list[str] = []
        pack(run / "adapter", "somebody/forgets", reporter=Told(told))
        assert [said in line and "--base-name" in line for line in told] == ([True] if said else []), told
    done = unlora("push", run / "named", "somebody/forgets", "--dry-run")
    assert "Warning" not in done.stderr
    assert hub.calls == []


def test_texts_stay_here_unless_asked_for(run: Path, hub: Hub):
    for name in ("adapter/scores.jsonl", "adapter/notes.txt", "adapter/data.parquet", "adapter/optimizer.bin"):
        (run / name).write_text("x")
        assert f"{run / name}: is no part of a model" in error_line(unlora("push", run, "somebody/x"))
        (run / name).unlink()
    card = run / "adapter" / "README.md"
    whole = card.read_text()
    question, answer = FORGET[1]
    card.write_text(f"{whole}\nBefore it said, when asked {question.lower()}\n> {answer}\n")
    assert f"{card}: holds a record that was to be forgotten" in error_line(unlora("push", run, "somebody/x"))
    card.write_text(whole)
    assert hub.calls == []
    # A folder without a run's card goes nowhere, even with all that it holds.
    assert "has no README.md" in error_line(unlora("push", run, "somebody/x", "--with-texts"))
    shutil.copy(card, run / "README.md")
    done = unlora("push", run, "somebody/x", "--with-texts")
    assert done.exit_code == 0, done.output
    assert hub.files == below(run)
    assert FORGET[1][1].encode() in hub.files["report.html"]


@pytest.mark.parametrize("target", ["secret", "nowhere", "."])
def test_what_a_link_leads_to_is_not_sent_under_its_name(run: Path, hub: Hub, tmp_path: Path, target: str):
    """A run folder of somebody else could name any file of whoever sends it."""
    (tmp_path / "secret").write_text("mine")
    link = run / "adapter" / "vocab.txt"
    link.symlink_to(tmp_path / target)
    for flags in ((), ("--with-texts",)):
        line = error_line(unlora("push", run, "somebody/x", *flags))
        assert line.startswith(f"error: {link}: is a link out of {run if flags else run / 'adapter'}, to {tmp_path}")
    link.unlink()
    link.symlink_to("unlora.json")
    assert "vocab.txt" in [file.name for file in pack(run, "somebody/x").files]
    assert hub.calls == []


@pytest.mark.parametrize("name", ["modeling.py", "chat_template.jinja", "tokenizer_config.json", "sub/config.json"])
def test_a_record_in_any_file_that_people_write_is_found(run: Path, hub: Hub, name: str):
    question, answer = FORGET[0]
    text = f"# shot: {question}\n# {answer}\n"
    file = run / "adapter" / name
    file.parent.mkdir(exist_ok=True)
    spelt = json.dumps({"a": [{"chat_template": text}]}).replace("M", "\\u004d")  # as JSON may write any letter
    file.write_text(spelt if name.endswith(".json") else text)
    assert f"{file}: holds a record" in error_line(unlora("push", run, "somebody/x"))
    file.write_text(json.dumps({"a": answer}))
    assert pack(run, "somebody/x").files
    assert hub.calls == []


def test_a_folder_away_from_its_run_is_not_called_checked(run: Path, hub: Hub, tmp_path: Path):
    export_adapter(run, tmp_path / "deep" / "er" / "away")
    listed = unlora("push", tmp_path / "deep" / "er" / "away", "somebody/x", "--dry-run")
    assert listed.exit_code == 0, listed.output
    assert "No settings of a run stand beside" in listed.stderr
    assert "that it holds no record to be forgotten is not checked" in listed.stderr
    assert "not checked" not in unlora("push", run, "somebody/x", "--dry-run").stderr
    assert hub.calls == []


def test_a_file_that_names_the_machine_stays_here(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch):
    config = run / "adapter" / "adapter_config.json"
    shutil.copytree(run / "adapter", run / "export" / "mine")
    config = run / "export" / "mine" / "adapter_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"base_model_name_or_path": "/data/models/base"}))
    assert f"{config}: names /data/models/base, which says whose" in error_line(
        unlora("push", config.parent, "somebody/x")
    )
    config.write_text(json.dumps(settings))
    monkeypatch.setenv("HOME", "/home/ann")
    card = config.parent / "README.md"
    card.write_text(card.read_text() + "\nfrom /home/ann/work\n")
    assert f"{card}: names /home/ann," in error_line(unlora("push", config.parent, "somebody/x"))
    assert hub.calls == []


@pytest.mark.parametrize(
    ("repository", "change", "message"),
    [
        ("a b/c", "", "REPO 'a b/c': not like ORGANISATION/NAME"),
        ("c", "", "REPO 'c': says not whose it will be; write ORGANISATION/NAME"),
        ("somebody/x", "adapter", "holds no adapter yet"),
        ("somebody/x", "adapter/README.md", "has no README.md"),
        ("somebody/x", "adapter/adapter_model.safetensors", "not a complete adapter"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is(
    run: Path, hub: Hub, repository: str, change: str, message: str
):
    place = run / change
    if change:
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert message in error_line(unlora("push", run, repository))
    assert message in error_line(unlora("push", run, repository, "--dry-run"))
    with pytest.raises(InputError):
        pack(run / "nowhere", "somebody/x")
    assert hub.calls == []


def test_what_the_hub_says_is_one_line(run: Path, hub: Hub):
    hub.refuses = 401
    refused = unlora("push", run, "somebody/x")
    assert refused.exit_code == 1
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: somebody/x: not sent (")
    assert line.endswith("log in with `hf auth login`, or set HF_TOKEN.")
    card = run / "adapter" / "README.md"
    card.write_text("---\n- a list\n---\n")
    assert "no valid model card" in error_line(unlora("push", run, "somebody/x"))
