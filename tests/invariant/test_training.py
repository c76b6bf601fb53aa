"""What must not change a run: how batches are cut, memory tricks, a second forward pass, a second run."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.taught import PAD, Taught
from tests.training.runs import adapter_tensors, anchored, largest_difference, logits, pairs, train, trainer_for
from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.losses import Objective, Predictions
from unlora.training.parts import ForgetRetainCollator, Part, read_parts
from unlora.training.reference import Reference

OBJECTIVES = [
    Objective("ihl", retain_weight=1.3),
    Objective("npo", retain_weight=1.3),  # cached log-probabilities of the reference
    Objective("dpo", retain="kl", retain_weight=1.3),  # refusals; the reference's predictions of the retain part
    Objective("idk", retain="rmu", retain_weight=1.3),  # refusals alone; hidden states of the reference
    Objective("undial", retain=None),  # the reference's predictions of the forget part
    Objective("rmu", retain="rmu", retain_weight=1.3),  # hidden states
]
NAMES = ["ihl", "npo", "dpo-kl", "idk-rmu", "undial", "rmu-rmu"]
ALL_PARTS: tuple[Part, ...] = ("forget", "retain", "refusal")


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Frobenius norm of the difference of two adapters."""
    return sum(float((first[name] - second[name]).square().sum()) for name in first) ** 0.5


@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_accumulation_equals_one_large_batch(taught: Taught, tmp_path: Path, objective: Objective):
    """The last step holds 4 of 8 examples: means over examples leave nothing to weigh.

    AdamW turns the rounding of a gradient near zero into a whole step, so adapters are compared as a whole.
    """
    start = adapter_tensors(anchored(taught))
    runs = []
    for batch_size, accumulation in ((8, 1), (1, 8)):
        model, folder = anchored(taught), tmp_path / str(batch_size)
        options = {"batch_size": batch_size, "gradient_accumulation_steps": accumulation, "learning_rate": 2e-3}
        runs.append((train(model, pairs(taught, epochs=5), folder, objective, **options), adapter_tensors(model)))
    moved = distance(runs[0][1], start)
    for lines, tensors in runs[1:]:
        assert len(lines) == 3
        for key in ("loss", "forget_term", "retain_term", "grad_norm"):
            assert [line[key] for line in lines] == pytest.approx([line[key] for line in runs[0][0]], rel=1e-3), key
        assert distance(tensors, runs[0][1]) < 0.005 * moved


@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_same_seed_gives_the_same_bits_and_another_seed_does_not(taught: Taught, tmp_path: Path, objective: Objective):
    adapters = []
    for run, seed in enumerate((0, 0, 1)):
        model = anchored(taught)
        train(model, pairs(taught, epochs=2, seed=seed), tmp_path / str(run), objective, seed=seed, batch_size=2)
        adapters.append(adapter_tensors(model))
    assert largest_difference(adapters[0], adapters[1]) == 0
    assert largest_difference(adapters[0], adapters[2]) > 0


@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_gradient_checkpointing_changes_nothing(taught: Taught, tmp_path: Path, objective: Objective):
    runs = []
    for checkpointing in (False, True):
        model = anchored(taught)
        lines = train(
            model, pairs(taught, epochs=3), tmp_path / str(checkpointing), objective,
            gradient_checkpointing=checkpointing,
        )  # fmt: skip
        assert model.is_gradient_checkpointing is checkpointing
        runs.append(([line["loss"] for line in lines], adapter_tensors(model)))
    assert runs[1][0] == pytest.approx(runs[0][0], rel=1e-5)
    assert largest_difference(runs[0][1], runs[1][1]) < 1e-5


