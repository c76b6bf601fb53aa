"""`unlora doctor`: one line a finding, and its exit code says whether all is well."""

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.cli.commands import unlora
from unlora.recipes.doctor import findings


def test_healthy_machine_exits_0_and_every_line_is_ok():
    result = unlora("doctor")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert all(line.startswith("ok   ") for line in lines)
    subjects = [line[5:23].strip() for line in lines]
    assert [*subjects[:2], *subjects[-5:]] == [
        "python",
        "unlora",
        "memory",
        "disk here",
        "embedded model",
        "cache",
        "hub",
    ]
    assert {"torch", "transformers", "peft", "click"} <= set(subjects)


def test_missing_and_outdated_packages_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch):
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "scipy":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name == "peft" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    result = unlora("doctor")
    assert result.exit_code == 1
    failed = [line.split(maxsplit=2)[1:] for line in result.stdout.splitlines() if line.startswith("FAIL")]
    needed = {
        requirement.name: requirement for requirement in map(Requirement, importlib.metadata.requires("unlora") or ())
    }
    assert failed == [
        ["peft", f"0.1; needs {needed['peft'].specifier}"],
        ["scipy", f"missing; pip install '{needed['scipy']}'"],
    ]


def test_cache_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path / "file" / "cache"))
    found = {finding.subject: finding for finding in findings()}
    assert not found["cache"].fine
    assert "UNLORA_CACHE" in found["cache"].text


def test_cache_is_shown_with_its_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "scores").mkdir()
    with (tmp_path / "scores" / "large").open("wb") as file:
        file.truncate(1_500_000_000)  # takes no room on the disk
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path))
    found = {finding.subject: finding for finding in findings()}
    assert found["cache"].text == f"{tmp_path}, 1.5 GB"


def test_missing_embedded_model_is_no_failure(monkeypatch: pytest.MonkeyPatch):
    def find_spec(name: str) -> Any:
        return None if name == "gguf" else object()

    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    found = {finding.subject: finding for finding in findings()}["embedded model"]
    assert found.fine
    assert found.text == "not installed (gguf): see 'make install'"


def test_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    unlora("doctor")
    assert not list(tmp_path.iterdir())
