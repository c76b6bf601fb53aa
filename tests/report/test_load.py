from pathlib import Path

import pytest

from tests.report.made_run import make_run
from unlora.artifacts import write_text
from unlora.errors import InputError
from unlora.report.load import read_run


def test_finished_run_is_read_whole(tmp_path: Path):
    files = read_run(make_run(tmp_path / "x"))
    assert files.name == "x"
    assert files.settings["data"]["forget"] == "forget.jsonl"
    assert [line["step"] for line in files.train_log] == list(range(1, 13))
    assert files.answers.keys() == {"target", "unlearned"}
    assert [one["set"] for one in files.answers["target"]] == ["forget", "retain"]  # without the header


def test_run_that_only_began_has_empty_parts(tmp_path: Path):
    run = make_run(tmp_path / "whole")
    begun = tmp_path / "begun"
    write_text(begun / "config.yaml", (run / "config.yaml").read_text())
    files = read_run(begun)
    assert (files.record, files.train_log, files.evaluation, files.answers) == ({}, [], None, {})


def test_last_line_cut_short_by_a_kill_is_dropped(tmp_path: Path):
    run = make_run(tmp_path / "x")
    with (run / "train_log.jsonl").open("a") as file:
        file.write('{"step": 13, "lo')
    assert read_run(run).train_log[-1]["step"] == 12


def test_broken_line_inside_a_file_is_refused_with_its_number(tmp_path: Path):
    run = make_run(tmp_path / "x")
    write_text(run / "train_log.jsonl", '{"step": 1}\n{"step": 2, "lo\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"train_log\.jsonl, line 2: not valid JSON"):
        read_run(run)


def test_folder_without_settings_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"no config\.yaml; not a run folder"):
        read_run(tmp_path)


def test_settings_of_another_command_are_refused(tmp_path: Path):
    write_text(tmp_path / "config.yaml", "model: {name: x}\ndata: [a.jsonl]\n")
    with pytest.raises(InputError, match="not the settings of `unlora unlearn`"):
        read_run(tmp_path)


def test_record_that_is_no_object_is_refused(tmp_path: Path):
    run = make_run(tmp_path / "x")
    write_text(run / "record.json", "[]\n")
    with pytest.raises(InputError, match=r"record\.json: must be a JSON object"):
        read_run(run)
