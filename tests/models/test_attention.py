"""Short bfloat16 sequences are trained with the plain formula, and nobody sees it afterwards."""

import pytest
import torch

from tests.tiny import build_tiny_model
from unlora.models.attention import SHORT, fastest_attention

IDS = torch.arange(1, 25).reshape(2, 12)


@pytest.mark.parametrize(
    ("dtype", "longest", "inside"),
    [
        (torch.bfloat16, 12, "eager"),
        (torch.bfloat16, SHORT, "eager"),
        (torch.bfloat16, SHORT + 1, "sdpa"),
        (torch.float32, 12, "sdpa"),
    ],
)
def test_it_is_switched_where_it_pays_and_back(dtype: torch.dtype, longest: int, inside: str):
    model = build_tiny_model("llama")
    model.to(dtype=dtype)
    with fastest_attention(model, longest=longest):
        assert model.config._attn_implementation == inside
    assert model.config._attn_implementation == "sdpa"


def test_the_numbers_are_the_same_but_for_rounding():
    model = build_tiny_model("llama")
    model.to(dtype=torch.bfloat16)
    with torch.no_grad():
        before = model(input_ids=IDS).logits.float()
        with fastest_attention(model, longest=12):
            within = model(input_ids=IDS).logits.float()
        exact = model.float()(input_ids=IDS).logits
    assert float((within - exact).norm()) < 1.5 * float((before - exact).norm())
