"""A file of a run that was cut short is named in one clear line; without it, the same command makes it again."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.test_kills import command, contents
from tests.recipes.processes import KILLED, KillAt, run
from tests.taught import Taught

START_AGAIN = "; remove it and start again."


@pytest.fixture(scope="module")
def whole(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("damaged") / "run"
    code, text = run(command(taught, folder))
    assert code == 0, text
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and an empty cache."""
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(whole, tmp_path / "run"))


def remove(place: Path) -> None:
    shutil.rmtree(place) if place.is_dir() else place.unlink()


def error_line(taught: Taught, folder: Path) -> str:
    """What the command says last, as it refuses the folder."""
    code, text = run(command(taught, folder))
    assert code == 2, text
    assert "Traceback" not in text
    return text.splitlines()[-1]


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def last_line(file: Path) -> None:
    """At the end of a line, so that every line left is whole."""
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def other_json(file: Path) -> None:
    file.write_text("[1]\n")


def other_number(file: Path) -> None:
    """A better one, in a file that is otherwise as it was."""
    found = json.loads(file.read_text())
    found["models"]["unlearned"]["metrics"]["forget_probability"]["value"] = 0.0
    file.write_text(json.dumps(found, indent=2))


DAMAGES = [
    ("importance.safetensors", half, True),
    ("importance.safetensors", half, False),
    ("adapter/adapter_model.safetensors", half, True),
    ("adapter/adapter_model.safetensors", half, False),
    ("adapter/adapter_model.safetensors", remove, False),
    ("adapter/adapter_config.json", half, True),
    ("adapter/adapter_config.json", other_json, True),
    ("adapter/adapter_config.json", remove, True),
    ("scores/target.jsonl", half, False),
    ("scores/target.jsonl", last_line, True),
    ("scores/unlearned.jsonl", half, True),
    ("scores/unlearned.jsonl", last_line, False),
    ("evaluation.json", half, True),
    ("evaluation.json", other_json, True),
    ("evaluation.json", other_number, True),
]


@pytest.mark.parametrize(("name", "damage", "evaluated"), DAMAGES)
def test_damaged_file_is_named_and_made_again(
    taught: Taught, whole: Path, folder: Path, name: str, damage: Callable[[Path], None], evaluated: bool
):
    if not evaluated:
        (folder / "evaluation.json").unlink()
    damage(folder / name)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    line = error_line(taught, folder)
    place = folder / "adapter" if name.startswith("adapter/") else folder / name
    assert line.startswith(f"error: {place}")
    assert line.endswith(f"; remove {place} to train again." if place.name == "adapter" else START_AGAIN)
    untouched = {path for path in before if path.name not in ("record.json", "run")}
    assert all(path.stat().st_mtime_ns == before[path] for path in untouched)

    remove(place)
    code, text = run(command(taught, folder))
    assert code == 0, text
    assert contents(folder) == contents(whole)


@pytest.mark.parametrize("damage", [half, other_json])
@pytest.mark.parametrize("name", ["record.json", "config.yaml"])
def test_damaged_description_of_a_run_is_refused(
    taught: Taught, folder: Path, name: str, damage: Callable[[Path], None]
):
    damage(folder / name)
    line = error_line(taught, folder)
    assert line.startswith(f"error: {folder}")
    assert re.search(r"choose another --output( or remove it)?\.$", line)


@pytest.mark.parametrize("content", ['{"finished": 1}', '{"stages": []}', '{"checks": null}'])
def test_record_that_unlora_did_not_write_is_refused(taught: Taught, folder: Path, content: str):
    (folder / "record.json").write_text(content)
    assert "record.json: not a run's record" in error_line(taught, folder)


def test_run_without_its_record_is_refused(taught: Taught, folder: Path):
    """Nothing else says of which model and data the importance map and the scores are."""
    (folder / "record.json").unlink()
    line = error_line(taught, folder)
    assert line.startswith(f"error: {folder / 'record.json'}: missing")
    assert line.endswith(f"; put it back, remove {folder} or choose another --output.")


def test_changed_configuration_of_an_adapter_is_noticed(taught: Taught, folder: Path):
    """Its alpha scales the tensors."""
    file = folder / "adapter" / "adapter_config.json"
    file.write_text(file.read_text().replace('"lora_alpha": 8', '"lora_alpha": 80'))
    assert "damaged or exchanged" in error_line(taught, folder)


def forge(file: Path, **header: str) -> None:
    """Make the answers others than the model gave, so that they are known again."""
    first, *others = file.read_text().splitlines(keepends=True)
    known = json.loads(first)
    known["protocol"] |= header
    file.write_text(
        json.dumps(known) + "\n" + "".join(re.sub('"generated": "[^"]*"', '"generated": "X"', o) for o in others)
    )


def test_results_of_a_removed_adapter_are_not_those_of_the_next(taught: Taught, whole: Path, folder: Path):
    forge(folder / "scores" / "unlearned.jsonl")
    shutil.rmtree(folder / "adapter")
    code, text = run(command(taught, folder), KillAt("unlora.recipes.unlearn", "save_trained_adapter"))
    assert code == KILLED, text
    for name in ("evaluation.json", "report.html", "scores/unlearned.jsonl"):
        assert not (folder / name).exists()
    record = json.loads((folder / "record.json").read_text())
    assert record["finished"] is False
    assert "adapter_sha256" not in record
    assert (folder / "scores" / "target.jsonl").is_file()

    code, text = run(command(taught, folder))
    assert code == 0, text
    assert contents(folder) == contents(whole)


@pytest.mark.parametrize("said", [{"adapter_sha256": "0" * 64}, None])
def test_scores_of_another_adapter_or_of_nobody_knows_which_are_made_again(
    taught: Taught, whole: Path, folder: Path, said: dict[str, str] | None
):
    file = folder / "scores" / "unlearned.jsonl"
    forge(file, **(said or {}))
    if said is None:
        file.write_text(re.sub(', "adapter_sha256": "[0-9a-f]*"', "", file.read_text()))
        assert "adapter_sha256" not in file.read_text()
    (folder / "evaluation.json").unlink()
    code, text = run(command(taught, folder))
    assert code == 0, text
    assert contents(folder) == contents(whole)


def report(folder: Path) -> tuple[int, str]:
    return run(["report", str(folder)])


@pytest.mark.parametrize(
    ("name", "damage", "remedy"),
    [
        ("scores/target.jsonl", last_line, START_AGAIN),
        ("evaluation.json", other_json, START_AGAIN),
        ("evaluation.json", other_number, START_AGAIN),
        ("record.json", other_json, "must be a JSON object."),
        ("audit/audit.json", other_json, "; remove it and audit again."),
    ],
)
def test_report_names_a_damaged_file(
    taught: Taught, folder: Path, name: str, damage: Callable[[Path], None], remedy: str
):
    (folder / name).parent.mkdir(exist_ok=True)
    damage(folder / name)
    code, text = report(folder)
    assert code == 2
    assert text.startswith(f"error: {folder / name}: ")
    assert text.endswith(f"{remedy}\n")
    assert text.count("\n") == 1
