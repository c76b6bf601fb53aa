"""What two programs say of the same answers is compared token by token."""

import math

import numpy
import pytest
import torch

from unlora.consumers.answers import answer_part, compare, explained


def test_answer_part_is_the_log_softmax_at_the_answer():
    logits = torch.randn(6, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ids = [3, 1, 4, 1, 5, 9]
    expected = logits.log_softmax(dim=-1)
    found = answer_part(logits.numpy(), (ids, 2))
    numpy.testing.assert_allclose(found, [float(expected[place - 1, ids[place]]) for place in (2, 3, 4, 5)])


def test_forgotten_and_kept_answers_are_told_apart():
    here = [numpy.log([0.5, 0.5]), numpy.log([0.9])]
    there = [numpy.log([0.5, 0.4]), numpy.log([0.9])]
    found = compare(here, there, 1)
    assert found.largest == pytest.approx(math.log(0.5 / 0.4))
    assert found.mean == pytest.approx(math.log(0.5 / 0.4) / 3)
    assert found.tokens == 3
    assert found.forget == pytest.approx((0.5, math.sqrt(0.2)))
    assert found.retain == pytest.approx((0.9, 0.9))
    assert compare(here[:1], there[:1], 1).retain is None


def test_the_coarsest_format_explains_most():
    assert explained("f32", "bf16") == explained("bf16") > explained("f16") > explained("f32")
