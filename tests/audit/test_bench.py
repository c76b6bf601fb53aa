"""Finished work is done once, and never taken for other work."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from tests.audit.subjects import bench_for
from unlora.audit.subject import AuditSubject
from unlora.data.records import ExampleSet
from unlora.models.wrapping import unwrap


class Work:
    """Counts how often it is done."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> dict[str, Any]:
        self.count += 1
        return {"scores": (0.25, math.nan), "count": self.count}


def test_second_call_comes_from_the_cache_with_nan_as_nan(subject: AuditSubject, tmp_path: Path) -> None:
    work = Work()
    results = [bench_for(subject, tmp_path).once("work", "target", {"step": 1}, work) for _ in range(2)]
    assert work.count == 1
    for result in results:
        assert result["scores"][0] == 0.25
        assert math.isnan(result["scores"][1])
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["result"] == {"scores": [0.25, None], "count": 1}


def test_other_weights_data_settings_or_names_are_other_work(subject: AuditSubject, tmp_path: Path) -> None:
    work = Work()
    bench = bench_for(subject, tmp_path)
    fewer = dataclasses.replace(subject, forget=ExampleSet("forget", subject.forget.examples[1:]))
    bench.once("work", "target", {"step": 1}, work)
    bench.once("work", "unlearned", {"step": 1}, work)
    bench.once("work", "target", {"step": 2}, work)
    bench.once("other", "target", {"step": 1}, work)
    bench_for(fewer, tmp_path).once("work", "target", {"step": 1}, work)
    assert work.count == 5


def test_answers_that_end_elsewhere_are_other_work(
    subject: AuditSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work()
    bench_for(subject, tmp_path).once("work", "target", {}, work)
    monkeypatch.setattr(unwrap(subject.model), "generation_config", GenerationConfig(eos_token_id=[0, 7]))
    bench_for(subject, tmp_path).once("work", "target", {}, work)
    assert work.count == 2


CUT_SHORT = ["", '{"result"', "[]", '{"identity": {}}', '{"result": [], "sha256": 3}', '{"result": {"count": 1}}']


@pytest.mark.parametrize("content", CUT_SHORT)
def test_a_file_that_was_cut_short_is_done_again(subject: AuditSubject, tmp_path: Path, content: str) -> None:
    work, bench = Work(), bench_for(subject, tmp_path)
    bench.once("work", "target", {}, work)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    assert bench.once("work", "target", {}, work)["count"] == 2
    assert bench.once("work", "target", {}, work)["count"] == 2


@pytest.mark.parametrize("result", [[], {}, None, 7, "scores", {"scores": ["0.25", None], "count": 1}, {"count": 1}])
def test_a_result_of_another_kind_or_with_other_numbers_is_done_again(
    subject: AuditSubject, tmp_path: Path, result: Any
) -> None:
    work, bench = Work(), bench_for(subject, tmp_path)
    first = bench.once("work", "target", {}, work)
    (file,) = tmp_path.iterdir()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"result": result}))
    again = bench.once("work", "target", {}, work)
    assert (work.count, again["scores"][0]) == (2, first["scores"][0])


@pytest.mark.parametrize("cache", ["file", "file/below", "x" * 300])
def test_a_cache_that_cannot_be_written_does_no_harm(subject: AuditSubject, tmp_path: Path, cache: str) -> None:
    (tmp_path / "file").touch()
    work, bench = Work(), bench_for(subject, tmp_path / cache)
    assert [bench.once("work", "target", {}, work)["count"] for _ in range(2)] == [1, 2]


def test_work_that_failed_leaves_nothing(subject: AuditSubject, tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        bench_for(subject, tmp_path).once("work", "target", {}, fail)
    assert not list(tmp_path.iterdir())
