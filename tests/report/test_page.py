import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.report.made_run import (
    FINGERPRINT,
    FORGET_SHA256,
    answer,
    made_evaluation,
    made_further,
    made_record,
    make_run,
    write_scores,
    write_settings,
)
from unlora.artifacts import read_json, write_json
from unlora.cli.main import main
from unlora.errors import InputError
from unlora.report import write_report
from unlora.report.page import checks, duration, objective_text

VOID = {"meta", "line", "polyline", "circle"}
LOADS = {"src", "srcset", "href", "data", "action", "poster", "background"}


class Page(HTMLParser):
    """Checks that tags are balanced while it collects the text, the tags and their attributes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.tags, self.attributes, self._open = "", set[str](), set[str](), list[str]()
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text += data


def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def text(run: Path) -> str:
    return " ".join(Page(page(run)).text.split())


def test_page_says_what_the_importance_is_worth(tmp_path: Path):
    run = make_run(tmp_path / "x")
    shown = text(run)
    for part in (
        "decided by the second moment of full weights over 40 forget examples and 64 retain examples, in 14 linear",
        "row weights are nearly uniform <in> 1 of 14 modules",
        "1 = stable, 0 = chance 0.83 0.79 0.50",
        "what the variance leaves out 0.047 unknown –",
        "0.013",
        "the highest: block 1 1.50, 0 0.50; mlp.down_proj 1.25, mlp.up_proj 0.75.",
    ):
        assert part in shown
    for other in ({}, {"importance": {"module_count": 14}}):  # No map, or the record of another measurement.
        record = made_record()
        del record["importance"]
        write_json(run / "record.json", record | other)
        assert "Where the adapter starts was decided" not in text(run)


def test_page_says_what_happened(tmp_path: Path):
    shown = text(make_run(tmp_path / "x"))
    for part in (
        "fell from 0.985 to 0.115; a model that never saw it has 0.094.",
        "Unlearned forget.jsonl",
        "Target model models/target",
        "ihl on the forget set + 1.3 × nll on the retain set",
        "It is no proof of deletion.",
        "relearning from a few examples, quantisation of the weights and other attacks were not audited",
        "0.115 ± 0.012",
        "needs real_authors: model_utility",
        "no output of the model differed by more than 8.9e-05",
        "1,234,567 logits",
        "forget question 0?",
        "3 min 03 s",
        "3.00 GiB",
        "learning_rate: 0.0005",
    ):
        assert part in shown
    assert "This run is not finished" not in shown


def test_page_says_what_was_not_measured(tmp_path: Path):
    run = make_run(tmp_path / "run")
    evaluation = made_evaluation() | {"notes": ["forget: 3 of 40 examples were cut at 512 tokens <b>"]}
    write_json(run / "evaluation.json", evaluation)
    assert "<li>forget: 3 of 40 examples were cut at 512 tokens &lt;b&gt;.</li>" in write_report(run).read_text(
        encoding="utf-8"
    )


def test_page_shows_what_further_suites_measured(tmp_path: Path):
    run = make_run(tmp_path / "run")
    further = made_further()
    further["muse:news"]["notes"] = ["MUSE's constants stand in"]
    write_json(run / "evaluation.json", made_evaluation() | {"others": further})
    shown = text(run)
    assert "tofu Metric Better target unlearned retain-only" in shown
    assert "muse:news Metric Better target unlearned retain-only" in shown
    assert "↓ lower 0.700 ± 0.012 0.310 ± 0.012 0.290 ± 0.012 40" in shown
    assert "needs a <holdout>: privacy_leakage" in shown
    assert "muse:news: MUSE's constants stand in." in shown
    assert "tofu Metric" not in text(make_run(tmp_path / "alone"))


def test_page_needs_nothing_from_elsewhere(tmp_path: Path):
    source = page(make_run(tmp_path / "x"))
    parsed = Page(source)
    assert not parsed.tags & {"script", "link", "img", "iframe", "object", "embed", "form"}
    assert not parsed.attributes & LOADS
    assert not [name for name in parsed.attributes if name.startswith("on")]
    assert "url(" not in source
    assert "@import" not in source
    assert "//" not in re.sub(r"<pre>.*?</pre>", "", source, flags=re.DOTALL)


def test_hashes_are_short_and_whole_on_hover(tmp_path: Path):
    source = page(make_run(tmp_path / "x"))
    for whole in (FINGERPRINT, FORGET_SHA256):
        assert f'title="{whole}">{whole[:12]}…<' in source


def test_text_of_the_data_and_the_model_is_escaped(tmp_path: Path):
    attack = "</dd><script>alert('x')</script><img src=x onerror=alert(1)> {{ 7 * 7 }}"
    run = make_run(tmp_path / "<b>run")
    write_settings(run, data={"forget": f'"{attack}', "retain": "</pre><script>"})
    asked = answer(0, "forget", recall=0.5, generated=attack) | {"question": attack, "answer": attack}
    for role in ("target", "unlearned", "retain_only"):
        write_scores(run, role, [asked])
    record = made_record()
    record["versions"]["unlora"] = record["model"]["fingerprint"] = '"><script>'
    write_json(run / "record.json", record)
    source = page(run)
    parsed = Page(source)
    assert not parsed.tags & {"script", "img", "b>run"}
    assert "<script" not in source
    assert parsed.text.count(attack) >= 5
    assert html.escape("<b>run") in source


def test_skipped_evaluation_is_said(tmp_path: Path):
    run = make_run(tmp_path / "x")
    write_settings(run, evaluation={"skip": True})
    (run / "evaluation.json").unlink()
    for file in (run / "scores").iterdir():
        file.unlink()
    assert text(run).count("Evaluation was skipped (evaluation.skip is true)") == 3


def test_run_without_retain_only_model_says_so(tmp_path: Path):
    shown = text(make_run(tmp_path / "x", retain_only=False))
    assert "none was given: what a model that never saw the forget set would answer was not measured" in shown
    assert "There is no retain-only model in this run" in shown
    assert "a model that never saw it has" not in shown


def test_run_that_only_began_is_shown_as_such(tmp_path: Path):
    write_settings(tmp_path)
    shown = text(tmp_path)
    for part in (
        "This run is not finished",
        "The run has not been evaluated yet",
        "There is no training log yet.",
        "No stage is finished yet.",
        "not recorded yet",
    ):
        assert part in shown
    assert shown.count("– not made") == 2


@pytest.mark.parametrize(
    "missing", ["initialisation", "objective", "model", "data", "stages", "checks", "versions", "finished"]
)
def test_page_is_made_from_a_record_that_is_not_complete(tmp_path: Path, missing: str):
    run = make_run(tmp_path / "x")
    record = read_json(run / "record.json")
    del record[missing]
    write_json(run / "record.json", record)
    assert "Unlearning report" in text(run)


def test_run_without_retain_set_draws_no_retain_term(tmp_path: Path):
    run = make_run(tmp_path / "x")
    write_settings(run, data={"forget": "forget.jsonl"}, objective={"forget": "npo", "retain": None})
    objective = {"forget": "npo", "beta": 0.1, "retain": None}
    write_json(run / "record.json", made_record() | {"objective": objective})
    shown = text(run)
    assert "no retain set was given" in shown
    assert "npo (beta 0.1) on the forget set, no retain term" in shown
    assert "Retain term" not in shown


def test_same_files_give_the_same_page(tmp_path: Path):
    run = make_run(tmp_path / "x")
    assert page(run) == page(run)


def test_checks_tell_passed_failed_and_not_made():
    moved = {"largest_difference": 0.5, "tolerance": 1e-4, "logit_count": 10}
    assert [check.passed for check in checks({})] == [None, None]
    assert [check.passed for check in checks({"output_at_step_0": moved})] == [False, None]
    exact = checks({"output_at_step_0": moved | {"largest_difference": 0.0}, "base_weights_unchanged": False})
    assert [check.passed for check in exact] == [True, False]
    assert "bit for bit" in exact[0].text


@pytest.mark.parametrize(
    ("seconds", "shown"), [(3.495, "3.5 s"), (59.99, "1 min 00 s"), (270.3, "4 min 30 s"), (7500.0, "2 h 05 min")]
)
def test_duration_reads_well(seconds: float, shown: str):
    assert duration(seconds) == shown


def test_objective_without_a_record_is_said():
    assert objective_text({}) == "not recorded yet"


def test_command_writes_the_page(tmp_path: Path):
    run = make_run(tmp_path / "x")
    result = CliRunner().invoke(main, ["report", str(run)])
    assert (result.exit_code, result.output) == (0, f"written: {run / 'report.html'}\n")
    assert (run / "report.html").is_file()


def test_folder_that_is_no_run_is_refused_and_left_alone(tmp_path: Path):
    with pytest.raises(InputError, match="not a run folder"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


STRANGE = {
    "record.json": [
        {"initialisation": None}, {"data": 5}, {"stages": {"training": None}}, {"checks": {"output_at_step_0": "x"}},
    ],
    "evaluation.json": [{"notes": 5}],
}  # fmt: skip


@pytest.mark.parametrize(("name", "changes"), [(name, one) for name, changes in STRANGE.items() for one in changes])
def test_file_that_holds_another_kind_of_value_is_named(tmp_path: Path, name: str, changes: dict[str, Any]):
    run = make_run(tmp_path / "run")
    content = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps(content | changes))
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(run / name))}: not ((a run's record|an evaluation) )?as unlora writes it"
    ):
        write_report(run)
