"""SAM and the attacker in the loop: against plain training, against gradients by hand, and without a trace."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.taught import PAD, Taught
from tests.training.runs import DEFAULTS, adapter_tensors, largest_difference, pairs
from tests.training.test_shared_shift import moved
from unlora.audit.adversary import attacked
from unlora.data.collate import collate
from unlora.errors import InputError
from unlora.losses import Objective, Predictions
from unlora.models.scored import scored_logits
from unlora.run.training import find_trainer
from unlora.training import UnlearnTrainer, training_arguments
from unlora.training.callbacks import TrainLog, read_train_log
from unlora_research.attacked import AttackedTrainer
from unlora_research.depth_recipes import RECIPES
from unlora_research.sam import SamTrainer
from unlora_research.sides import ascended, gradients_of, trained_parameters

OBJECTIVES = {
    "ihl": Objective("ihl", retain_weight=1.3),
    "npo": Objective("npo", retain_weight=1.3),
    "deep": Objective("ihl", retain_weight=3.0, separation=1.0, forget_strength=0.5),
}


class Nowhere(SamTrainer):
    rho = 0.0


class Near(SamTrainer):
    rho = 1e-12


class Far(SamTrainer):
    rho = 0.3


class Idle(AttackedTrainer):
    attacker_steps = 0


class Powerless(AttackedTrainer):
    attacker_rate = 1e-12


def make(kind: type[UnlearnTrainer], model: Any, taught: Taught, folder: Path, objective: Objective, **options: Any):
    return kind(
        model,
        training_arguments(folder / "checkpoints", **{**DEFAULTS, "batch_size": 2, **options}),
        objective=objective,
        train_dataset=pairs(taught, epochs=2),
        pad_token_id=PAD,
        callbacks=[TrainLog(folder / "train_log.jsonl")],
    )


def trained(kind: type[UnlearnTrainer], taught: Taught, folder: Path, objective: Objective) -> dict[str, Tensor]:
    model = moved(taught)
    make(kind, model, taught, folder, objective).train()
    return adapter_tensors(model)


def first_gradients(kind: type[UnlearnTrainer], model: Any, taught: Taught, folder: Path, objective: Objective):
    """The loss of the first batch and the gradients that its backward pass leaves, as a step would find them."""
    trainer = make(kind, model, taught, folder, objective)
    batch = next(iter(trainer.get_train_dataloader()))
    parameters = trained_parameters(model)
    with trainer._strength.installed(model):
        loss = trainer.compute_loss(model.train(), batch)
        loss.backward()
    return (
        float(loss.detach()),
        [torch.zeros_like(one) if one.grad is None else one.grad.clone() for one in parameters],
        batch,
    )


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("kind", [Nowhere, Idle])
def test_with_no_ascent_or_no_attack_training_is_the_plain_one_bit_for_bit(
    taught: Taught, tmp_path: Path, kind: type[UnlearnTrainer], objective: Objective
):
    plain = trained(UnlearnTrainer, taught, tmp_path / "plain", objective)
    found = trained(kind, taught, tmp_path / "other", objective)
    assert all(torch.equal(plain[name], found[name]) for name in plain)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("kind", [Near, Powerless])
def test_an_ascent_or_an_attack_of_next_to_nothing_gives_the_plain_gradient(
    taught: Taught, tmp_path: Path, kind: type[UnlearnTrainer], objective: Objective
):
    """By the passes of one side after the other, and not by the plain one."""
    value, plain, _ = first_gradients(UnlearnTrainer, moved(taught), taught, tmp_path, objective)
    other, found, _ = first_gradients(kind, moved(taught), taught, tmp_path, objective)
    assert other == pytest.approx(value, rel=1e-5)
    for one, another in zip(plain, found, strict=True):
        torch.testing.assert_close(one, another, atol=1e-5, rtol=1e-3)


def test_a_sam_step_is_that_of_two_passes_by_hand(taught: Taught, tmp_path: Path):
    """By differences of plain gradients: with and without the retain term, here and at the ascended point."""
    both, alone = OBJECTIVES["ihl"], Objective("ihl", retain_weight=0.0)
    _, whole, _ = first_gradients(UnlearnTrainer, moved(taught), taught, tmp_path, both)
    _, forget, _ = first_gradients(UnlearnTrainer, moved(taught), taught, tmp_path, alone)
    length = torch.sqrt(torch.stack([one.square().sum() for one in forget]).sum())
    model = moved(taught)
    with torch.no_grad():
        for parameter, gradient in zip(trained_parameters(model), forget, strict=True):
            parameter += 0.3 * gradient / length
    _, there, _ = first_gradients(UnlearnTrainer, model, taught, tmp_path, alone)
    _, found, _ = first_gradients(Far, moved(taught), taught, tmp_path, both)
    for everything, here, above, one in zip(whole, forget, there, found, strict=True):
        torch.testing.assert_close(one, everything - here + above, atol=1e-5, rtol=1e-3)
    assert max(float((one - other).abs().max()) for one, other in zip(forget, there, strict=True)) > 1e-2


def attack_by_hand(taught: Taught, read: Sequence[int], lessons: Sequence[Sequence[int]], folder: Path):
    """Forget gradients with an attacker in place that Adam has taught the lessons, in the audit's own way."""
    model, tokens = moved(taught), taught.tokens(taught.forget)
    trainer = make(UnlearnTrainer, model, taught, folder, Objective("ihl", retain_weight=0.0))
    mine = trained_parameters(model)
    with attacked(model, rank=AttackedTrainer.attacker_rank, seed=0):
        phi = trained_parameters(model)
        optimiser = torch.optim.Adam(phi, lr=AttackedTrainer.attacker_rate * DEFAULTS["learning_rate"])
        for lesson in lessons:
            batch = collate([tokens[index] for index in lesson], PAD)
            logits = scored_logits(model.eval(), batch)
            loss = -Predictions.from_scored(logits, batch["labels"]).mean_log_probs().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        for parameter in mine:
            parameter.requires_grad_(True)
        batch = next(iter(trainer.get_train_dataloader()))
        assert batch["forget_index"].tolist() == list(read)
        return gradients_of(trainer.compute_loss(model.train(), batch), mine)


