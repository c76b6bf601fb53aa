"""Saving: the same model comes back, and a failure leaves nothing."""

import errno
from pathlib import Path

import pytest
import torch

from tests.tiny import ARCHITECTURES, Architecture, build_tiny_model, build_tiny_tokenizer, save_tiny
from unlora.errors import InputError, UnloraError
from unlora.models.fingerprint import fingerprint
from unlora.models.load import load_model
from unlora.models.save import new_folder, save_model


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_saved_model_comes_back(arch: Architecture, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    tokenizer = build_tiny_tokenizer(chat=True)
    model = build_tiny_model(arch, vocab_size=len(tokenizer)).bfloat16()
    save_model(model, tokenizer, tmp_path / "a" / "model")
    result = load_model(str(tmp_path / "a" / "model"), dtype=torch.bfloat16, device=torch.device("cpu"))
    assert fingerprint(result.model) == fingerprint(model)
    assert result.tokenizer.chat_template == tokenizer.chat_template
    assert result.tokenizer("Mira?")["input_ids"] == tokenizer("Mira?")["input_ids"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["model"]
    assert capfd.readouterr() == ("", "")


def test_folder_that_holds_something_is_refused(tmp_path: Path):
    folder = save_tiny(tmp_path / "model")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(InputError, match="exists already"):
        save_model(build_tiny_model("llama"), build_tiny_tokenizer(), folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    tokenizer = build_tiny_tokenizer()
    monkeypatch.setattr(tokenizer, "save_pretrained", fail)
    with pytest.raises(UnloraError, match="no space left"):
        save_model(build_tiny_model("llama"), tokenizer, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_appears_meanwhile_is_kept(tmp_path: Path):
    def race() -> None:
        with new_folder(tmp_path / "model") as temporary:
            (temporary / "mine").touch()
            (tmp_path / "model").mkdir()
            (tmp_path / "model" / "theirs").touch()

    with pytest.raises(InputError, match="exists already"):
        race()
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UnloraError, match="cannot be written"):
        save_model(build_tiny_model("llama"), build_tiny_tokenizer(), tmp_path / "file" / "model")


def test_link_to_an_empty_folder_is_filled_where_it_points(tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    with new_folder(tmp_path / "out") as temporary:
        (temporary / "x").write_text("y")
    assert (tmp_path / "out").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["x"]
