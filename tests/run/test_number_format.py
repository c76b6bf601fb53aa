"""Which number format `auto` takes, by processor, files and the environment."""

from pathlib import Path

import pytest
import torch

from tests.tiny import build_tiny_model
from unlora.run import number_format as subject
from unlora.run.input_settings import ModelSettings
from unlora.run.number_format import multiplies_bfloat16_fast, number_format

CPU = torch.device("cpu")


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    for name in subject.LIMITS:
        monkeypatch.delenv(name, raising=False)


def saved(folder: Path, dtype: torch.dtype) -> str:
    model = build_tiny_model("llama")
    model.to(dtype=dtype)
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.usefixtures("amx")
@pytest.mark.parametrize(
    ("held", "wanted", "found"),
    [
        (torch.bfloat16, "auto", torch.bfloat16),
        (torch.bfloat16, "float32", torch.float32),
        (torch.float32, "auto", torch.float32),  # what is held in float32 is not rounded unasked
        (torch.float16, "auto", torch.float32),
        (torch.float32, "bfloat16", torch.bfloat16),
    ],
)
def test_format_by_files(tmp_path: Path, held: torch.dtype, wanted: str, found: torch.dtype):
    settings = ModelSettings.from_mapping({"name": saved(tmp_path / "model", held), "dtype": wanted})
    assert number_format(settings, CPU) == found


@pytest.mark.usefixtures("amx")
@pytest.mark.parametrize(
    ("limit", "fast"),
    [("AVX512_CORE_BF16", False), ("AVX512_CORE_AMX", True), ("default", True), ("", True), ("AVX2", False)],
)
@pytest.mark.parametrize("name", subject.LIMITS)
def test_environment_that_rules_amx_out_is_heard(monkeypatch: pytest.MonkeyPatch, name: str, limit: str, *, fast: bool):
    monkeypatch.setenv(name, limit)
    assert multiplies_bfloat16_fast() == fast


def test_processor_without_amx_stays_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    settings = ModelSettings.from_mapping({"name": saved(tmp_path / "model", torch.bfloat16)})
    assert number_format(settings, CPU) == torch.float32
