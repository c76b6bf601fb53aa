import itertools
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from tests.losses.examples import AllLogits, forget_inputs, logits_of, random_predictions, retain_inputs
from unlora.errors import InputError
from unlora.losses import (
    FORGET_TERMS,
    NPO,
    RETAIN_TERMS,
    ForgetInputs,
    ForgetTerm,
    GradientAscent,
    InvertedHinge,
    Objective,
    RetainInputs,
    RetainKL,
    RetainNLL,
    RetainTerm,
)
from unlora.shapes import PerExample

FORGET = forget_inputs(random_predictions(seed=1))
RETAIN = retain_inputs(random_predictions(seed=2))


@dataclass(frozen=True)
class Half(ForgetTerm):
    name = "half"

    strength: float = 0.5

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        return self.strength * inputs.predictions.mean_log_probs()


@dataclass(frozen=True)
class Twice(RetainTerm):
    name = "twice"

    strength: float = 2.0

    def __call__(self, inputs: RetainInputs) -> PerExample:
        return -self.strength * inputs.predictions.mean_log_probs()


@pytest.mark.parametrize(
    ("name", "term"), [("ga", GradientAscent()), ("gd", GradientAscent()), ("npo", NPO()), ("ihl", InvertedHinge())]
)
def test_total_is_forget_mean_plus_weighted_retain_mean(name: str, term: ForgetTerm) -> None:
    smaller_retain = RetainInputs(AllLogits(logits_of(RETAIN.predictions)[:2], RETAIN.predictions.labels[:2]))
    parts = Objective(name, retain="nll", retain_weight=1.3)(FORGET, smaller_retain)
    forget_mean = term(FORGET).mean()
    retain_mean = RetainNLL()(smaller_retain).mean()
    assert parts.retain_term is not None
    assert torch.equal(parts.forget_term, forget_mean)
    assert torch.equal(parts.retain_term, retain_mean)  # unweighted: lambda is applied once, in the total
    assert float(parts.total) == pytest.approx(float(forget_mean) + 1.3 * float(retain_mean), rel=1e-12)


def test_doubling_the_retain_weight_doubles_the_retain_gradient() -> None:
    logits = logits_of(RETAIN.predictions).clone().requires_grad_()
    retain = RetainInputs(AllLogits(logits, RETAIN.predictions.labels))
    gradients = [
        torch.autograd.grad(Objective("ihl", retain_weight=weight)(FORGET, retain).total, logits, retain_graph=True)[0]
        for weight in (1.5, 3.0)
    ]
    torch.testing.assert_close(gradients[1], 2 * gradients[0])


@pytest.mark.parametrize(("forget", "retain"), itertools.product([*FORGET_TERMS, "gd"], RETAIN_TERMS))
def test_any_forget_term_goes_with_any_retain_term(forget: str, retain: str) -> None:
    objective = Objective(forget, retain=retain, retain_weight=0.5)
    parts = objective(FORGET, RETAIN)
    assert torch.equal(parts.forget_term, objective.forget_term(FORGET).mean())
    assert parts.retain_term is not None
    assert torch.equal(parts.retain_term, RETAIN_TERMS[retain]()(RETAIN).mean())
    assert float(parts.total) == pytest.approx(float(parts.forget_term) + 0.5 * float(parts.retain_term))


def test_objective_without_retain_term_is_the_forget_term() -> None:
    parts = Objective("ga", retain=None)(FORGET, None)
    assert parts.retain_term is None
    assert torch.equal(parts.total, parts.forget_term)


@pytest.mark.parametrize("beta", [2.0, 2])  # YAML reads 2 as a whole number
def test_parameters_reach_the_term(beta: float | int) -> None:
    objective = Objective("npo", retain=None, forget_parameters={"beta": beta})
    assert objective.forget_term == NPO(2.0)
    assert torch.equal(objective(FORGET, None).total, NPO(2.0)(FORGET).mean())
    block = Objective("ga", retain="rmu", retain_parameters={"block": 3}).retain_term
    assert block is not None
    assert block.block == 3


