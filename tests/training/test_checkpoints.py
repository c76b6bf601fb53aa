"""Which checkpoint may be gone on from, and what becomes of the others."""

import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unlora.training.checkpoints import SEAL, damage, last_complete_checkpoint, remove_damaged_checkpoints, seal

ARCHIVES = ("optimizer.pt", "rng_state.pth", "scheduler.pt")
FILES = ("adapter_config.json", "adapter_model.safetensors", *ARCHIVES)


def checkpoint(folder: Path, step: int) -> Path:
    """As the Trainer leaves one, trainer_state.json last."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"weight": torch.randn(50)}, path / "adapter_model.safetensors")
    for name in ARCHIVES:
        with zipfile.ZipFile(path / name, "w") as archive:  # torch.save's format
            archive.writestr("state", bytes(500))
    (path / "trainer_state.json").write_text('{"global_step": 1}')
    return path


def test_newest_complete_checkpoint_is_taken(tmp_path: Path):
    """trainer_state.json is written last: without it, or with half of it, a checkpoint was cut short."""
    assert last_complete_checkpoint(tmp_path / "none") is None
    paths = [checkpoint(tmp_path, step) for step in (2, 10, 20, 30)]
    assert last_complete_checkpoint(tmp_path) == paths[3]
    (paths[3] / "trainer_state.json").unlink()
    assert last_complete_checkpoint(tmp_path) == paths[2]
    (paths[2] / "trainer_state.json").write_text('{"global_st')
    assert last_complete_checkpoint(tmp_path) == paths[1]
    (paths[1] / "trainer_state.json").write_bytes(b"\xff\xfe\x00")
    assert last_complete_checkpoint(tmp_path) == paths[0]
    assert remove_damaged_checkpoints(tmp_path) == []  # cut short by a kill: removed, and not worth a word
    assert list(tmp_path.iterdir()) == paths[:1]


@pytest.mark.parametrize("how", ["missing", "cut"])
@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_named_and_its_checkpoint_removed(tmp_path: Path, name: str, how: str):
    whole, damaged = checkpoint(tmp_path, 2), checkpoint(tmp_path, 4)
    assert damage(damaged) is None
    file = damaged / name
    if how == "missing":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size // 2)
    found = damage(damaged)
    assert found is not None
    assert found.split(".")[0].rstrip("*") in file.name or found == "*.safetensors"
    assert last_complete_checkpoint(tmp_path) == whole
    assert remove_damaged_checkpoints(tmp_path) == ["checkpoint-4"]
    assert list(tmp_path.iterdir()) == [whole]


def test_pieces_of_zero3_are_looked_into(tmp_path: Path):
    path = checkpoint(tmp_path, 2)
    pieces = path / "global_step2"
    pieces.mkdir()
    (path / "optimizer.pt").rename(pieces / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    assert damage(path) is None
    os.truncate(pieces / "zero_pp_rank_0_mp_rank_00_optim_states.pt", 200)
    assert damage(path) == "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    (pieces / "zero_pp_rank_0_mp_rank_00_optim_states.pt").unlink()
    assert damage(path) == "global_step*/*_optim_states.pt"


@pytest.mark.parametrize("name", [*FILES, "trainer_state.json"])
def test_file_of_another_content_than_was_sealed_is_named(tmp_path: Path, name: str):
    """Valid in itself, as the Trainer cannot tell: another step, other shapes, an archive of something else."""
    path, other = checkpoint(tmp_path, 4), checkpoint(tmp_path / "other", 4)
    save_file({"weight": torch.randn(3, 3)}, other / "adapter_model.safetensors")
    (other / "trainer_state.json").write_text('{"global_step": 2, "log_history": 5}')
    (other / "adapter_config.json").write_text("{}")
    for archive_name in ARCHIVES:
        with zipfile.ZipFile(other / archive_name, "w") as archive:
            archive.writestr("state", bytes(400))
    seal(path)
    assert damage(path) is None
    assert damage(other) is None  # without a seal it cannot be known
    (other / name).replace(path / name)
    assert damage(path) == name
    assert remove_damaged_checkpoints(tmp_path) == ["checkpoint-4"]


def test_seal_of_another_kind_is_damage(tmp_path: Path):
    path = checkpoint(tmp_path, 4)
    (path / SEAL).write_text("[1]")
    assert damage(path) == SEAL
