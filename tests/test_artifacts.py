"""Files are written whole or not at all."""

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from unlora.artifacts import (
    atomic_path,
    file_sha256,
    read_json,
    read_json_lines,
    read_tensors,
    write_json,
    write_tensors,
    write_text,
)
from unlora.errors import InputError, UnloraError

TENSORS = {"a": torch.arange(6, dtype=torch.float32).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


def test_text_is_written_with_its_folders_and_nothing_beside_it(tmp_path: Path):
    file = tmp_path / "new" / "folder" / "text.txt"
    write_text(file, "ü\n")
    assert file.read_bytes() == "ü\n".encode()
    assert list(file.parent.iterdir()) == [file]
    assert file.stat().st_mode & 0o777 == 0o644


def fail_after(_written: int) -> None:
    """Fail once something was written."""
    raise ZeroDivisionError


def test_failure_leaves_the_old_content_and_no_temporary_file(tmp_path: Path):
    file = tmp_path / "text.txt"
    write_text(file, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(file) as temporary:
        fail_after(temporary.write_text("half of the new"))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("text.txt", "old")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    def fsync(_file: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UnloraError, match="no space left on the disk; free some and start the same command") as caught:
        write_json(tmp_path / "record.json", {})
    assert caught.value.exit_code == 1
    assert not list(tmp_path.iterdir())


def test_folder_that_is_a_file_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnloraError, match="cannot be written"):
        write_text(tmp_path / "file" / "text.txt", "x")


def test_json_is_strict(tmp_path: Path):
    write_json(tmp_path / "a.json", {"name": "Åse", "value": 0.1})
    assert read_json(tmp_path / "a.json") == {"name": "Åse", "value": 0.1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"value": float("nan")})
    assert not (tmp_path / "b.json").exists()


def test_bad_json_is_refused_with_its_line(tmp_path: Path):
    (tmp_path / "a.json").write_text('{\n"a": 1,\n}')
    with pytest.raises(InputError, match=r"a\.json, line 3: not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"b\.json: cannot be read \(No such file or directory\)"):
        read_json(tmp_path / "b.json")
    (tmp_path / "c.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InputError, match=r"c\.json: not UTF-8 text"):
        read_json(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("text", "reason"), [("[" * 100_000, "nested too deep"), ("1" * 5000, "thousands of digits")], ids=["deep", "long"]
)
def test_json_that_no_one_means_is_refused(tmp_path: Path, text: str, reason: str):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=rf"a\.json: not JSON that can be read .*{reason}"):
        read_json(tmp_path / "a.json")
    (tmp_path / "b.jsonl").write_text('{}\n{"a": ' + text + "}\n")
    with pytest.raises(InputError, match=rf"b\.jsonl, line 2: not JSON that can be read .*{reason}"):
        read_json_lines(tmp_path / "b.jsonl")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_a_number_that_is_not_finite_is_refused_where_it_stands(tmp_path: Path, number: str):
    """It would get as far as the next file that is written, which is strict."""
    (tmp_path / "a.json").write_text(f'{{"seed": {number}}}')
    with pytest.raises(InputError, match=rf"a\.json: {number} is no number of JSON; write a finite one, or null\.$"):
        read_json(tmp_path / "a.json")
    (tmp_path / "b.jsonl").write_text(f'{{}}\n{{"seed": {number}}}\n')
    with pytest.raises(InputError, match=rf"b\.jsonl, line 2: {number} is no number"):
        read_json_lines(tmp_path / "b.jsonl")
    assert not math.isfinite(read_json(tmp_path / "a.json", finite=False)["seed"])


def test_tensors_and_metadata_come_back_as_they_were(tmp_path: Path):
    file = tmp_path / "map.safetensors"
    write_tensors(file, {**TENSORS, "view": TENSORS["a"].T}, {"schema": 1, "names": ["ü"]})
    tensors, metadata = read_tensors(file)
    assert metadata == {"schema": 1, "names": ["ü"]}
    assert torch.equal(tensors["view"], TENSORS["a"].T)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert list(tmp_path.iterdir()) == [file]


def test_equal_tensors_make_equal_files(tmp_path: Path):
    for name in ("a", "b"):
        write_tensors(tmp_path / name, TENSORS, {"schema": 1})
    assert file_sha256(tmp_path / "a") == file_sha256(tmp_path / "b")


def test_other_files_are_refused(tmp_path: Path):
    write_tensors(tmp_path / "whole", TENSORS, {})
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-3])
    (tmp_path / "text").write_text(json.dumps({"a": 1}))
    save_file(TENSORS, tmp_path / "foreign")
    for name, message in {
        "none": "no such file",
        "": "is a folder; give a file",
        "cut": "not a complete safetensors file",
        "text": "not a complete safetensors file",
        "foreign": "not one that unlora wrote",
    }.items():
        with pytest.raises(InputError, match=message):
            read_tensors(tmp_path / name)
