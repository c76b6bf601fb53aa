"""What is ZeRO-3's own: which weights it cuts, pieces that fit one number of processes, steps nobody can look into."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from tests.distributed.ranks import run_ranks
from tests.distributed.test_runs import ZERO3, assert_same, command, needs_deepspeed, results, said, unlora
from tests.recipes.processes import run
from tests.taught import Taught, build_taught
from unlora import processes
from unlora.errors import InputError
from unlora.run.job import Run
from unlora.run.settings import TrainingSettings
from unlora.run.training import refuse_other_engine
from unlora.training.callbacks import read_train_log


def say_what_is_cut() -> None:
    """After training, print how many weights this process has no whole copy of."""
    from unlora.recipes import unlearn

    train = unlearn.train

    def counting(run: Run, settings: TrainingSettings, model: PeftModel, *further: Any) -> None:
        train(run, settings, model, *further)
        sizes = [parameter.numel() for parameter in model.parameters()]
        sys.stdout.write(f"cut: {sizes.count(0)} of {len(sizes)}\n")

    unlearn.train = counting


@needs_deepspeed
def test_weights_that_are_not_small_are_cut_and_the_result_is_that_of_whole_ones(tmp_path: Path):
    """DeepSpeed leaves tensors of up to 100,000 entries whole, which is all of the other tests' model."""
    wide = build_taught(tmp_path, hidden=320)
    main, other = run_ranks(2, unlora, command(wide, tmp_path / "zero3"), say_what_is_cut, **ZERO3)
    assert (main.code, other.code) == (0, 0), main.text + other.text
    # Query, output, gate, up and down of both blocks, embedding and head; neither key, value, norms nor the adapter.
    assert "cut: 12 of 49" in main.text
    assert said(other) == []
    for ended in run_ranks(2, unlora, command(wide, tmp_path / "ddp")):
        assert ended.code == 0, ended.text
    assert_same(results(tmp_path / "zero3"), results(tmp_path / "ddp"))


def cut_all() -> None:
    """Take a file of DeepSpeed's own, and say what is cut by it."""
    del processes.ENGINE_SETTINGS["zero3"]["ACCELERATE_DEEPSPEED_CONFIG_FILE"]
    say_what_is_cut()


@needs_deepspeed
def test_with_every_weight_cut_a_run_is_that_of_one_process(taught: Taught, tmp_path: Path):
    zero = {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True, "stage3_param_persistence_threshold": 0}
    automatic = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    (tmp_path / "zero.json").write_text(json.dumps({"zero_optimization": zero, **dict.fromkeys(automatic, "auto")}))
    file = {"ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "zero.json")}
    main, other = run_ranks(2, unlora, command(taught, tmp_path / "zero3"), cut_all, **ZERO3, **file)
    assert (main.code, other.code) == (0, 0), main.text + other.text
    assert "cut: 49 of 49" in main.text
    code, text = run(command(taught, tmp_path / "alone"))
    assert code == 0, text
    assert_same(results(tmp_path / "zero3"), results(tmp_path / "alone"))


@needs_deepspeed
def test_alone_it_changes_nothing(taught: Taught, tmp_path: Path):
    (one,) = run_ranks(1, unlora, command(taught, tmp_path / "zero3"), **ZERO3)
    assert one.code == 0, one.text
    code, text = run(command(taught, tmp_path / "alone"))
    assert code == 0, text
    assert_same(results(tmp_path / "zero3"), results(tmp_path / "alone"))


def make_gradients_infinite() -> None:
    """Leave the loss as it is."""
    from unlora.training import UnlearnTrainer

    compute = UnlearnTrainer.compute_loss

    def steep(self: UnlearnTrainer, *arguments: Any, **options: Any) -> torch.Tensor:
        loss = compute(self, *arguments, **options)
        return loss + (loss - loss.detach()).abs().sqrt()

    UnlearnTrainer.compute_loss = steep


@needs_deepspeed
def test_a_gradient_that_is_not_finite_ends_the_run(taught: Taught, tmp_path: Path):
    main, _ = run_ranks(2, unlora, command(taught, tmp_path / "run"), make_gradients_infinite, **ZERO3)
    assert main.code == 1
    assert "error: step 1: the gradient is not finite; training stopped" in main.text
    assert read_train_log(tmp_path / "run" / "train_log.jsonl") == []
    assert not (tmp_path / "run" / "adapter").exists()


def test_pieces_fit_one_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    checkpoint = tmp_path / "checkpoint-2"
    (checkpoint / "global_step2").mkdir(parents=True)
    for rank in range(2):
        (checkpoint / "global_step2" / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
    monkeypatch.setattr(processes, "count", lambda: 2)
    refuse_other_engine(checkpoint)
    monkeypatch.setattr(processes, "count", lambda: 3)
    with pytest.raises(InputError, match="was written in 2 pieces by zero3; start the same command in as many"):
        refuse_other_engine(checkpoint)
