"""How strongly a sequence still pulls at the weights: the norm of its gradient."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from unlora.errors import InputError
from unlora.models.forward import takes
from unlora.models.target_modules import find_target_modules
from unlora.models.wrapping import CausalModel, evaluating, unwrap


def gradient_norms(
    model: CausalModel,
    sequences: Sequence[tuple[Sequence[int], int]],
    *,
    pad_token_id: int,
    progress: Callable[[int], None] | None = None,
) -> list[float]:
    """Measure the gradient of each sequence's mean completion NLL with respect to the weights of the linear layers.

    The weights are those of the layers that `find_target_modules` finds; an adapter that is on counts in the forward
    pass, its own factors have no part in the norm. The gradient of what a model was trained on is small: low values
    speak for membership.

    Sequences are taken one at a time, and a layer's gradient is dropped as soon as its norm is known. No parameter's
    gradient or `requires_grad` is changed afterwards.

    Args:
        model: Plain or with an adapter.
        sequences: Pairs (input_ids, prompt_length), as in `score_completions`.
        pad_token_id: As in `score_completions`; a sequence alone needs no padding.
        progress: Called with 1 after each sequence.

    Returns:
        One L2 norm over all these weights together per sequence, in the order given.

    Raises:
        InputError: a sequence without a completion token to score, or weights that can have no gradient (integers).
    """
    del pad_token_id
    for number, (input_ids, prompt_length) in enumerate(sequences):
        if len(input_ids) <= max(prompt_length, 1):
            raise InputError(f"sequence {number}: has no completion token to score.")
    plain = unwrap(model)
    weights = [target.leaf_weight() for target in find_target_modules(model).values()]
    norms: list[float] = []
    with evaluating(plain), torch.enable_grad(), _squared_norms(plain, weights) as squares:
        for input_ids, prompt_length in sequences:
            _mean_nll(plain, input_ids, max(prompt_length, 1)).backward(inputs=weights)
            norms.append(math.sqrt(float(torch.stack(squares).sum())))
            squares.clear()
            if progress is not None:
                progress(1)
    return norms


@contextmanager
def _squared_norms(model: PreTrainedModel, weights: Sequence[nn.Parameter]) -> Iterator[list[Float[Tensor, ""]]]:
    """Yield a list to which a backward pass adds the squared gradient norm of each weight, in float64."""
    squares: list[Tensor] = []
    was = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]

    def take(weight: Tensor) -> None:
        if weight.grad is not None:
            squares.append(torch.linalg.vector_norm(weight.grad, dtype=torch.float32).double().square())
            weight.grad = None

    with ExitStack() as stack:
        try:
            for parameter, _, _ in was:
                parameter.requires_grad_(False)
                parameter.grad = None
            for weight in weights:
                weight.requires_grad_(True)
                stack.callback(weight.register_post_accumulate_grad_hook(take).remove)
            yield squares
        finally:
            for parameter, required, gradient in was:
                parameter.requires_grad_(required)
                parameter.grad = gradient


def _mean_nll(model: PreTrainedModel, input_ids: Sequence[int], start: int) -> Float[Tensor, ""]:
    tokens = torch.tensor([list(input_ids)], device=model.device)
    kept = tokens.shape[1] - start + 1
    options = {"logits_to_keep": kept} if takes(model, "logits_to_keep") else {}
    logits = model(input_ids=tokens, use_cache=False, **options).logits[0, -kept:-1]
    return nn.functional.cross_entropy(logits.float(), tokens[0, start:])
