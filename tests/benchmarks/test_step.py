"""The steps that are compared: one loss, whatever the reference comes from, and it is the trainer's."""

import argparse
from pathlib import Path

import pytest
import torch

from benchmarks import measuring, shapes, step
from unlora.training import UnlearnTrainer, training_arguments

OPTIONS = argparse.Namespace(
    shape="tiny", layers=None, device="cpu", dtype="float32", examples=5, seed=0, batch_size=3, rank=4
)


def losses(names: list[str]) -> list[float]:
    methods = step.make_methods(OPTIONS, shapes.subject(OPTIONS), names)
    return [methods[name]().result for name in names]


@pytest.mark.parametrize("kind", ["npo", "kl"])
def test_the_loss_does_not_depend_on_where_the_reference_comes_from(kind: str):
    found = losses([name for name in step.METHODS if name.startswith(kind)])
    assert found == pytest.approx([found[0]] * len(found), rel=1e-5)


@pytest.mark.parametrize(("kind", "name"), [("npo", "npo cached"), ("kl", "kl adapters-off")])
def test_the_loss_is_the_trainers(kind: str, name: str, tmp_path: Path):
    subject = shapes.subject(OPTIONS)
    data = step.make_data(subject, OPTIONS)
    arguments = training_arguments(
        tmp_path, learning_rate=1e-4, batch_size=3, gradient_accumulation_steps=1, warmup_steps=0, max_grad_norm=1.0,
        gradient_checkpointing=False, save_steps=None, seed=0, use_cpu=True,
    )  # fmt: skip
    with step.adapted(subject) as model:
        with torch.no_grad():  # away from the target, so that the reference matters
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1)
        ours = step.loss_of(name, model, data, None, subject.pad_token_id)()
        trainer = UnlearnTrainer(
            model, arguments, objective=step.OBJECTIVES[kind], train_dataset=data.pairs, pad_token_id=0
        )
        assert torch.equal(ours.detach(), trainer.compute_loss(model, data.batch).detach())


def test_a_second_copy_takes_as_much_more_as_the_model_holds():
    subject = shapes.subject(OPTIONS)

    def peak(name: str) -> int:
        work = lambda: step.make_methods(OPTIONS, subject, [name])[name]()  # noqa: E731
        return measuring.allocated_peak(work, torch.device("cpu"))

    size = subject.facts()["model_bytes"]
    extra = peak("kl second-copy") - peak("kl adapters-off")
    assert 0.9 * size < extra < 1.6 * size


def test_the_model_is_left_without_adapter_and_gradient():
    subject = shapes.subject(OPTIONS)
    before = list(subject.model.state_dict())
    for name in ("npo anchored", "plain"):
        step.make_methods(OPTIONS, subject, [name])[name]()
    assert list(subject.model.state_dict()) == before
    assert not any(parameter.requires_grad for parameter in subject.model.parameters())
