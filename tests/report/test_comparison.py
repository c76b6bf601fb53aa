"""Several runs in one page."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import error_line, unlora
from tests.report.made_run import made_evaluation, made_further, made_record, make_run, write_settings
from tests.report.test_audit_page import made_audit
from tests.report.test_page import LOADS, Page
from unlora.artifacts import write_json
from unlora.errors import InputError
from unlora.report import write_comparison


def two_runs(folder: Path) -> list[Path]:
    """One audited, one with another learning rate and another result."""
    first, second = make_run(folder / "first"), make_run(folder / "second", retain_only=False)
    write_json(first / "audit" / "audit.json", made_audit())
    write_settings(second, training={"learning_rate": 1e-3}, start={"kind": "plain"})
    evaluation = made_evaluation()
    del evaluation["models"]["retain_only"]
    evaluation["models"]["unlearned"]["metrics"]["forget_probability"]["value"] = 0.222
    write_json(second / "evaluation.json", evaluation)
    source = {"kind": "number", "name": "0.1", "base": None}
    level = {"level": {"source": source, "probability": 0.1, "low": 0.1, "high": 0.1}, "as_trained": 0.3,
             "as_left": 0.222, "strength": 1.5}  # fmt: skip
    write_json(second / "record.json", made_record() | {"level": level})
    return [first, second]


def source(runs: list[Path], folder: Path) -> str:
    return write_comparison(runs, folder / "page.html").read_text(encoding="utf-8")


def text(runs: list[Path], folder: Path) -> str:
    return " ".join(Page(source(runs, folder)).text.split())


def test_rows_say_what_each_run_forgot_and_kept(tmp_path: Path):
    shown = text(two_runs(tmp_path), tmp_path)
    for part in (
        "first marginal; ihl on the forget set + 1.3 × nll on the retain set 0.985 ± 0.012 0.115 ± 0.012 "
        "retain-only 0.094 ± 0.012 0.959",
        "second plain; ihl on the forget set + 1.3 × nll on the retain set 0.985 ± 0.012 0.222 ± 0.012 "
        "aimed at 0.100 0.959 not audited",
        "relearning fails, membership not tested",
        "training.learning_rate 0.0005 0.001",
        "start.kind marginal plain",
        "evaluation.retain_only models/retain_only none",
    ):
        assert part in shown
    assert "Not the same task" not in shown
    assert "model.name" not in shown


def test_recovery_curves_of_all_runs_share_their_axes(tmp_path: Path):
    runs = two_runs(tmp_path)
    audit = made_audit()
    audit["attacks"]["relearning"]["curves"][0] |= {"x": [0.0, 6.0, 12.0], "y": [0.0, 0.1, 0.2]}
    write_json(runs[1] / "audit" / "audit.json", audit)
    page = source(runs, tmp_path)
    few = page[page.index("relearning: few") :].split("</svg>")[0]
    lines = [one.split('"')[0] for one in few.split('<polyline points="')[1:]]
    assert len(lines) == 2  # a step of the one run is no gap of the other
    ends = [[float(point.split(",")[1]) for point in line.split()] for line in lines]
    assert ends[0][0] == ends[1][0]  # nothing is back at first
    assert ends[0][-1] < ends[1][-1]  # 0.43 stands higher than 0.2
    assert "control" not in few


def test_runs_of_other_tasks_are_said_to_be(tmp_path: Path):
    runs = two_runs(tmp_path)
    record = made_record()
    record["data"]["forget_sha256"] = "00" * 32
    record["model"]["fingerprint"] = "11" * 32
    write_json(runs[1] / "record.json", record)
    assert "These runs differ in target model, forget set: their numbers say little" in text(runs, tmp_path)


@pytest.mark.parametrize("changed", [{"template": {"template": "chat"}}, {"answer_tag": "completion"}])
def test_runs_that_were_asked_otherwise_are_said_to_be(tmp_path: Path, changed: dict[str, Any]):
    """A forget probability under one template says nothing about that under another."""
    runs = two_runs(tmp_path)
    for run, protocol in zip(runs, ({"template": {"template": "plain"}}, changed), strict=True):
        evaluation = json.loads((run / "evaluation.json").read_text())
        shown = {"batch_size": len(runs), "max_new_tokens": len(run.name)}  # of no weight
        write_json(run / "evaluation.json", evaluation | {"protocol": protocol | shown})
    assert "These runs differ in how they were asked: their numbers say little" in text(runs, tmp_path)


def test_runs_that_were_asked_alike_are_not_called_different(tmp_path: Path):
    assert "These runs differ" not in text(two_runs(tmp_path), tmp_path)


def with_further(runs: list[Path], others: list[dict[str, Any] | None]) -> list[Path]:
    for run, further in zip(runs, others, strict=True):
        if further is not None:
            evaluation = json.loads((run / "evaluation.json").read_text())
            write_json(run / "evaluation.json", evaluation | {"others": further})
            write_settings(run, evaluation={"suites": ["tofu", *(f"{name}@data/{run.name}" for name in further)]})
    return runs


def test_what_further_suites_measured_stands_side_by_side(tmp_path: Path):
    other = made_further()
    other["muse:news"]["models"]["unlearned"]["metrics"]["verbatim_memorisation"]["value"] = 0.5
    other["muse:news"]["protocol"]["batch_size"] = 1  # of no weight
    del other["muse:news"]["models"]["retain_only"]
    one = made_further()
    for name, further in (("mine", one), ("a copy", other)):
        further["muse:news"]["protocol"]["sets"] = {"verbatim": {"name": name, "sha256": "aa"}}
    shown = text(with_further(two_runs(tmp_path), [one, other]), tmp_path)
    assert (
        "verbatim memorisation verbatim_memorisation ↓ lower 0.310 ± 0.012 before 0.700 retain-only 0.290 "
        "0.500 ± 0.012 before 0.700"
    ) in shown
    assert "needs a <holdout>: privacy_leakage" in shown
    assert "Not asked alike" not in shown
    assert "Not the same task" not in shown
    assert shown.index(" tofu Metric") < shown.index(" muse:news Metric")
    assert "Answer probability forget_probability of the true answer" in shown  # the first suite's metrics too


def test_a_suite_that_one_run_asked_alone_leaves_the_others_comparable(tmp_path: Path):
    runs = with_further(two_runs(tmp_path), [made_further(), None])
    for run, data in zip(runs, ({"forget": "aa", "muse:news: verbatim": "bb"}, {"forget": "aa"}), strict=True):
        write_json(run / "record.json", made_record() | {"evaluation_data": data})
    shown = text(runs, tmp_path)
    assert "↓ lower 0.310 ± 0.012 before 0.700 retain-only 0.290 – " in shown
    assert "Not the same task" not in shown
    write_json(runs[1] / "record.json", made_record() | {"evaluation_data": {"forget": "cc"}})
    assert "These runs differ in evaluation sets: their numbers say little" in text(runs, tmp_path)


def test_suites_that_were_asked_otherwise_are_said_to_be(tmp_path: Path):
    other = made_further()
    other["muse:news"]["protocol"] |= {"corpus": "books", "sets": {"verbatim": {"sha256": "bb"}}, "max_examples": 5}
    shown = text(with_further(two_runs(tmp_path), [made_further(), other]), tmp_path)
    assert "Not asked alike in these runs: corpus, sets, max_examples." in shown


def test_a_run_whose_first_suite_is_another_one_is_compared_in_what_both_asked(tmp_path: Path):
    """MUSE alone in one run, beside TOFU in the other."""
    first, second = with_further(two_runs(tmp_path), [made_further(), None])
    write_json(second / "evaluation.json", made_further()["muse:news"])
    write_settings(second, evaluation={"suites": [{"name": "muse:news@elsewhere", "batch_size": 4}]})
    shown = text([first, second], tmp_path)
    assert shown.count("verbatim memorisation") == 1
    assert "0.310 ± 0.012 before 0.700 retain-only 0.290 0.310 ± 0.012 before 0.700 retain-only 0.290" in shown
    assert "These runs differ in suite" in shown


def test_damaged_figures_of_a_further_suite_are_named(tmp_path: Path):
    damaged = made_further()
    damaged["muse:news"]["models"]["unlearned"]["metrics"]["verbatim_memorisation"]["value"] = "0.3"
    runs = with_further(two_runs(tmp_path), [None, damaged])
    with pytest.raises(InputError, match=r"second/evaluation\.json: not an evaluation.*others\.muse:news\.models"):
        write_comparison(runs, tmp_path / "page.html")


def test_logs_of_openunlearning_are_rows_beside_runs(tmp_path: Path):
    """Its own log beside a run whose evaluation wrote one in its form, and one that did not."""
    runs = two_runs(tmp_path)
    log = {"forget_Q_A_Prob": {"agg_value": 0.12, "value_by_index": {"0": {"prob": 0.12}}}, "mia": {"agg_value": None}}
    for role, value in (("target", 0.98), ("unlearned", 0.21), ("retain_only", 0.1)):
        write_json(runs[0] / "open_unlearning" / role / "TOFU_EVAL.json", {"forget_Q_A_Prob": {"agg_value": value}})
    peer = tmp_path / "their-npo" / "evals" / "TOFU_EVAL.json"
    write_json(peer, log)
    write_json(tmp_path / "their-ga" / "TOFU_SUMMARY.json", {"forget_Q_A_Prob": 0.07, "privleak": -30.5})
    page = tmp_path / "page.html"
    result = unlora("report", *runs, peer, tmp_path / "their-ga" / "TOFU_SUMMARY.json", "--output", page)
    assert result.exit_code == 0, result.output
    shown = " ".join(Page(page.read_text(encoding="utf-8")).text.split())
    for part in (
        "their-npo a log of OpenUnlearning – – – – not audited",
        "TOFU as OpenUnlearning logs it Metric Better first second their-npo their-ga",
        "forget_Q_A_Prob – 0.210 before 0.980 retain-only 0.100 – 0.120 0.070",
        "privleak – – – – -30.500",
        "the log has no value: mia",
        "training.learning_rate 0.0005 0.001 – –",
    ):
        assert part in shown, part
    assert "model.name" not in shown
    assert "Not the same task" not in shown


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "holds no metrics"),
        ('{"forget_quality": "x"}', "forget_quality: must be a number, found 'x'"),
        ("{", ""),
    ],
)
def test_a_log_that_is_none_is_named(tmp_path: Path, content: str, said: str):
    first, _ = two_runs(tmp_path)
    log = tmp_path / "MUSE_EVAL.json"
    log.write_text(content)
    with pytest.raises(InputError, match=f"^{re.escape(str(log))}.*{said}"):
        write_comparison([first, log], tmp_path / "page.html")
    assert error_line(unlora("report", log)) == f"error: {log}: is a file, and a folder is read."


def test_unfinished_runs_are_shown_as_far_as_they_are(tmp_path: Path):
    write_settings(tmp_path / "begun")
    shown = text([tmp_path / "begun", make_run(tmp_path / "x", retain_only=False)], tmp_path)
    assert "begun marginal; not recorded yet – – – – not audited" in shown
    assert "None of these runs has an audit with curves" in shown
    assert "Not the same task" not in shown  # what is not recorded yet is no difference


def test_page_needs_nothing_from_elsewhere_and_escapes(tmp_path: Path):
    runs = [*two_runs(tmp_path), make_run(tmp_path / "<script>x"), make_run(tmp_path / "other" / "first")]
    page = source(runs, tmp_path)
    parsed = Page(page)
    assert not parsed.tags & {"script", "link", "img", "iframe", "object", "embed", "form"}
    assert not parsed.attributes & LOADS
    assert "url(" not in page
    assert "first (1)" in page
    assert "first (2)" in page


def test_same_run_twice_or_too_many_are_refused(tmp_path: Path):
    first, second = two_runs(tmp_path)
    with pytest.raises(InputError, match="is named twice"):
        write_comparison([first, second, tmp_path / "second" / ".." / "first"], tmp_path / "page.html")
    with pytest.raises(InputError, match="one page shows 8 at most"):
        write_comparison([first] * 9, tmp_path / "page.html")
    with pytest.raises(InputError, match="not a run folder"):
        write_comparison([first, tmp_path], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("other", ["first/record.json", "forget.jsonl", "second"])
def test_a_file_that_is_no_page_is_not_written_over(tmp_path: Path, other: str):
    runs, data = two_runs(tmp_path), tmp_path / "forget.jsonl"
    data.write_text('{"text": "mine"}\n')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    line = error_line(unlora("report", *runs, "--output", tmp_path / other))
    assert line == f"error: {tmp_path / other}: exists already and is no page of unlora; choose another --output."
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    page = write_comparison(runs, tmp_path / "page.html")
    assert write_comparison(runs, page) == page


def test_run_whose_files_cannot_be_shown_is_named(tmp_path: Path):
    first, second = two_runs(tmp_path)
    write_json(second / "record.json", made_record() | {"objective": {"forget": "ihl"}})
    with pytest.raises(InputError, match=f"^{re.escape(str(second))}: holds a file that is not as unlora writes it"):
        write_comparison([first, second], tmp_path / "page.html")


def test_command(tmp_path: Path):
    first, second = two_runs(tmp_path)
    page = tmp_path / "page.html"
    result = unlora("report", first, second, "--output", page)
    assert (result.exit_code, result.stdout) == (0, f"written: {page}\n")
    assert unlora("report", first, second).stderr.splitlines()[-1].startswith("Error: Missing option '--output'")
    assert unlora("report", first, "--output", page).exit_code == 2
    (second / "evaluation.json").write_text("{}")
    assert "evaluation.json" in error_line(unlora("report", first, second, "--output", page))
