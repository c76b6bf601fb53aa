"""The folder of one run."""

import errno
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.taught import Taught
from unlora.errors import InputError, UnloraError
from unlora.recipes.unlearn import unlearn
from unlora.run.folder import RunFolder, storage_failures


def test_nothing_is_written_before_the_start(taught: Taught, tmp_path: Path):
    run = RunFolder(tmp_path / "run", taught.settings())
    assert not (tmp_path / "run").exists()
    run.start(model={"fingerprint": "1"})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml", "record.json"]


def test_stages_are_recorded_when_they_are_done(taught: Taught, tmp_path: Path):
    run = RunFolder(tmp_path, taught.settings())
    run.start()
    with run.stage("first"):
        pass
    with pytest.raises(ValueError, match="stop"), run.stage("second"):
        raise ValueError("stop")
    assert list(json.loads(run.record_file.read_text())["stages"]) == ["first"]
    again = RunFolder(tmp_path, taught.settings())
    again.start()
    with again.stage("second"):
        pass
    assert list(json.loads(run.record_file.read_text())["stages"]) == ["first", "second"]
    assert not again.finished


def test_leftovers_of_a_kill_are_removed_and_nothing_else(taught: Taught, tmp_path: Path):
    (tmp_path / ".config.yaml.x1").write_text("half")
    (tmp_path / ".report.html.x3").write_text("half")
    (tmp_path / ".adapter.x2").mkdir()
    (tmp_path / ".adapter.x2" / "adapter_config.json").write_text("{")
    run = RunFolder(tmp_path, taught.settings())
    run.start()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "record.json"]
    (tmp_path / ".notes").write_text("mine")
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / ".target.jsonl.x4").write_text("half")
    RunFolder(tmp_path, taught.settings()).start()
    assert (tmp_path / ".notes").read_text() == "mine"
    assert list((tmp_path / "scores").iterdir()) == []


def test_other_ingredients_are_refused(taught: Taught, tmp_path: Path):
    RunFolder(tmp_path, taught.settings()).start(data={"forget_sha256": "1"})
    RunFolder(tmp_path, taught.settings()).start(data={"forget_sha256": "1"})
    with pytest.raises(InputError, match=r"started with another data \(other hashes in its record.json\)"):
        RunFolder(tmp_path, taught.settings()).start(data={"forget_sha256": "2"})


def test_a_record_with_fewer_keys_is_gone_on_from_where_they_say_nothing_yet(taught: Taught, tmp_path: Path):
    """A later version records more of a model; what it says by default was so before."""
    RunFolder(tmp_path, taught.settings()).start(model={"fingerprint": "1"})
    RunFolder(tmp_path, taught.settings()).start(model={"fingerprint": "1", "quantisation": None})
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["model"] == {"fingerprint": "1", "quantisation": None}


@pytest.mark.parametrize(
    ("version", "model"),
    [
        ("0.0.9", {"fingerprint": "2"}),
        (None, {"fingerprint": "2", "quantisation": None, "more": "x"}),
    ],
)
def test_hashes_of_an_earlier_version_are_not_called_another_model(
    taught: Taught, tmp_path: Path, version: str | None, model: dict[str, str | None]
):
    run = RunFolder(tmp_path, taught.settings())
    run.start(model={"fingerprint": "1"})
    if version is not None:
        run.write_record(versions=run.record["versions"] | {"unlora": version})
    with pytest.raises(InputError, match=r"started by an earlier version of unlora \(0\.\d\.\d\), which hashed in"):
        RunFolder(tmp_path, taught.settings()).start(model=model)


@pytest.mark.parametrize("name", ["evaluation.json", "audit.json", "record.json"])
def test_a_folder_in_the_place_of_a_file_is_refused_before_any_work(taught: Taught, tmp_path: Path, name: str):
    RunFolder(tmp_path, taught.settings()).start()
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=rf"{name}: is a folder, and a file goes there"):
        RunFolder(tmp_path, taught.settings())


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
        RuntimeError("basic_ios::clear: iostream error"),
    ],
)
def test_failed_write_is_one_line_with_the_folder(tmp_path: Path, error: Exception):
    with pytest.raises(UnloraError, match="no space") as raised, storage_failures(tmp_path):
        raise error
    assert str(raised.value).startswith(str(tmp_path))
    assert "start the same command again" in str(raised.value)


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file"), RuntimeError("shapes differ"), ValueError("x")]
)
def test_other_errors_pass(tmp_path: Path, error: Exception):
    with pytest.raises(type(error)) as raised, storage_failures(tmp_path):
        raise error
    assert raised.value is error


def refused_in_a_stage(run: RunFolder) -> None:
    with pytest.raises(InputError), run.stage("first"):
        raise InputError("the model is no good.")


def test_a_run_refused_before_it_made_anything_leaves_no_folder(taught: Taught, tmp_path: Path):
    run = RunFolder(tmp_path / "run", taught.settings())
    run.start(model={"fingerprint": "1"})
    refused_in_a_stage(run)
    assert list(tmp_path.iterdir()) == []
    run = RunFolder(tmp_path / "run", taught.settings(seed=1))
    run.start(model={"fingerprint": "2"})
    with run.stage("first"):
        (run.path / "made").touch()
    refused_in_a_stage(run)
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "made", "record.json"]
    (run.path / "made").unlink()
    again = RunFolder(tmp_path / "run", taught.settings(seed=1))
    again.start(model={"fingerprint": "2"})
    refused_in_a_stage(again)  # It was there before.
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "record.json"]


@pytest.mark.parametrize("initialisation", ["marginal", "contrast_inputs", "plain"])
def test_weights_that_are_not_finite_leave_no_folder(taught: Taught, tmp_path: Path, initialisation: str):
    model = Path(shutil.copytree(taught.target, tmp_path / "model"))
    tensors = load_file(model / "model.safetensors")
    name = next(name for name in tensors if "q_proj" in name)
    save_file(tensors | {name: tensors[name] * float("nan")}, model / "model.safetensors", metadata={"format": "pt"})
    settings = taught.settings(model={"name": str(model)}, start={"kind": initialisation})
    with pytest.raises(InputError, match=r"q_proj.weight holds NaN or infinity"):
        unlearn(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