@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_resumed_training_gives_the_same_bits(taught: Taught, tmp_path: Path, objective: Objective):
    """The reference is computed again, with an adapter that has moved; that must not show."""
    whole = anchored(taught)
    train(whole, pairs(taught, epochs=4), tmp_path, objective, save_steps=2)
    resumed = anchored(taught)
    trainer = trainer_for(resumed, pairs(taught, epochs=4), tmp_path / "resumed", objective)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-2"))
    assert trainer.state.global_step == 4
    assert largest_difference(adapter_tensors(whole), adapter_tensors(resumed)) == 0


@pytest.mark.parametrize("parts", [ALL_PARTS, ("forget", "retain"), ("refusal", "retain")])
def test_one_forward_over_all_parts_equals_one_for_each(taught: Taught, parts: tuple[Part, ...]):
    """Padding of the longer parts and the examples beside them reach neither an example's logits nor its states."""
    model = anchored(taught).eval()
    stream = pairs(taught)
    items = [stream[index] for index in range(4)]
    together = read_parts(model, ForgetRetainCollator(PAD, parts)(items), parts, parts, dict.fromkeys(parts, 0))
    for part in parts:
        alone = collate([example for item in items if (example := item[part]) is not None], PAD)
        expected = Predictions.from_model_output(logits(model, alone), alone["labels"])
        found = together[part]
        torch.testing.assert_close(
            found.predictions.sequence_log_probs(), expected.sequence_log_probs(), atol=1e-4, rtol=1e-5
        )
        torch.testing.assert_close(
            found.predictions.scored_log_softmax(), expected.scored_log_softmax(), atol=1e-4, rtol=1e-5
        )
        separate = read_parts(model, alone, [part], [part], {part: 0})[part].hidden_states
        assert separate is not None
        torch.testing.assert_close(found.hidden_states, separate, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("wanted", [("retain",), ("forget", "refusal")])
def test_reading_some_parts_equals_reading_all(taught: Taught, wanted: tuple[Part, ...]):
    model = anchored(taught).eval()
    stream = pairs(taught)
    batch = ForgetRetainCollator(PAD, ALL_PARTS)([stream[index] for index in range(3)])
    every = read_parts(model, batch, ALL_PARTS, ALL_PARTS, dict.fromkeys(ALL_PARTS, 1))
    some = read_parts(model, batch, ALL_PARTS, wanted, dict.fromkeys(wanted, 1))
    assert tuple(some) == wanted
    for part in wanted:
        torch.testing.assert_close(
            some[part].predictions.scored_log_softmax(),
            every[part].predictions.scored_log_softmax(),
            atol=1e-4,
            rtol=1e-5,
        )
        torch.testing.assert_close(some[part].hidden_states, every[part].hidden_states, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_reference_is_the_target_and_is_computed_once(
    taught: Taught, tmp_path: Path, batch_size: int, monkeypatch: pytest.MonkeyPatch
):
    """Adapters off, whatever the adapter has become; one pass over answers and refusals in the whole run."""
    model, stream = anchored(taught), pairs(taught, epochs=3)
    trainer = trainer_for(model, stream, tmp_path, Objective("dpo"), batch_size=batch_size)
    passes: list[int] = []
    original = Reference._score
    monkeypatch.setattr(Reference, "_score", lambda self, batch: passes.append(len(batch)) or original(self, batch))
    trainer.train()
    assert sum(passes) == 8  # four answers and four refusals, through all three epochs

    target = taught.load().model
    completions: dict[Part, Sequence[TokenisedExample] | None] = {"forget": stream.forget, "refusal": stream.refusals}
    for part, examples in completions.items():
        assert examples is not None
        batch = collate(examples, PAD)
        expected = Predictions.from_model_output(logits(target, batch), batch["labels"]).sequence_log_probs()
        found = trainer._reference.sequence_log_probs(part, examples)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
        with model.disable_adapter():
            off = Predictions.from_model_output(logits(model, batch), batch["labels"]).sequence_log_probs()
        assert torch.equal(off, expected)
        on = Predictions.from_model_output(logits(model, batch), batch["labels"]).sequence_log_probs()
        assert not torch.allclose(on, expected, atol=1e-2)