def test_an_attacked_step_takes_the_forget_gradient_with_the_attacker_in_place(taught: Taught, tmp_path: Path):
    both, alone = OBJECTIVES["ihl"], Objective("ihl", retain_weight=0.0)
    _, whole, batch = first_gradients(UnlearnTrainer, moved(taught), taught, tmp_path, both)
    _, forget, _ = first_gradients(UnlearnTrainer, moved(taught), taught, tmp_path, alone)
    _, found, _ = first_gradients(AttackedTrainer, moved(taught), taught, tmp_path, both)
    read = batch["forget_index"].tolist()
    others = sorted(set(range(4)) - set(read))
    # Two are left, so that every lesson is both of them, in one order or the other.
    there = attack_by_hand(taught, read, [others, others], tmp_path)
    for everything, here, above, one in zip(whole, forget, there, found, strict=True):
        torch.testing.assert_close(one, everything - here + above, atol=1e-5, rtol=1e-3)
    assert max(float((one - other).abs().max()) for one, other in zip(forget, there, strict=True)) > 1e-2


def state_of(model: Any) -> tuple[dict[str, Tensor], dict[str, bool], bool]:
    return (
        {name: value.detach().clone() for name, value in model.state_dict().items()},
        {name: value.requires_grad for name, value in model.named_parameters()},
        model.training,
    )


@pytest.mark.parametrize("kind", [Far, AttackedTrainer])
def test_a_pass_leaves_the_model_as_it_was(taught: Taught, tmp_path: Path, kind: type[UnlearnTrainer]):
    model = moved(taught).train()
    trainer = make(kind, model, taught, tmp_path, OBJECTIVES["deep"])
    batch = next(iter(trainer.get_train_dataloader()))
    (tensors, asked, mode), draws = state_of(model), torch.random.get_rng_state()
    with trainer._strength.installed(model):
        trainer.compute_loss(model, batch).backward()
    found = state_of(model)
    assert found[1:] == (asked, mode)
    assert found[0].keys() == tensors.keys()
    assert all(torch.equal(found[0][name], value) for name, value in tensors.items())
    assert torch.equal(torch.random.get_rng_state(), draws)
    assert model.active_adapters == ["default"]


def test_parameters_are_back_even_when_the_pass_fails():
    weight = torch.nn.Parameter(torch.tensor([0.1, 1e8, -3e-7]))
    before = weight.detach().clone()
    moved_away = before + torch.tensor([0.1, 0.2, 0.2])

    def failing_pass() -> None:
        with ascended([weight], [torch.tensor([1.0, 2.0, 2.0])], 0.3):
            torch.testing.assert_close(weight.detach(), moved_away)
            raise RuntimeError("pass")

    with pytest.raises(RuntimeError, match="pass"):
        failing_pass()
    assert torch.equal(weight, before)
    with ascended([weight], [torch.zeros(3)], 0.3):
        assert torch.equal(weight, before)


@pytest.mark.parametrize("kind", [Far, AttackedTrainer])
def test_training_differs_from_the_plain_one_and_logs_both_terms(
    taught: Taught, tmp_path: Path, kind: type[UnlearnTrainer]
):
    plain = trained(UnlearnTrainer, taught, tmp_path / "plain", OBJECTIVES["ihl"])
    assert largest_difference(plain, trained(kind, taught, tmp_path / "other", OBJECTIVES["ihl"])) > 1e-3
    lines = read_train_log(tmp_path / "other" / "train_log.jsonl")
    assert len(lines) == 4
    for line in lines:
        assert line["loss"] == pytest.approx(line["forget_term"] + 1.3 * line["retain_term"], rel=1e-4)


def test_an_attacker_that_is_left_no_example_is_refused(taught: Taught, tmp_path: Path):
    trainer = make(AttackedTrainer, moved(taught), taught, tmp_path, OBJECTIVES["ihl"], batch_size=4)
    with pytest.raises(InputError, match=r"lower training\.batch_size"):
        trainer.train()


def test_every_row_names_a_trainer_that_there_is():
    named = {name: one.settings.get("training", {}).get("trainer") for name, one in RECIPES.items()}
    assert {name for name, trainer in named.items() if trainer} >= {"npo_sam", "default_sam", "attacked"}
    for trainer in named.values():
        assert issubclass(find_trainer(trainer), UnlearnTrainer)
