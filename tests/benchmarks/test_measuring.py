"""What the benchmarks share: ratios, peaks, what is written, what is refused."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import psutil
import pytest
import torch

from benchmarks import extraction, growth, hotspots, initialisation, measuring, step
from benchmarks.measuring import Timed
from unlora.artifacts import read_json
from unlora.errors import InputError, UnloraError

TINY = ["--shape", "tiny", "--device", "cpu"]
SMALL = [*TINY, "--examples", "5", "--rounds", "1"]


def test_methods_have_their_turn_in_every_round_and_the_first_is_not_timed():
    turns: list[str] = []
    script = {"plain": iter([9.0, 1.0, 2.0, 4.0]), "ours": iter([9.0, 3.0, 2.0, 4.0])}

    def method(name: str) -> Timed:
        turns.append(name)
        return Timed(next(script[name]), f"{name} {len(turns)}")

    seconds, first = measuring.in_turn({name: lambda name=name: method(name) for name in script}, rounds=3)
    assert turns == ["plain", "ours"] * 4
    assert first == {"plain": "plain 1", "ours": "ours 2"}
    compared = measuring.compare(seconds["ours"], seconds["plain"], times=10)
    assert compared == {"seconds": 30.0, "ratio": 10.0, "ratio_spread": [10.0, 30.0]}


def test_peak_counts_what_is_held_at_a_time():
    held = torch.zeros(1000)

    def work() -> float:
        first = torch.zeros(1_000_000)
        second = torch.zeros(500_000)
        del first
        third = torch.zeros(250_000)
        return float(held.sum() + second[0] + third[0])

    peak = measuring.allocated_peak(work, torch.device("cpu"))
    assert 6_000_000 <= peak < 6_001_000  # first and second; small results are allowed for


@pytest.mark.parametrize(
    ("module", "argv"),
    [
        (extraction, [*SMALL, "--no-peaks", "--methods", "marginal", "contrast_inputs", "fila", "released-vila"]),
        (step, [*SMALL, "--no-peaks"]),
        (initialisation, [*SMALL, "--exact"]),
        (hotspots, ["extraction", *SMALL]),
        (growth, ["--axes", "rank", "--points", "2", "--rounds", "1", "--works", "vila", "--device", "cpu"]),
    ],
    ids=["extraction", "step", "initialisation", "hotspots", "growth"],
)
def test_json_says_what_was_printed(
    module: ModuleType, argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "figures.json"
    argv = [*argv, "--json", str(file)]
    module.main(argv)
    printed = capsys.readouterr().out.splitlines()
    written = read_json(file)
    assert module.lines(written) == printed
    assert shlex.split(written["command"])[3:] == argv
    assert written["machine"]["cores"] >= 1
    assert written["versions"]["torch"] == torch.__version__


def refusal(main, argv: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["benchmark", *argv])
    with pytest.raises(SystemExit) as stopped:
        measuring.run(main)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("main", "argv", "said"),
    [
        (extraction.main, ["--shape", "huge"], "invalid choice: 'huge'"),
        (extraction.main, [*TINY, "--rounds", "0"], "must be at least 1, found 0"),
        (extraction.main, [*TINY, "--methods", "fischer"], "'fischer' is none of marginal, vila"),
        (extraction.main, [*TINY, "--layers", "3", "--no-peaks"], "--layers 3: tiny has 2."),
        (step.main, [*TINY, "--examples", "2", "--no-peaks"], "--batch-size 4: there are 2 examples."),
        (hotspots.main, ["step", *TINY, "--method", "marginal"], "'marginal' is none of plain, npo cached"),
        (growth.main, ["--axes", "height"], "invalid choice: 'height'"),
    ],
)
def test_bad_input_is_one_line(main, argv: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys):
    assert said in refusal(main, argv, monkeypatch, capsys)


def test_peak_is_that_of_a_process_of_its_own():
    peak = measuring.peak_of("extraction", SMALL, "plain")
    assert 100e6 < peak < psutil.virtual_memory().total  # the libraries alone take the former


@pytest.mark.parametrize(("code", "error"), [(2, InputError), (1, UnloraError)])
def test_what_stops_that_process_is_said_once(code: int, error: type[UnloraError], monkeypatch: pytest.MonkeyPatch):
    ended = subprocess.CompletedProcess([], code, stdout="", stderr="a library's warning\nerror: too large\n")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_options: ended)
    with pytest.raises(UnloraError, match=r"^plain: too large$") as raised:
        measuring.peak_of("extraction", SMALL, "plain")
    assert type(raised.value) is error
