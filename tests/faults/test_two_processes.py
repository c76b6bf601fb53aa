"""Two processes in one folder: the second is refused at once, the first loses nothing, and reading goes on."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.cli.commands import error_line, unlora
from tests.faults.test_kills import command, contents
from tests.recipes.processes import Running, run, wait_for
from tests.research.test_engine import STUDY, Squares
from tests.taught import Taught
from unlora.locks import alone_in
from unlora_research.study import run_study

COMMANDS = {
    "unlearn": ("--model", "M", "--forget", "F", "--retain", "R"),
    "sequence": ("--model", "M", "--forget", "F", "--retain", "R"),
    "importance": ("--model", "M", "--forget", "F", "--retain", "R"),
    "finetune": ("--model", "M", "--data", "F"),
    "evaluate": ("--model", "M", "--forget", "F"),
    "evaluate muse": ("--model", "M", "--suite", "muse:news@F"),
    "evaluate wmdp": ("--model", "M", "--suite", "wmdp@F"),
    "audit": ("M",),
    "export": ("M", "--adapter"),
    "export merged": ("M", "--merged"),
    "study": ("sigma", "--quick"),
    "demo": (),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_writes_a_folder_is_refused(taught: Taught, tmp_path: Path, name: str):
    known = {"M": str(taught.target), "F": str(taught.forget), "R": str(taught.retain)}
    words = [known.get(word, word.replace("@F", f"@{taught.forget}")) for word in COMMANDS[name]]
    output = tmp_path / "out"
    with alone_in(output):
        line = error_line(unlora(name.split()[0], *words, "--output", output))
    advice = "works here; wait for it or choose another --output."
    assert line == f"error: {output}: another process (PID {os.getpid()}) {advice}"
    assert list(tmp_path.iterdir()) == []


def test_second_run_is_refused_and_the_first_comes_out_whole(taught: Taught, tmp_path: Path):
    folder = tmp_path / "run"
    first = Running(command(taught, folder))
    first.wait_for(lambda: (folder / "record.json").is_file())
    start = time.monotonic()
    code, text = run(command(taught, folder))
    assert code == 2
    assert re.fullmatch(rf"error: {folder}: another process \(PID \d+\) works here; .*\n", text)
    assert time.monotonic() - start < 5
    code, text = first.finish()
    assert code == 0, text
    alone = tmp_path / "alone"
    os.environ["UNLORA_CACHE"] = str(tmp_path / "cache")
    assert run(command(taught, alone))[0] == 0
    assert contents(folder) == contents(alone)
    shutil.rmtree(tmp_path / "cache")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "run"]


def test_a_run_is_reported_while_it_works(taught: Taught, tmp_path: Path):
    folder = tmp_path / "run"
    first = Running(command(taught, folder))
    first.wait_for(lambda: (folder / "train_log.jsonl").is_file())
    code, text = run(["report", str(folder)])
    assert (code, text) == (0, f"written: {folder / 'report.html'}\n")
    assert first.finish()[0] == 0


def test_processes_of_a_killed_study_end_with_it_and_the_same_command_goes_on(tmp_path: Path):
    code = (
        "from pathlib import Path; from tests.research.test_engine import *; "
        f"run_study(STUDY, Squares(numbers=(1, 2, 3, 4), pause=1.5), Path({str(tmp_path / 'out')!r}), jobs=2)"
    )
    study = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    wait_for(lambda: len(list(tmp_path.glob("out/cells/*/runs.txt"))) == 2, lambda: study.poll() is None)
    locks = list(tmp_path.glob("out/cells/.unlora-*.lock"))
    workers = [int(lock.read_text().split()[0]) for lock in locks]
    assert len(workers) == 2
    study.send_signal(signal.SIGKILL)
    study.wait()
    run_study(STUDY, Squares(numbers=(1, 2, 3, 4), pause=1.5), tmp_path / "out")
    assert not any(psutil.pid_exists(worker) for worker in workers)
    assert len(list(tmp_path.glob("out/cells/*/cell.json"))) == 4
    assert not list(tmp_path.rglob("*.lock"))
