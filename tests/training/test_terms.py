"""Every term through UnlearnTrainer: what it minimises is what it says, and it changes what it should."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from tests.losses.test_redirection import naive_undial
from tests.taught import PAD, Taught
from tests.tiny import Architecture, build_tiny_model
from tests.training.runs import adapter_tensors, anchored, logits, pairs, refused, train
from unlora.data.collate import collate
from unlora.data.forget_retain import ForgetRetainPairs
from unlora.data.tokenise import TokenisedExample
from unlora.losses import FORGET_TERMS, Objective, Predictions
from unlora.models.score import score_completions
from unlora.starts.attach import attach_anchored_adapter


def mean_log_prob(model: Any, examples: list[TokenisedExample]) -> float:
    """Mean over examples of the log-probability per completion token."""
    sequences = [(example.input_ids, example.prompt_length) for example in examples]
    scores = score_completions(model, sequences, pad_token_id=PAD)
    return sum(score.mean_log_prob for score in scores) / len(scores)


PAIRS = {
    "kl": Objective("ga", retain="kl", retain_weight=4.0),
    "simnpo": Objective("simnpo", retain_weight=4.0),
    "undial": Objective("undial", retain="kl"),
    "wga": Objective("wga", retain_weight=4.0),
    "satimp": Objective("satimp", retain_weight=0.1),
    "ce_u": Objective("ce_u"),
    "rmu": Objective("rmu", retain="rmu", retain_weight=1.6),
}


@pytest.mark.parametrize("name", PAIRS)
def test_answers_are_forgotten_and_the_rest_is_kept(taught: Taught, tmp_path: Path, name: str):
    model = anchored(taught)
    lines = train(model, pairs(taught, epochs=20), tmp_path, PAIRS[name], learning_rate=5e-3)
    assert mean_log_prob(model, taught.tokens(taught.forget)) < -0.9  # from -0.01
    if name not in ("wga", "satimp"):  # weights that fade take the value back towards 0
        assert lines[-1]["loss"] < lines[0]["loss"]
    assert mean_log_prob(model, taught.tokens(taught.retain)) > -0.25
    with model.disable_adapter():
        assert mean_log_prob(model, taught.tokens(taught.forget)) > -0.05


@pytest.mark.parametrize("name", ["dpo", "idk"])
def test_refusals_get_likelier_and_answers_less_likely(taught: Taught, tmp_path: Path, name: str):
    model, answers, refusals = anchored(taught), taught.tokens(taught.forget), refused(taught)
    before = mean_log_prob(model, answers), mean_log_prob(model, refusals)
    lines = train(model, pairs(taught, epochs=20), tmp_path, Objective(name, retain_weight=4.0), learning_rate=5e-3)
    assert lines[-1]["forget_term"] < 0.7 * lines[0]["forget_term"]
    assert mean_log_prob(model, answers) < before[0] - 0.05
    assert mean_log_prob(model, refusals) > before[1] + 1.5
    assert mean_log_prob(model, taught.tokens(taught.retain)) > -0.1


def test_first_values_are_those_of_the_target(taught: Taught, tmp_path: Path):
    """Before any step policy and reference are the target: values known without the trainer."""
    target = taught.load().model

    def predictions(examples: list[TokenisedExample]) -> Predictions:
        batch = collate(examples, PAD)
        return Predictions.from_model_output(logits(target, batch), batch["labels"])

    answers = predictions(taught.tokens(taught.forget))
    distilled = naive_undial(answers, answers, 10.0)
    expected = {
        "dpo": 2 / 0.1 * math.log(2),
        "idk": -mean_log_prob(target, refused(taught)),
        "undial": sum(distilled) / len(distilled),
    }
    for name, value in expected.items():
        first = train(anchored(taught), pairs(taught, epochs=1), tmp_path / name, Objective(name, retain="kl"))[0]
        assert first["forget_term"] == pytest.approx(value, rel=1e-3), name
        assert first["retain_term"] == pytest.approx(0, abs=1e-6), name


@pytest.mark.parametrize("retain", ["kl", "rmu"])
def test_retain_terms_rest_at_the_reference_and_pull_back_to_it(taught: Taught, tmp_path: Path, retain: str):
    """Heavier, they leave less change behind."""
    left = []
    for weight in (0.0, 10.0):
        lines = train(
            anchored(taught), pairs(taught, epochs=10), tmp_path / str(weight), Objective("ga", retain, weight)
        )
        assert lines[0]["retain_term"] == pytest.approx(0, abs=1e-6)
        left.append(lines[-1]["retain_term"])
    assert 0 < left[1] < 0.5 * left[0]


@pytest.mark.parametrize("block", [0, 1])
def test_steering_moves_adapters_up_to_its_block_only(taught: Taught, tmp_path: Path, block: int):
    model = anchored(taught)
    before = adapter_tensors(model)
    objective = Objective("rmu", retain="rmu", forget_parameters={"block": block})
    train(model, pairs(taught, epochs=3), tmp_path, objective)
    for name, value in adapter_tensors(model).items():
        if ".layers.1." in name and block == 0:
            assert torch.equal(value, before[name]), name
    moved = {
        name.split(".layers.")[1][0] for name, value in adapter_tensors(model).items() if (value != before[name]).any()
    }
    assert moved == {str(number) for number in range(block + 1)}


def tiny_run(
    architecture: Architecture, folder: Path, objective: Objective
) -> tuple[PeftModel, list[dict[str, Any]], ForgetRetainPairs]:
    """Ten steps on what a random model says by itself, so that there is something to forget."""
    plain = build_tiny_model(architecture)
    rows = torch.randint(2, 128, (12, 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(6):
            rows = torch.cat([rows, plain(input_ids=rows).logits[:, -1:].argmax(dim=-1)], dim=1)
    examples = [TokenisedExample(tuple(row[: 6 + place % 4]), 3, False, "") for place, row in enumerate(rows.tolist())]
    model = attach_anchored_adapter(plain, rank=2, alpha=4.0)
    stream = ForgetRetainPairs(examples[:4], examples[4:8], refusals=examples[8:], epochs=10, seed=0)
    return model, train(model, stream, folder, objective), stream


GENTLE: dict[str, dict[str, Any]] = {"simnpo": {"beta": 0.1}, "satimp": {"beta1": 0.5}, "wga": {"beta": 0.5}}
"""A random model is never certain: parameters that do not take its answers for forgotten already."""


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3"])  # Conv1D weights; windows and a scaled embedding
@pytest.mark.parametrize("name", FORGET_TERMS)
def test_every_term_trains_other_architectures(tmp_path: Path, architecture: Architecture, name: str):
    retain = "rmu" if name.endswith("rmu") else "kl"
    objective = Objective(name, retain=retain, retain_weight=0.1, forget_parameters=GENTLE.get(name, {}))
    model, lines, stream = tiny_run(architecture, tmp_path, objective)
    assert len(lines) == 10
    if name in ("dpo", "idk", "rmu", "adaptive_rmu", "undial", "ce_u"):
        assert lines[-1]["forget_term"] < lines[0]["forget_term"]
    if name != "idk":
        after = mean_log_prob(model, list(stream.forget))
        with model.disable_adapter():
            assert after < mean_log_prob(model, list(stream.forget))
