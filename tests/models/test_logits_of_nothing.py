"""The probe of causality on weights that leave nothing to compare."""

import pytest

from tests.tiny import build_tiny_model
from unlora.errors import InputError
from unlora.models.causality import refuse_two_sided


def test_model_of_noughts_is_causal():
    """Every logit is nought, and so is the difference; divided by their size it would be no number."""
    model = build_tiny_model("llama")
    model.get_input_embeddings().weight.data.zero_()
    refuse_two_sided("x", model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused_as_such(value: float):
    model = build_tiny_model("llama")
    model.get_output_embeddings().weight.data[3, 5] = value
    with pytest.raises(InputError, match="logits are not finite"):
        refuse_two_sided("x", model)
