"""An audit of a finished run, from the folder to the verdict."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.audit.own_attackers import FEW
from tests.taught import Taught
from tests.tiny import save_tiny
from unlora.audit.attacks import make_attack
from unlora.audit.names import ATTACKS
from unlora.audit.relearning import Relearning
from unlora.errors import InputError, UnloraError
from unlora.recipes.audit import audit, with_known_attackers
from unlora.run.presets import resolve_audit

QUICK = [
    "relearning.steps=2",
    "relearning.measure_every=1",
    f"relearning.attackers=['{FEW}']",
]

QUICK_SAMPLING = ["max_examples=2", "sampling.samples=1", "sampling.k=[1]", "sampling.max_new_tokens=2"]


def settings(*overrides: str, **flags: Any):
    """Relearning alone, two steps, unless said otherwise."""
    return resolve_audit(scale="default", flags={"attacks": ["relearning"], **flags}, overrides=[*QUICK, *overrides])


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that may be written to."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_every_attack_of_the_settings_is_there_under_its_name():
    for name in ATTACKS:
        attack = make_attack(name)
        assert attack.name == name
        assert attack.question.endswith("?")


def test_audit_with_a_control_writes_what_it_found(run: Path, taught: Taught):
    # The target serves as control here: it knows everything, so nothing can come back beyond it.
    record = audit(run, settings(retain_only=str(taught.target)), run / "audit")
    assert record == json.loads((run / "audit" / "audit.json").read_text())
    found = record["attacks"]["relearning"]
    assert record["control"] is True
    assert found["outcome"] in ("holds", "fails")
    assert found["estimates"]["worst_excess"]["example_count"] > 0
    assert found["estimated_seconds"] > 0
    assert "records" not in found
    assert record["verdict"]
    assert "no proof of deletion" in record["scope"]
    lines = [json.loads(line) for line in (run / "audit" / "records" / "relearning.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 4
    assert {line["model"] for line in lines} == {"unlearned", "retain_only"}
    assert not (run / "audit" / "scratch").exists()
    assert record["verdict"] in (run / "report.html").read_text()
    page = (run / "audit" / "audit.html").read_text()
    assert found["sentence"] in page
    assert "<svg" in page


def test_attackers_that_the_run_recorded_are_known(tmp_path: Path):
    (tmp_path / "record.json").write_text(json.dumps({"known_attackers": ["lora_5e-4_few"]}))
    found = with_known_attackers(tmp_path, settings("known_attackers=[full_1e-4_few]"))
    assert found.known_attackers == ["full_1e-4_few", "lora_5e-4_few"]
    assert found.relearning == settings().relearning
    (tmp_path / "record.json").write_text(json.dumps({"known_attackers": ["lora"]}))
    with pytest.raises(InputError, match=r"record\.json: known_attackers: unknown attacker"):
        with_known_attackers(tmp_path, settings())


def test_audit_goes_on_where_its_run_was_moved_to(run: Path, tmp_path: Path):
    """The hashes say what the run is, not its place."""
    chosen = resolve_audit(scale="default", flags={"attacks": ["sampling"]}, overrides=QUICK_SAMPLING)
    first = audit(run, chosen, run / "audit")
    moved = run.rename(tmp_path / "elsewhere")
    second = audit(moved, chosen, moved / "audit")
    assert second["attacks"]["sampling"]["estimates"] == first["attacks"]["sampling"]["estimates"]
    assert json.loads((moved / "audit" / "record.json").read_text())["run"] == str(moved)


def test_run_without_a_retain_only_model_has_no_control(run: Path):
    record = audit(run, settings(), run / "audit")
    assert record["control"] is False
    assert record["attacks"]["relearning"]["outcome"] == "unclear"
    assert record["verdict"] == f"Relearning was tried by {FEW}. Cannot be told: relearning."
    assert "no control" in (run / "audit" / "audit.html").read_text()


def test_started_again_it_goes_on_and_trains_nothing_twice(run: Path, monkeypatch: pytest.MonkeyPatch):
    first = audit(run, settings("seed=5"), run / "audit")
    (run / "audit" / "audit.json").unlink()
    monkeypatch.setattr("unlora.audit.course.FineTuneTrainer", None)
    again = audit(run, settings("seed=5"), run / "audit")
    for record in (first, again):
        for found in record["attacks"].values():
            del found["seconds"], found["estimated_seconds"]
    assert again == first


def test_an_attack_that_fails_leaves_a_folder_that_can_go_on(run: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> None:
        raise UnloraError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Relearning, "run", fail)
        with pytest.raises(UnloraError, match="disk is full"):
            audit(run, settings(), run / "audit")
    assert not (run / "audit" / "audit.json").exists()
    assert not (run / "audit" / "scratch").exists()
    assert audit(run, settings(), run / "audit")["attacks"]["relearning"]["outcome"] == "unclear"


def test_what_is_not_there_is_refused_and_nothing_is_written(run: Path, tmp_path: Path):
    cases = [
        (tmp_path, settings(), "not a run folder"),
        (run, settings(holdout=str(tmp_path / "none.jsonl")), "no such file"),
        (run, settings(retain_only=str(tmp_path / "nowhere")), "no such folder"),
        (run, settings(retain_only=str(run / "scores" / "target.jsonl")), "attacks the model itself"),
    ]
    for folder, chosen, message in cases:
        with pytest.raises(InputError, match=message):
            audit(folder, chosen, tmp_path / "audit")
        assert not (tmp_path / "audit").exists()


def test_another_model_under_the_same_path_is_refused(run: Path, tmp_path: Path):
    record = json.loads((run / "record.json").read_text())
    record["model"]["fingerprint"] = "0" * 64
    (run / "record.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="made for a model with weights 0000"):
        audit(run, settings(), run / "audit")


def test_other_settings_need_another_folder(run: Path):
    audit(run, settings(), run / "audit")
    with pytest.raises(InputError, match="holds another run"):
        audit(run, settings("relearning.steps=3"), run / "audit")


def test_control_that_reads_other_tokens_is_refused(run: Path, tmp_path: Path):
    other = save_tiny(tmp_path / "gpt2", "gpt2")
    with pytest.raises(InputError, match="its tokenizer is not the target model's"):
        audit(run, settings(retain_only=str(other)), tmp_path / "audit")
    assert not (tmp_path / "audit").exists()
