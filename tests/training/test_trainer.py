"""UnlearnTrainer: what it minimises, logs, refuses, and when it stops."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from peft import PeftModel
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from tests.taught import PAD, Taught
from tests.training.runs import adapter_tensors, anchored, pairs, train, trainer_for
from unlora.data.forget_retain import ForgetRetainPairs
from unlora.data.tokenise import TokenisedExample
from unlora.errors import InputError, TrainingDivergedError
from unlora.losses import ForgetInputs, ForgetTerm, Objective
from unlora.models.score import score_completions
from unlora.shapes import PerExample
from unlora.training import UnlearnTrainer, training_arguments
from unlora.training.callbacks import read_train_log
from unlora.training.checkpoints import last_complete_checkpoint

CONTRACT = ("step", "loss", "forget_term", "retain_term", "grad_norm", "seconds")


def probabilities(model, taught: Taught) -> tuple[float, float]:
    """Mean probability of the answers to forget and of those to retain."""
    means = []
    for file in (taught.forget, taught.retain):
        sequences = [(example.input_ids, example.prompt_length) for example in taught.tokens(file)]
        scores = score_completions(model, sequences, pad_token_id=PAD)
        means.append(sum(score.probability for score in scores) / len(scores))
    return means[0], means[1]


@pytest.mark.parametrize(
    ("objective", "learning_rate"),
    [
        (Objective("ihl", retain_weight=1.3), 1e-2),
        (Objective("npo", retain_weight=10.0), 5e-3),
        (Objective("gd", retain_weight=4.0), 5e-3),
    ],
    ids=["ihl", "npo", "gd"],
)
def test_forget_probability_falls_and_retain_stays(
    taught: Taught, tmp_path: Path, objective: Objective, learning_rate: float
):
    model = anchored(taught)
    before = probabilities(model, taught)
    train(model, pairs(taught, epochs=20), tmp_path, objective, learning_rate=learning_rate)
    forget, retain = probabilities(model, taught)
    assert before[0] > 0.95
    assert before[1] > 0.95
    assert forget < 0.4
    assert retain > 0.9
    with model.disable_adapter():
        assert probabilities(model, taught) == pytest.approx(before)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_log_has_the_contracts_keys_and_its_parts_add_up(taught: Taught, tmp_path: Path, accumulation: int):
    objective = Objective("npo", retain_weight=0.7)
    lines = train(
        anchored(taught), pairs(taught, epochs=3), tmp_path, objective,
        batch_size=4 // accumulation, gradient_accumulation_steps=accumulation,
    )  # fmt: skip
    assert [line["step"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert set(CONTRACT) <= set(line)
        assert line["loss"] == pytest.approx(line["forget_term"] + 0.7 * line["retain_term"], rel=1e-5)
        assert line["grad_norm"] > 0
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)
    # Before any step the model is its own reference: -(2/beta) log(1/2).
    assert lines[0]["forget_term"] == pytest.approx(20 * torch.log(torch.tensor(2.0)).item(), abs=1e-4)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_sees_how_probable_its_forget_examples_were(taught: Taught, tmp_path: Path, accumulation: int):
    """All four of them, scored by themselves before each step."""
    model = anchored(taught)
    trainer = trainer_for(
        model, pairs(taught, epochs=3), tmp_path, batch_size=4 // accumulation, gradient_accumulation_steps=accumulation
    )
    expected, seen = [probabilities(model, taught)[0]], []

    class Compare(TrainerCallback):
        def on_step_end(self, *_args: object, **_options: object) -> None:
            seen.append(trainer.seen)
            expected.append(probabilities(model, taught)[0])

    trainer.add_callback(Compare())
    trainer.train()
    assert seen == pytest.approx(expected[:3], rel=1e-4)
    assert seen[2] < seen[0]


@pytest.mark.parametrize(
    ("objective", "batch_size", "sees"),
    [
        (Objective("idk"), 4, True),
        (Objective("ihl", forget_strength=0.5), 4, True),
        (Objective("ihl"), 2, True),
        (Objective("ihl"), 4, False),
    ],
)
def test_what_a_step_does_not_read_as_it_is_or_too_little_of_is_not_seen(
    taught: Taught, tmp_path: Path, objective: Objective, batch_size: int, sees: bool
):
    trainer = trainer_for(anchored(taught), pairs(taught, epochs=1), tmp_path, objective, batch_size=batch_size)
    trainer.sees = sees
    seen = []

    class Look(TrainerCallback):
        def on_step_end(self, *_args: object, **_options: object) -> None:
            seen.append(trainer.seen)

    trainer.add_callback(Look())
    trainer.train()
    assert seen == [None] * (4 // batch_size)


def test_without_a_retain_term_the_loss_is_the_forget_term(taught: Taught, tmp_path: Path):
    lines = train(anchored(taught), pairs(taught, retain=False), tmp_path, Objective("npo", retain=None))
    assert [line["loss"] for line in lines] == pytest.approx([line["forget_term"] for line in lines])
    assert [line["retain_term"] for line in lines] == [0.0, 0.0]


@pytest.mark.parametrize("prompts", [False, True])
def test_the_divergence_is_that_of_a_plain_loop_over_the_tokens(taught: Taught, tmp_path: Path, prompts: bool):
    stream = pairs(taught, epochs=2)
    objective = Objective("ihl", retain="kl", retain_parameters={"prompts": prompts})
    model, expected = anchored(taught), []

    class Before(TrainerCallback):
        def on_step_begin(self, args, state, *_args: object, **_options: object) -> None:
            kept = [stream[4 * state.global_step + place]["retain"] for place in range(4)]
            expected.append(sum(divergence(model, one, prompts) for one in kept if one is not None) / 4)

    trainer = trainer_for(model, stream, tmp_path, objective, learning_rate=3e-2, warmup_steps=0)
    trainer.add_callback(Before())
    trainer.train()
    logged = [line["retain_term"] for line in read_train_log(tmp_path / "train_log.jsonl")]
    assert expected[1] > 1e-3
    assert logged == pytest.approx(expected, rel=1e-4, abs=1e-6)


@torch.no_grad()
def divergence(model: PeftModel, example: TokenisedExample, prompts: bool) -> float:
    ids = torch.tensor([example.input_ids])
    now = model(input_ids=ids).logits[0].double().softmax(-1)
    with model.disable_adapter():
        before = model(input_ids=ids).logits[0].double().softmax(-1)
    first = 0 if prompts else example.prompt_length - 1
    each = [float((p * (p / q).log()).sum()) for p, q in zip(before[first:-1], now[first:-1], strict=True)]
    return sum(each) / len(each)


def test_weight_decay_and_a_missing_retain_set_are_refused(taught: Taught, tmp_path: Path):
    model, stream = anchored(taught), pairs(taught)
    arguments = trainer_for(model, stream, tmp_path).args
    arguments.weight_decay = 0.01
    with pytest.raises(InputError, match=r"weight_decay 0\.01: must be 0"):
        UnlearnTrainer(model, arguments, objective=Objective("ihl"), train_dataset=stream, pad_token_id=PAD)
    with pytest.raises(InputError, match="a retain term, but there is no retain set"):
        trainer_for(model, pairs(taught, retain=False), tmp_path)


def test_missing_refusals_and_a_missing_block_are_refused(taught: Taught, tmp_path: Path):
    model, stream = anchored(taught), pairs(taught)
    bare = ForgetRetainPairs(stream.forget, stream.retain, epochs=1, seed=0)
    for name in ("dpo", "idk"):
        with pytest.raises(InputError, match=f"'{name}' reads refusals; give one for each forget example"):
            trainer_for(model, bare, tmp_path, Objective(name))
    for objective in (
        Objective("rmu", forget_parameters={"block": 2}),
        Objective("ga", retain="rmu", retain_parameters={"block": 2}),
    ):
        with pytest.raises(InputError, match="block 2: the model has 2 blocks, 0 to 1"):
            trainer_for(model, stream, tmp_path, objective)


@dataclass(frozen=True)
class Failing(ForgetTerm):
    """Fine for some steps; then the loss, or only its gradient, is undefined."""

    name: ClassVar[str] = "failing"
    kind: str = "loss"
    calls: ClassVar[list[int]] = []

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        self.calls.append(1)
        mean = inputs.predictions.mean_log_probs()
        if len(self.calls) < 4:
            return mean
        if self.kind == "loss":
            return mean / 0
        return mean + (mean - mean.detach()).clamp(min=0).sqrt()  # sqrt at 0: value 0, gradient infinite


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_undefined_loss_or_gradient_stops_with_advice_and_a_sound_checkpoint(taught: Taught, tmp_path: Path, kind: str):
    """A finite loss can have an undefined gradient: the step must not be taken, or a checkpoint would keep it."""
    Failing.calls.clear()
    model = anchored(taught)
    objective = Objective(Failing(kind=kind), retain=None)
    with pytest.raises(TrainingDivergedError) as raised:
        train(model, pairs(taught, epochs=6, retain=False), tmp_path, objective, save_steps=1)
    message = str(raised.value)
    assert message.startswith("step 4: the loss is -inf;" if kind == "loss" else "step 4: the gradient is not finite;")
    assert "the learning rate (0.005) is too high" in message
    assert "\n" not in message
    assert all(bool(torch.isfinite(value).all()) for value in adapter_tensors(model).values())
    checkpoint = last_complete_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-3"
    trainer = trainer_for(anchored(taught), pairs(taught, epochs=6, retain=False), tmp_path, Objective("npo", None))
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert [json.loads(line)["step"] for line in (tmp_path / "train_log.jsonl").read_text().splitlines()] == [
        1, 2, 3, 4, 5, 6,
    ]  # fmt: skip


def test_huge_learning_rate_stops_with_advice(taught: Taught, tmp_path: Path):
    with pytest.raises(TrainingDivergedError, match=r"the learning rate \(1e\+25\) is too high"):
        train(anchored(taught), pairs(taught, epochs=4), tmp_path, learning_rate=1e25)


def test_arguments_read_the_stream_in_order_and_leave_the_anchor_alone(tmp_path: Path):
    arguments = training_arguments(
        tmp_path, learning_rate=1e-3, batch_size=3, gradient_accumulation_steps=2, warmup_steps=4, max_grad_norm=0.5,
        gradient_checkpointing=True, save_steps=None, seed=5, use_cpu=True,
    )  # fmt: skip
    assert arguments.weight_decay == 0
    assert arguments.num_train_epochs == 1
    assert str(arguments.train_sampling_strategy) == "sequential"
    assert arguments.save_strategy == SaveStrategy.NO
    assert arguments.report_to == []
    assert arguments.seed == 5
