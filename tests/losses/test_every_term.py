"""What holds for every term: its gradient, and what it must not look at."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.losses.examples import AllLogits, forget_inputs, logits_of, random_predictions, retain_inputs
from unlora.errors import InputError
from unlora.losses import (
    DPO,
    FORGET_TERMS,
    NOT_SCORED,
    NPO,
    RETAIN_TERMS,
    CrossEntropyUnlearning,
    ForgetInputs,
    ForgetTerm,
    RetainInputs,
    RetainTerm,
    SatImp,
    SimNPO,
    Steering,
    Undial,
    WeightedAscent,
)

Term = ForgetTerm | RetainTerm
Inputs = ForgetInputs | RetainInputs

FURTHER = (
    NPO(2.0),
    SimNPO(0.7, gamma=0.3),
    DPO(1.5),
    Undial(1.0),
    WeightedAscent(0.5),
    SatImp(0.0, 2.0),
    CrossEntropyUnlearning(skip_tokens=0),
    Steering(coefficient=2.0, seed=3),
)
TERMS: list[Term] = [*(term() for term in FORGET_TERMS.values()), *FURTHER, *(term() for term in RETAIN_TERMS.values())]
DETACHED = (WeightedAscent, SatImp, CrossEntropyUnlearning)
"""Their weights or targets follow the policy but pass no gradient on: a difference of values is not their gradient.
The tests of each compare with the formula whose weights are frozen."""


def label(term: Term) -> str:
    return f"{type(term).__bases__[0].__name__}-{term!r}"


every_term = pytest.mark.parametrize("term", TERMS, ids=label)


def inputs_for(term: Term) -> Inputs:
    return forget_inputs() if isinstance(term, ForgetTerm) else retain_inputs()


def score(term: Term, inputs: Inputs) -> Tensor:
    return term(inputs)  # pyright: ignore[reportArgumentType]  inputs_for pairs them


def with_logits(inputs: Inputs, logits: Tensor) -> Inputs:
    return dataclasses.replace(inputs, predictions=AllLogits(logits, inputs.predictions.labels))


def with_refusal_logits(inputs: Inputs, logits: Tensor) -> Inputs:
    assert isinstance(inputs, ForgetInputs)
    assert inputs.refusal is not None
    return dataclasses.replace(inputs, refusal=AllLogits(logits, inputs.refusal.labels))


def with_states(inputs: Inputs, states: Tensor) -> Inputs:
    return dataclasses.replace(inputs, hidden_states=states)


def variables(term: Term) -> list[tuple[Callable[[Inputs, Tensor], Inputs], Tensor]]:
    """What of the policy a term reads: how to put it into the inputs, and its value."""
    inputs = inputs_for(term)
    found = [(with_logits, logits_of(inputs.predictions))]
    if "refusal" in term.needs:
        assert isinstance(inputs, ForgetInputs)
        assert inputs.refusal is not None
        found.append((with_refusal_logits, logits_of(inputs.refusal)))
    if "hidden_states" in term.needs:
        assert inputs.hidden_states is not None
        found = [(with_states, inputs.hidden_states)]
    return found


@pytest.mark.parametrize("term", [term for term in TERMS if not isinstance(term, DETACHED)], ids=label)
def test_gradient_equals_finite_differences(term: Term) -> None:
    for put, value in variables(term):
        assert torch.autograd.gradcheck(
            lambda variable, put=put: score(term, put(inputs_for(term), variable)), value.clone().requires_grad_()
        )


@every_term
def test_unscored_logits_change_nothing_even_when_undefined(term: Term) -> None:
    """Prompt and padding: neither value nor gradient, of the policy's logits, the reference's or the refusal's."""
    inputs = inputs_for(term)
    expected = score(term, inputs)
    spoilt: dict[str, AllLogits] = {}
    for name in ("predictions", "reference", "refusal"):
        predictions = getattr(inputs, name, None)
        if predictions is not None:
            logits = predictions.logits.clone()
            logits[~predictions.mask] = math.nan
            spoilt[name] = AllLogits(logits.requires_grad_(), predictions.labels)
    value = score(term, dataclasses.replace(inputs, **spoilt))
    assert torch.equal(value.detach(), expected)
    if not value.requires_grad:
        assert "hidden_states" in term.needs
        return
    value.sum().backward()
    for predictions in spoilt.values():
        if predictions.logits.grad is not None:
            assert (predictions.logits.grad[~predictions.mask] == 0).all()
            assert predictions.logits.grad.isfinite().all()


