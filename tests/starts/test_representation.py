"""ReGLU's start against plain NumPy on outputs that were collected by hand, and its penalty against sums by hand."""

import numpy
import pytest
import torch
from torch import Tensor, nn

from tests.adapters.models import FORGET, RETAIN
from tests.tiny import build_tiny_model
from unlora.adapters import attach_plain_adapter, check_output_unmoved
from unlora.adapters.anchored import factor_parameters, lora_layers
from unlora.adapters.initial import FactorRequest
from unlora.errors import InputError
from unlora.models.target_modules import find_target_modules
from unlora.starts.attach import attach_anchored_adapter
from unlora.starts.representation import OrthogonalityPenalty, RetainSide, representation_start, summed_outputs

ARCHITECTURES = ["llama", "gpt2"]


def outputs_by_hand(model: nn.Module, layer: nn.Module, batches: list[dict[str, Tensor]]) -> numpy.ndarray:
    """Every example alone and without padding: the sum over tokens of what the layer puts out."""
    rows: list[numpy.ndarray] = []
    handle = layer.register_forward_hook(lambda _m, _i, output: rows.append(output[0].double().numpy().sum(axis=0)))
    with torch.no_grad():
        for batch in batches:
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
                model(ids[mask.bool()][None])
    handle.remove()
    return numpy.stack(rows)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_b_holds_the_leading_eigenvectors_of_the_contrast_and_a_the_weights_they_see(arch: str, share: float):
    """In layers both narrower and wider than the number of examples (18)."""
    model, rank = build_tiny_model(arch), 3
    targets = find_target_modules(model)
    start = representation_start(model, targets, FORGET, RETAIN, FactorRequest(rank, 2.0), RetainSide(share))
    assert list(start.factors) == list(targets)
    for name, target in targets.items():
        forget = outputs_by_hand(model, target.module, FORGET)
        retain = outputs_by_hand(model, target.module, RETAIN)
        contrast = (1 - share) * forget.T @ forget / 10 - share * retain.T @ retain / 8
        values, vectors = numpy.linalg.eigh(contrast)
        found = start.factors[name]
        lora_b = found.lora_b.double().numpy()
        for column in range(rank):
            expected = vectors[:, -1 - column]
            assert abs(lora_b[:, column] @ expected) == pytest.approx(1.0, abs=1e-4)
        assert numpy.diag(lora_b.T @ contrast @ lora_b) == pytest.approx(values[: -rank - 1 : -1], rel=1e-3)
        torch.testing.assert_close(found.lora_a, found.lora_b.T @ target.weight(), atol=1e-5, rtol=1e-4)
        assert float(found.lora_b.norm()) == pytest.approx(rank**0.5, rel=1e-5)
        lost = target.weight() - 2.0 * found.lora_b @ found.lora_a
        assert found.relative_residual == pytest.approx(float(lost.norm() / target.weight().norm()), rel=1e-4)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_retain_subspace_holds_the_leading_eigenvectors_of_the_retain_outputs(arch: str):
    model = build_tiny_model(arch)
    targets = find_target_modules(model)
    start = representation_start(model, targets, FORGET, RETAIN, FactorRequest(2, 1.0), RetainSide(directions=4))
    for name, subspace in start.retain_subspaces.items():
        retain = outputs_by_hand(model, targets[name].module, RETAIN)
        expected = numpy.linalg.eigh(retain.T @ retain)[1][:, :-5:-1]
        overlaps = numpy.abs((subspace.double().numpy() * expected).sum(axis=0))
        assert overlaps == pytest.approx(numpy.ones(4), abs=1e-4)


def test_no_more_retain_directions_than_the_set_spans():
    """Eight examples, of which five are the same."""
    model = build_tiny_model("llama")
    targets = find_target_modules(model, ["up_proj", "k_proj"])
    same = [{key: value[:1].expand(5, -1) for key, value in FORGET[0].items()}, RETAIN[1]]
    start = representation_start(model, targets, FORGET, same, FactorRequest(2, 1.0))
    assert {subspace.shape[1] for subspace in start.retain_subspaces.values()} == {4}


def test_padding_and_company_do_not_count():
    model = build_tiny_model("llama")
    targets = find_target_modules(model)
    together = summed_outputs(model, targets, FORGET[:1], "forget")
    split = [{key: value[row : row + 1] for key, value in FORGET[0].items()} for row in range(6)]
    for name, outputs in summed_outputs(model, targets, split, "forget").items():
        torch.testing.assert_close(outputs, together[name], atol=1e-4, rtol=1e-4)


