"""A wrong shape does not get through: in an argument, by a name of its own, in a result's parts, in a class."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from unlora.adapters.factors import Factors
from unlora.metrics.likelihood import answer_probability, normalised_probability


def test_arguments_that_do_not_fit_each_other_are_refused():
    with pytest.raises(TypeCheckError, match="wrong_log_probs"):
        normalised_probability(np.zeros(3), np.zeros((2, 4)))


def test_an_alias_is_checked():
    with pytest.raises(TypeCheckError, match="mean_log_prob"):
        answer_probability(np.zeros((3, 1)))


def test_fields_that_do_not_fit_each_other_are_refused():
    with pytest.raises(TypeCheckError, match="lora_a"):
        Factors(torch.zeros(4, 2), torch.zeros(3, 5))
