"""Gradient norms against plain autograd over all weights at once."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.tiny import ARCHITECTURES, Architecture, build_tiny_model
from unlora.errors import InputError
from unlora.models.gradients import gradient_norms
from unlora.models.wrapping import CausalModel

SHAPES = [(9, 4), (5, 0), (12, 11), (30, 7), (3, 1)]
NOT_TARGETS = ("embed", "wte", "wpe", "lm_head", "lora_")


def sequences() -> list[tuple[list[int], int]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randint(128, (size,), generator=generator).tolist(), prompt) for size, prompt in SHAPES]


def norm_by_autograd(model: CausalModel, tokens: list[int], prompt_length: int) -> float:
    """All matrices but embeddings, head and adapter."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.ndim == 2]
    weights = [parameter for name, parameter in named if not any(part in name for part in NOT_TARGETS)]
    required = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    start = max(prompt_length, 1)
    log_probs = model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
    loss = -sum(log_probs[place - 1, tokens[place]] for place in range(start, len(tokens))) / (len(tokens) - start)
    gradients = torch.autograd.grad(loss, weights)
    for weight, flag in zip(weights, required, strict=True):
        weight.requires_grad_(flag)
    return sum(float(gradient.double().square().sum()) for gradient in gradients) ** 0.5


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_norms_equal_plain_autograd(arch: Architecture):
    model = build_tiny_model(arch)
    expected = [norm_by_autograd(model, *sequence) for sequence in sequences()]
    assert gradient_norms(model, sequences(), pad_token_id=0) == pytest.approx(expected, rel=1e-5)


def wrapped(arch: Architecture) -> CausalModel:
    names = ["c_attn"] if arch == "gpt2" else ["q_proj", "down_proj"]
    config = LoraConfig(target_modules=names, init_lora_weights=False, lora_dropout=0.5, fan_in_fan_out=arch == "gpt2")
    return get_peft_model(build_tiny_model(arch), config)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_adapter_counts_where_it_is_on(arch: Architecture):
    model = wrapped(arch).eval()
    expected = [norm_by_autograd(model, *sequence) for sequence in sequences()]
    assert gradient_norms(model, sequences(), pad_token_id=0) == pytest.approx(expected, rel=1e-5)
    with model.disable_adapter():
        off = gradient_norms(model, sequences(), pad_token_id=0)
    assert off == pytest.approx(gradient_norms(build_tiny_model(arch), sequences(), pad_token_id=0), rel=1e-5)


@pytest.mark.parametrize("grad_enabled", [True, False])
def test_parameters_and_mode_are_left_as_they_were(grad_enabled: bool):
    model = wrapped("llama").train()
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, number) if number % 2 else None
    before = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    copies = [None if gradient is None else gradient.clone() for _, gradient in before]
    with torch.set_grad_enabled(grad_enabled):
        gradient_norms(model, sequences(), pad_token_id=0)
    assert model.training
    for parameter, (required, gradient), copy in zip(model.parameters(), before, copies, strict=True):
        assert parameter.requires_grad == required
        assert parameter.grad is gradient
        assert copy is None or torch.equal(copy, parameter.grad)


def test_one_weight_has_a_gradient_at_a_time():
    model = build_tiny_model("llama")
    held: list[int] = []

    def count(_gradient: torch.Tensor) -> None:
        held.append(sum(parameter.grad is not None for parameter in model.parameters()))

    def watch(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        output.register_hook(count)

    for layer in model.model.layers:
        layer.self_attn.q_proj.register_forward_hook(watch)
    gradient_norms(model, sequences()[:1], pad_token_id=0)
    assert len(held) == 2
    assert max(held) <= 1


def test_progress_counts_sequences():
    counts: list[int] = []
    gradient_norms(build_tiny_model("llama"), sequences(), pad_token_id=0, progress=counts.append)
    assert counts == [1] * 5


@pytest.mark.parametrize("unscorable", [([1, 2], 2), ([1], 0), ([], 0)])
def test_sequence_without_completion_is_refused(unscorable: tuple[list[int], int]):
    with pytest.raises(InputError, match="sequence 1: has no completion token"):
        gradient_norms(build_tiny_model("llama"), [([1, 2], 1), unscorable], pad_token_id=0)


def test_integer_weights_are_refused():
    model = build_tiny_model("llama")
    weight = model.model.layers[0].self_attn.q_proj.weight
    model.model.layers[0].self_attn.q_proj.weight = torch.nn.Parameter(weight.to(torch.int8), requires_grad=False)
    with pytest.raises(InputError, match=r"q_proj': its weights are torch.int8"):
        gradient_norms(model, sequences(), pad_token_id=0)
