"""Which number format `auto` takes, by processor, files and the environment."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.listening import Listening
from tests.taught import Taught
from tests.tiny import build_tiny_model
from unlora.run import number_format as subject
from unlora.run.input_settings import ModelSettings
from unlora.run.loading import load_target
from unlora.run.number_format import multiplies_bfloat16_fast, number_format

CPU = torch.device("cpu")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "multiplies_bfloat16_fast", lambda: True)


def saved(folder: Path, dtype: torch.dtype) -> str:
    model = build_tiny_model("llama")
    model.to(dtype=dtype)
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.usefixtures("fast")
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


def clock(monkeypatch: pytest.MonkeyPatch, seconds: dict[torch.dtype, float]) -> None:
    """A processor whose products take so long."""
    now = [0.0]

    def multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        now[0] += seconds[left.dtype]
        return torch.empty(0)

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(torch, "mm", multiply)
    monkeypatch.setattr(subject.time, "perf_counter", lambda: now[0])


@pytest.fixture
def untimed() -> Iterator[None]:
    """No measured speed of this processor before, and none of a made-up one after."""
    subject._speedup.cache_clear()
    yield
    subject._speedup.cache_clear()


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(("bfloat16", "fast"), [(1.0, True), (2.0, False), (4.0, False), (12.0, False)])
def test_a_processor_is_fast_by_what_it_does(monkeypatch: pytest.MonkeyPatch, bfloat16: float, *, fast: bool):
    clock(monkeypatch, {torch.float32: 2.9, torch.bfloat16: bfloat16})
    assert multiplies_bfloat16_fast() == fast


@pytest.mark.usefixtures("untimed")
def test_without_the_instructions_nothing_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock(monkeypatch, {torch.float32: 2.9, torch.bfloat16: 0.1})
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    settings = ModelSettings.from_mapping({"name": saved(tmp_path / "model", torch.bfloat16)})
    assert number_format(settings, CPU) == torch.float32


@pytest.mark.parametrize(
    ("has", "wanted", "said"),
    [
        ({"architecture": "x86_64"}, "bfloat16", "bfloat16, for which this processor has no instr"),
        ({"architecture": "x86_64", "avx512_bf16": True}, "float16", "float16, for which this processor has no instr"),
        ({"architecture": "x86_64", "avx512_bf16": True}, "bfloat16", None),
        ({"architecture": "x86_64"}, "float32", None),
        ({"architecture": "x86_64"}, "auto", None),
        ({"architecture": "aarch64"}, "bfloat16", None),  # nothing is known of it
    ],
)
def test_a_format_without_instructions_is_said(
    taught: Taught, monkeypatch: pytest.MonkeyPatch, has: dict[str, object], wanted: str, said: str | None
):
    """Its products, those of the backward pass most, are emulated (findings/torch-bfloat16-backward.sh)."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    settings = {"name": str(taught.target), "dtype": wanted, "device": "cpu"}
    listening = Listening()
    load_target(ModelSettings.from_mapping(settings), listening)
    lines = [line for line in listening.said if line.startswith("Number format")]
    assert len(lines) == (said is not None)
    assert all(line.startswith(f"Number format: {said}") for line in lines)


def test_the_library_that_is_kept_from_the_instructions_is_slow():
    """Another process asks, since oneDNN reads its limit once; torch names the instructions all the same."""
    asked = "from unlora.run.number_format import multiplies_bfloat16_fast as fast; print(fast())"
    limited = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    done = subprocess.run([sys.executable, "-c", asked], env=limited, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
