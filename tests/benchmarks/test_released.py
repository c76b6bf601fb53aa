"""The released procedure against the library's own account of the same arithmetic."""

import argparse

import torch

from benchmarks import released, shapes
from unlora.importance.importance_map import FactoredImportance, FullImportance
from unlora.importance.published import estimate_published_importance


def subject() -> shapes.Subject:
    options = argparse.Namespace(shape="tiny", layers=None, device="cpu", dtype="float32", examples=6, seed=3)
    return shapes.subject(options)


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    scale = float(expected.abs().max())
    assert scale > 0
    torch.testing.assert_close(found / scale, expected / scale, rtol=1e-4, atol=1e-5)


def test_vila_gives_the_published_variances():
    measured = subject()
    found = released.measure("vila", measured, passes=2, seed=1)
    expected = estimate_published_importance(
        measured.model, measured.forget, measured.retain, space="lora_factors", pad_token_id=0, passes=2, seed=1
    )
    for name, module in expected.items():
        for set_name, record in (("forget", module.forget), ("retain", module.retain)):
            assert isinstance(record, FactoredImportance)
            near(found[set_name][f"{name}.lora_B"], record.lora_b)
            near(found[set_name][f"{name}.lora_A"], record.lora_a)


def test_fila_gives_the_published_sums_and_leaves_the_model_as_it_was():
    measured = subject()
    before = {name: value.clone() for name, value in measured.model.state_dict().items()}
    found = released.measure("fila", measured, passes=2, seed=1)
    expected = estimate_published_importance(
        measured.model, measured.forget, measured.retain, space="full_weights", pad_token_id=0, passes=2, seed=1
    )
    weights = 0
    for name, module in expected.items():
        for set_name, record in (("forget", module.forget), ("retain", module.retain)):
            assert isinstance(record, FullImportance)
            near(found[set_name][name], record.values)
            weights += record.values.numel()
    # Both sets, four bytes a weight of every target layer: what makes the released file 25 GB in bfloat16.
    assert released.bytes_on_disk(found) == 4 * weights
    after = measured.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(p.requires_grad or p.grad is not None for p in measured.model.parameters())