def test_wide_layer_with_few_examples_has_no_more_directions_than_they_determine():
    model = build_tiny_model("llama")
    targets = find_target_modules(model, ["up_proj"])
    few = [{key: value[:2] for key, value in FORGET[0].items()}]
    assert representation_start(model, targets, few, RETAIN, FactorRequest(2, 1.0)).factors
    with pytest.raises(InputError, match=r"adapter\.rank: 2 forget examples determine no 3 directions"):
        representation_start(model, targets, few, RETAIN, FactorRequest(3, 1.0))


def test_what_cannot_be_measured_is_refused():
    model = build_tiny_model("llama")
    targets = find_target_modules(model)

    def start(retain=RETAIN, rank=2):
        return representation_start(model, targets, FORGET, retain, FactorRequest(rank, 1.0))

    for share in (-0.1, 1.0):
        with pytest.raises(InputError, match="retain share"):
            RetainSide(share)
    with pytest.raises(InputError, match="retain directions: 0"):
        RetainSide(directions=0)
    with pytest.raises(InputError, match="the retain set is empty"):
        start(retain=[])
    with pytest.raises(InputError, match=r"adapter\.rank: 17"):
        start(rank=17)
    model.spare = nn.Linear(8, 8)
    targets = find_target_modules(model)
    with pytest.raises(InputError, match="target module 'spare' is not used exactly once"):
        start()


def test_penalty_is_the_sum_over_layers_of_what_b_shares_with_the_retain_outputs():
    """Two layers by hand; the frozen half and the layer without a subspace have no part in value or gradient."""
    model = build_tiny_model("llama")
    targets = find_target_modules(model, ["k_proj", "up_proj"])
    start = representation_start(model, targets, FORGET, RETAIN, FactorRequest(2, 2.0), RetainSide(directions=3))
    adapted = attach_anchored_adapter(model, rank=2, alpha=4, factors=start.factors)
    assert check_output_unmoved(adapted, FORGET[0]).largest_difference <= 1e-5
    chosen = {name: start.retain_subspaces[name] for name in list(targets)[:2]}
    assert len(targets) == 4
    penalty = OrthogonalityPenalty(chosen, weight=0.5)
    value = penalty(adapted)
    layers = dict(lora_layers(adapted))
    expected = 0.0
    for name, subspace in chosen.items():
        trained = factor_parameters(layers[name])[1].detach()[:, :2]
        for direction in subspace.T.tolist():
            for column in trained.T.tolist():
                expected += sum(u * b for u, b in zip(direction, column, strict=True)) ** 2
    assert expected > 0
    assert value.item() == pytest.approx(0.5 * expected, rel=1e-5)
    value.backward()
    for name, layer in layers.items():
        lora_a, lora_b = factor_parameters(layer)
        assert lora_a.grad is None
        if name not in chosen:
            assert lora_b.grad is None
            continue
        subspace = chosen[name]
        by_hand = 2 * 0.5 * subspace @ (subspace.T @ lora_b.detach()[:, :2])
        torch.testing.assert_close(lora_b.grad[:, :2], by_hand, atol=1e-6, rtol=1e-4)
        assert not lora_b.grad[:, 2:].any()


def test_penalty_takes_all_of_a_plain_adapter_and_moves_with_the_model():
    model = build_tiny_model("gpt2")
    targets = find_target_modules(model, ["c_proj"])
    adapted = attach_plain_adapter(model, targets, rank=2, alpha=4)
    name, layer = next(lora_layers(adapted))
    subspace = torch.linalg.qr(torch.randn(32, 4, generator=torch.Generator().manual_seed(0))).Q
    penalty = OrthogonalityPenalty({name: subspace}).to(torch.device("cpu"))
    assert penalty(adapted).item() == 0.0  # B is zero
    with torch.no_grad():
        factor_parameters(layer)[1].copy_(3 * subspace[:, :2])
    assert penalty(adapted).item() == pytest.approx(0.5 * 18, rel=1e-5)
    with pytest.raises(InputError, match="no layer 'elsewhere'"):
        OrthogonalityPenalty({"elsewhere": subspace})(adapted)