def test_own_terms_take_part() -> None:
    objective = Objective(Half(0.25), retain=Twice(3.0), retain_weight=0.5)
    nll = -RETAIN.predictions.mean_log_probs().mean()
    expected = 0.25 * FORGET.predictions.mean_log_probs().mean() + 0.5 * 3.0 * nll
    torch.testing.assert_close(objective(FORGET, RETAIN).total, expected)
    assert objective.describe() == {
        "forget": "half",
        "strength": 0.25,
        "retain": "twice",
        "retain_weight": 0.5,
        "retain_strength": 3.0,
    }


def test_refusals_are_needed_by_dpo_and_idk_only() -> None:
    assert {name for name in FORGET_TERMS if Objective(name).needs_refusals} == {"dpo", "idk"}


def test_describe_records_the_terms_and_their_parameters() -> None:
    assert Objective("npo", retain_weight=1.3).describe() == {
        "forget": "npo",
        "beta": 0.1,
        "retain": "nll",
        "retain_weight": 1.3,
    }
    assert Objective("gd").describe() == {"forget": "ga", "retain": "nll", "retain_weight": 1.0}
    assert Objective("rmu", retain="kl").describe() == {
        "forget": "rmu",
        "coefficient": 6.5,
        "seed": 0,
        "retain": "kl",
        "retain_weight": 1.0,
        "retain_prompts": False,
    }


def test_equal_objectives_are_equal_and_frozen() -> None:
    assert Objective("ihl") == Objective("ihl")
    with pytest.raises(AttributeError):
        Objective("ihl").retain_weight = 2.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"forget": "nppo"}, "unknown forget term 'nppo'. Did you mean 'npo'?"),
        (
            {"forget": "zzz"},
            "Known: ga, npo, ihl, simnpo, dpo, idk, undial, wga, satimp, ce_u, rmu, adaptive_rmu, gd; or module:Class",
        ),
        ({"forget": "ga", "retain": "nl"}, "unknown retain term 'nl'. Did you mean 'nll'?"),
        ({"forget": "ihl", "retain": None}, "'ihl' needs a retain term"),
        ({"forget": "gd", "retain": None}, "'gd' needs a retain term"),
        ({"forget": InvertedHinge(), "retain": None}, "'ihl' needs a retain term"),
        ({"forget": "rmu", "retain": None}, "'rmu' needs a retain term"),
        ({"forget": "ihl", "forget_parameters": {"beta": 0.1}}, "'ihl' has no parameter 'beta'. It has none."),
        ({"forget": "satimp", "forget_parameters": {"x": 0.1}}, "no parameter 'x'. Known: beta1, beta2."),
        ({"forget": "npo", "forget_parameters": {"betta": 0.1}}, "no parameter 'betta'. Did you mean 'beta'?"),
        ({"forget": "npo", "forget_parameters": {"beta": -1.0}}, "npo: beta must be a positive number, found -1.0"),
        ({"forget": "npo", "forget_parameters": {"beta": "big"}}, "'npo': beta must be a number, found 'big'."),
        ({"forget": "npo", "forget_parameters": {"beta": True}}, "'npo': beta must be a number, found True."),
        (
            {"forget": "ce_u", "forget_parameters": {"skip_tokens": 1.5}},
            "skip_tokens must be a whole number, found 1.5.",
        ),
        ({"forget": "rmu", "forget_parameters": {"block": 1.5}}, "block must be a whole number or null, found 1.5."),
        (
            {"forget": NPO(), "forget_parameters": {"beta": 0.2}},
            "'npo' is given as an object; set its parameters there.",
        ),
        ({"forget": "ga", "retain": RetainKL(), "retain_parameters": {"x": 1}}, "'kl' is given as an object"),
        ({"forget": "ga", "retain": None, "retain_parameters": {"x": 1}}, "retain_parameters without a retain term"),
        ({"forget": "ga", "retain_parameters": {"blok": 1}, "retain": "rmu"}, "Did you mean 'block'?"),
        ({"forget": "ga", "retain_weight": -1.0}, "retain_weight must be"),
        ({"forget": "ga", "retain_weight": math.nan}, "retain_weight must be"),
    ],
)
def test_wrong_objective_is_refused_at_construction(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Objective(**arguments)
    assert message in str(error.value)


def test_missing_retain_batch_is_refused() -> None:
    with pytest.raises(InputError, match="needs a retain batch"):
        Objective("ihl")(FORGET, None)
