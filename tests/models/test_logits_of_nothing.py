"""The probe of causality on weights that leave nothing to compare."""

import pytest
from transformers import BertConfig, BertForMaskedLM

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


def test_encoder_of_small_weights_is_refused():
    """Its first logits change by less than a hundredth with the second token, and change they do."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = BertForMaskedLM(BertConfig(**sizes, vocab_size=384)).eval()
    with pytest.raises(InputError, match="reads both sides of a token"):
        refuse_two_sided("x", model)
