"""Devices, number formats, seeds, and what a stage costs."""

import json
import platform
import random
import subprocess
import sys
import time

import numpy
import pytest
import torch

from unlora.errors import InputError
from unlora.runtime import Stopwatch, peak_memory_bytes, resolve_device, resolve_dtype, seed_everything, versions

CPU = torch.device("cpu")


def test_auto_takes_the_accelerator_where_there_is_one():
    assert resolve_device("auto").type == (torch.accelerator.current_accelerator() or CPU).type
    assert resolve_device("cpu") == CPU


def test_unknown_device_is_refused():
    with pytest.raises(InputError, match="device 'gpu': not a device; use auto, cpu or cuda"):
        resolve_device("gpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:3", "mps"])
def test_absent_device_is_refused(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setattr("unlora.runtime._accelerated", lambda: False)
    assert resolve_device("auto") == CPU
    with pytest.raises(InputError, match=f"device '{name}': this machine has no accelerator"):
        resolve_device(name)


def test_dtype_follows_the_device_unless_named():
    assert resolve_dtype("auto", CPU) is torch.float32
    assert resolve_dtype("auto", torch.device("cuda")) is torch.bfloat16
    assert resolve_dtype("bfloat16", CPU) is torch.bfloat16


def draw() -> tuple[float, float, float]:
    return random.random(), float(numpy.random.rand()), float(torch.rand(()))  # noqa: NPY002  the one that was seeded


def test_seed_fixes_all_three_generators():
    with torch.random.fork_rng(devices=[]):
        seed_everything(3)
        first = draw()
        seed_everything(3)
        assert draw() == first
        seed_everything(4)
        assert not set(draw()) & set(first)


def test_versions_are_recorded_in_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unlora.runtime.PACKAGES", ("torch", "no-such-package"))
    found = versions()
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert found["no-such-package"] == "not installed"
    json.dumps(found)


def test_stopwatch_counts_each_stage_in_order():
    stopwatch = Stopwatch()
    with stopwatch.stage("first"):
        time.sleep(0.02)
    with stopwatch.stage("second"):
        pass
    assert list(stopwatch.stages) == ["first", "second"]
    assert 0.02 <= stopwatch.stages["first"]["seconds"] < 5
    assert stopwatch.stages["second"]["seconds"] < 0.02
    assert stopwatch.stages["second"]["peak_memory_bytes"] >= stopwatch.stages["first"]["peak_memory_bytes"] > 0


def test_stage_that_failed_is_not_counted():
    stopwatch = Stopwatch()
    with pytest.raises(ZeroDivisionError), stopwatch.stage("broken"):
        raise ZeroDivisionError
    assert stopwatch.stages == {}


def test_peak_memory_is_in_bytes():
    assert 20e6 < peak_memory_bytes() < 1e13


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_kept_for_the_next_step():
    """Page faults of allocating 64 MiB again and again: thousands each time before, next to none afterwards."""
    code = (
        "import resource, torch\n"
        "from unlora.runtime import keep_freed_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(8): torch.zeros(2**24).add_(1)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "torch.zeros(1); before = faults(); keep_freed_memory(); faults(); print(before, faults())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 20 * max(after, 1)
