"""A pipe in place of a file is refused at once: nobody may ever write into it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import save_tiny
from unlora.artifacts import read_json, read_json_lines
from unlora.config import read_yaml
from unlora.data.json_lines import read_data_text
from unlora.errors import InputError
from unlora.models.load import load_model


@pytest.mark.parametrize("read", [read_json, read_json_lines, read_yaml, read_data_text])
def test_pipe_is_refused(read: Callable[[Path], Any], tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: is a pipe or a device, not a file"):
        read(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["model.safetensors", "generation_config.json", "tokenizer.json"])
def test_pipe_in_a_model_folder_is_refused(name: str, tmp_path: Path):
    folder = save_tiny(tmp_path)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=f"{name}: is a pipe or a device"):
        load_model(str(folder), device=torch.device("cpu"))
