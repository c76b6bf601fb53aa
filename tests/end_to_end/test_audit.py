"""The audit as a user runs it: a run of the main path, its retain-only model as control, every attack, the verdict."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.audit.own_attackers import ALL, FEW, UNRELATED
from tests.audit.subjects import HOLDOUT
from tests.cli.commands import error_line, unlora, write_lines
from tests.taught import Taught, teach, write_jsonl
from tests.tiny import build_tiny_model
from unlora.audit.names import ATTACKS
from unlora.models.load import load_tokenizer
from unlora.models.quiet import quiet

QUICK = (
    *(
        "--set",
        "relearning.steps=4",
        "--set",
        "relearning.measure_every=2",
        "--set",
        f"relearning.attackers=['{FEW}','{UNRELATED}','{ALL}']",
    ),
    *("--set", "sampling.samples=4", "--set", "sampling.k=[1,4]", "--set", "sampling.max_new_tokens=8"),
)


@pytest.fixture(scope="module")
def place(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a control that was never taught the forget set, audited once with everything."""
    place = tmp_path_factory.mktemp("audited")
    tokenizer = load_tokenizer(str(taught.target))
    control = build_tiny_model("llama", vocab_size=len(tokenizer))
    with torch.random.fork_rng(devices=[]):
        teach(control, tokenizer, [taught.retain])  # type: ignore[arg-type]
    with quiet():
        control.save_pretrained(place / "retain_only")
    tokenizer.save_pretrained(place / "retain_only")
    holdout = write_jsonl(place / "holdout.jsonl", HOLDOUT)
    run = (
        *("unlearn", "--model", taught.target, "--forget", taught.forget, "--retain", taught.retain),
        *("--retain-only", place / "retain_only", "--set", "adapter.rank=4", "--set", "adapter.alpha=8"),
        *("--set", "training.learning_rate=5e-3", "--set", "training.epochs=8", "--set", "training.batch_size=4"),
        *("--set", "evaluation.max_new_tokens=4", "--output", place / "run"),
    )
    assert unlora(*run).exit_code == 0
    printed = unlora("audit", place / "run", "--holdout", holdout, *QUICK)
    assert printed.exit_code == 0, printed.output
    (place / "audit.txt").write_text(printed.output)
    return place


def audit_of(place: Path) -> dict[str, Any]:
    return json.loads((place / "run" / "audit" / "audit.json").read_text())


def test_every_attack_was_made_or_says_what_it_lacks(place: Path) -> None:
    attacks = audit_of(place)["attacks"]
    assert list(attacks) == list(ATTACKS)
    for name, found in attacks.items():
        assert found["sentence"]
        if found["outcome"] == "not tested":
            assert name == "quantisation", found["sentence"]  # a tiny model's layers are too narrow to be rounded
            continue
        assert found["seconds"] >= 0
        assert found["estimates"]
        records = (place / "run" / "audit" / "records" / f"{name}.jsonl").read_text().splitlines()
        assert records
        assert all(isinstance(json.loads(line), dict) for line in records)


def test_relearning_teaches_the_unlearned_model_and_its_control(place: Path) -> None:
    found = audit_of(place)["attacks"]["relearning"]
    for name in (FEW, UNRELATED, ALL, "worst"):
        assert {f"{name}_recovery", f"{name}_control", f"{name}_excess"} <= set(found["estimates"])
    assert found["estimates"][f"{ALL}_recovery"]["value"] > 0.1
    assert found["estimates"][f"{ALL}_excess"]["low"] <= found["estimates"][f"{ALL}_excess"]["value"]
    panels = {(curve["panel"], curve["label"]) for curve in found["curves"] if curve["y"][0] == 0}
    assert panels == {(name, who) for name in (FEW, UNRELATED, ALL) for who in ("unlearned", "control")}


def test_verdict_is_printed_and_stands_on_both_pages(place: Path) -> None:
    verdict = audit_of(place)["verdict"]
    printed = (place / "audit.txt").read_text()
    assert verdict in printed
    assert "no proof of deletion" in printed
    for name in ATTACKS:
        assert f"{name}: " in printed
    assert "Nobody has tried" not in (place / "run" / "report.html").read_text()


def test_same_command_again_gives_the_same_record(place: Path) -> None:
    before = audit_of(place)
    assert unlora("audit", place / "run", "--holdout", place / "holdout.jsonl", *QUICK).exit_code == 0
    after = audit_of(place)
    for record in (before, after):
        for found in record["attacks"].values():
            found.pop("seconds", None)
            found.pop("estimated_seconds", None)
    assert after == before


def test_refusals_are_one_line(place: Path, tmp_path: Path) -> None:
    run = place / "run"
    assert "not a run folder" in error_line(unlora("audit", tmp_path))
    wrong = error_line(unlora("audit", run, "--set", "relearning.stepz=1", "--output", tmp_path / "a"))
    assert "relearning.steps" in wrong
    bad = write_lines(tmp_path / "bad.jsonl", [{"question": "Who?"}])
    assert "bad.jsonl, line 1" in error_line(unlora("audit", run, "--holdout", bad, "--output", tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    assert "unknown" not in error_line(unlora("audit", run, "--seed", "1"))  # another audit lies in RUN/audit