@every_term
def test_more_padding_and_other_examples_change_nothing(term: Term) -> None:
    inputs = inputs_for(term)
    expected = score(term, inputs)
    padded, alone = {}, {}
    counts = inputs.predictions.token_counts
    for one in dataclasses.fields(inputs):
        value = getattr(inputs, one.name)
        if isinstance(value, AllLogits):
            padded[one.name] = AllLogits(
                torch.nn.functional.pad(value.logits, (0, 0, 2, 3), value=5.0),
                torch.nn.functional.pad(value.labels, (2, 3), value=NOT_SCORED),
            )
            alone[one.name] = AllLogits(value.logits[1:2], value.labels[1:2])
        elif one.name.endswith("hidden_states"):
            alone[one.name] = value.split(counts.tolist())[1]
        else:
            alone[one.name] = value[1:2]
    torch.testing.assert_close(score(term, dataclasses.replace(inputs, **padded)), expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(score(term, dataclasses.replace(inputs, **alone)), expected[1:2], rtol=1e-13, atol=0)


@every_term
def test_low_precision_is_computed_in_float32(term: Term) -> None:
    inputs = inputs_for(term)
    low: dict[str, object] = {}
    for one in dataclasses.fields(inputs):
        value = getattr(inputs, one.name)
        if isinstance(value, AllLogits):
            low[one.name] = AllLogits(value.logits.bfloat16(), value.labels)
        else:
            low[one.name] = value.bfloat16() if one.name.endswith("hidden_states") else value.float()
    value = score(term, dataclasses.replace(inputs, **low))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), score(term, inputs), rtol=0.05, atol=0.05)


@every_term
def test_what_was_not_computed_is_asked_for_by_name(term: Term) -> None:
    for need in term.needs:
        with pytest.raises(InputError, match=f"the term reads '{need}', which was not computed"):
            score(term, dataclasses.replace(inputs_for(term), **{need: None}))


@every_term
def test_nothing_else_is_needed(term: Term) -> None:
    inputs = inputs_for(term)
    unasked = {one.name: None for one in dataclasses.fields(inputs) if one.name not in {"predictions", *term.needs}}
    assert torch.equal(score(term, dataclasses.replace(inputs, **unasked)), score(term, inputs))


@every_term
def test_memorised_token_gives_a_finite_gradient(term: Term) -> None:
    """Probabilities that are exactly 0 and 1 in float32, as after memorising."""
    labels = random_predictions().labels
    logits = torch.full((3, 5, 7), -200.0).scatter(-1, labels.clamp(min=0)[..., None], 200.0).requires_grad_()
    inputs = with_logits(inputs_for(term), logits)
    fields = {name: value.float() for name, value in vars(inputs).items() if isinstance(value, torch.Tensor)}
    value = score(term, dataclasses.replace(inputs, **fields))
    assert value.isfinite().all()
    if value.requires_grad:
        value.sum().backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


def test_every_term_says_what_it_is() -> None:
    for name, term in FORGET_TERMS.items():
        assert term.name == name
        assert term.summary.endswith(".")
        assert term.paper.startswith("arXiv ")
    for name, term in RETAIN_TERMS.items():
        assert term.name == name
        assert term.summary.endswith(".")
    assert len({(type(term), term.name) for term in TERMS}) == len(FORGET_TERMS) + len(RETAIN_TERMS)
