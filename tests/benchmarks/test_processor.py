"""Every way of making a step gives the same loss, but for the rounding of its number format."""

import argparse

import pytest

from benchmarks import processor

OPTIONS = argparse.Namespace(shape="tiny", layers=None, device="cpu", examples=6, seed=0, batch_size=4, rank=4)


def test_the_loss_is_the_same_in_every_way():
    methods = processor.make_methods(OPTIONS, list(processor.WAYS))
    found = {name: method().result for name, method in methods.items()}
    first = found[processor.FIRST]
    for name, loss in found.items():
        exact = processor.WAYS[name].dtype.itemsize == 4
        assert loss == pytest.approx(first, rel=1e-5 if exact else 1e-2), name


def test_the_command_prints_every_way(capsys: pytest.CaptureFixture[str]):
    processor.main(["--shape", "tiny", "--examples", "4", "--batch-size", "2", "--rounds", "1", "--no-peaks"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in processor.WAYS)
