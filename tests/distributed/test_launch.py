"""The real launcher: named configurations, one line for what goes wrong, and a killed process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

from tests.cli.commands import unlora
from tests.distributed.ranks import run_ranks
from tests.distributed.test_runs import FSDP2, ZERO3, command, said
from tests.distributed.test_runs import unlora as unlora_rank
from tests.recipes.processes import run, wait_for
from tests.taught import Taught
from unlora import processes
from unlora.errors import InputError
from unlora.run.training import refuse_engine
from unlora.training.callbacks import read_train_log
from unlora.training.checkpoints import last_complete_checkpoint

KILLED_PROCESS = 1


@contextmanager
def launched(arguments: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """`unlora ARGUMENTS` as a user would start it; whatever it started ends with the block."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "unlora", *arguments]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        family = psutil.Process(process.pid)
        try:
            yield process
        finally:
            for one in [*family.children(recursive=True), family] if family.is_running() else ():
                one.kill()


def error_lines(text: str) -> list[str]:
    assert "Traceback" not in text
    return [line for line in text.splitlines() if "rror" in line]


def rank_process(launcher: int, rank: int) -> psutil.Process:
    """The process of a rank among those that the launcher started."""
    children = psutil.Process(launcher).children(recursive=True)
    (found,) = [one for one in children if one.environ().get("RANK") == str(rank)]
    return found


def test_killed_process_ends_all_with_one_line_and_the_run_goes_on_in_one(taught: Taught, tmp_path: Path):
    folder, log = tmp_path / "run", tmp_path / "run" / "train_log.jsonl"
    arguments = command(taught, folder, "--set", "training.epochs=30", "--set", "evaluation.skip=true")
    with launched([*arguments, "--accelerate-config", "ddp", "--num-processes", "2"]) as process:
        wait_for(lambda: log.is_file() and log.read_text().count("\n") >= 4, lambda: process.poll() is None)
        rank_process(process.pid, KILLED_PROCESS).kill()
        _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error_lines(text) == [
        "error: process 1 of 2 was ended by SIGKILL, and the others with it; the same command goes on where it stopped."
    ]
    checkpoint = last_complete_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    assert json.loads((folder / "record.json").read_text())["finished"] is False

    code, text = run(arguments)
    assert code == 0, text
    whole = command(taught, tmp_path / "whole", "--set", "training.epochs=30", "--set", "evaluation.skip=true")
    code, text = run(whole)
    assert code == 0, text
    found, expected = (read_train_log(tmp_path / name / "train_log.jsonl") for name in ("run", "whole"))
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in expected], rel=1e-3, abs=1e-4)


def test_bad_input_is_said_once_by_the_real_launcher(taught: Taught, tmp_path: Path):
    arguments = command(taught, tmp_path / "run", "--set", "start.kind=reglu")
    with launched([*arguments, "--accelerate_config", "fsdp2", "--num_processes", "2"]) as process:
        output, text = process.communicate(timeout=120)
    assert process.returncode == 2, text
    (line,) = error_lines(text)
    assert line.startswith("error: start 'reglu': its penalty reads whole factors")
    assert output == ""
    assert not (tmp_path / "run").exists()


def test_every_process_refuses_bad_input_and_the_first_one_says_it(taught: Taught, tmp_path: Path):
    main, other = run_ranks(2, unlora_rank, command(taught, tmp_path / "run", "--set", "adapter.rank=500"))
    assert main.code == 2
    assert "adapter.rank: 500 does not fit target module" in said(main)[-1]
    assert said(other) == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "zero_stage is 2 and must be 3; see zero3.yaml"),
        (ZERO3 | {"ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "false"}, "zero3_save_16bit_model is false"),
        (ZERO3 | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "mine.json"}, "deepspeed_config_file is mine.json"),
        (FSDP2 | {"FSDP_VERSION": "1"}, "fsdp_version is 1 and must be 2"),
        (FSDP2 | {"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "fsdp_cpu_ram_efficient_loading is true"),
    ],
)
def test_an_engine_that_would_give_other_results_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
):
    for name, value in ({"WORLD_SIZE": "2"} | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        processes.join(torch.device("cpu"))


def test_one_device_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="device 'cuda:0': several processes cannot share it; use cuda"):
        processes.join(torch.device("cuda:0"))


def test_eight_bits_are_refused_where_their_layers_could_not_read_them(taught: Taught, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match=r"model\.quantisation '8bit': fsdp2 makes plain parameters"):
        refuse_engine(taught.settings(model={"quantisation": "8bit"}).model)


def test_other_commands_run_in_one_process():
    main, other = run_ranks(2, unlora_rank, ["audit", "--model", "x"])
    assert main.code == 2
    assert "audit: runs in one process" in main.text
    assert other.text == ""


def test_unknown_configuration_names_the_known_ones(taught: Taught, tmp_path: Path):
    result = unlora(*command(taught, tmp_path / "run"), "--accelerate-config", "elsewhere")
    assert result.exit_code == 2
    assert "elsewhere: neither a known name nor a file" in result.stderr
    assert "ddp, fsdp2, zero3" in result.stderr


def test_zero3_without_deepspeed_says_what_to_install(taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unlora.cli.launch.find_spec", lambda name: None)
    result = unlora(*command(taught, tmp_path / "run"), "--accelerate-config", "zero3", "--num-processes", "2")
    assert result.exit_code == 2
    assert "zero3: needs DeepSpeed; pip install 'unlora[deepspeed]'" in result.stderr


def test_a_number_of_processes_alone_starts_nothing(taught: Taught, tmp_path: Path):
    result = unlora(*command(taught, tmp_path / "run"), "--num-processes", "2")
    assert result.exit_code == 2
    assert "--num-processes goes with --accelerate-config" in result.stderr
