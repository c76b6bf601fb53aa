"""What each expert of a mixture sees and gets back: statistics of a slice of a tensor that no layer owns.

The experts' own forward is replaced, while it is measured, by one that reads the same tensors expert by expert and
knows which token each row is. So row t of an expert's input and output gradient belongs to the example that token t
stands in, and G_b = D_b^T X_b over the tokens of example b that were routed there. An example without such a token has
a gradient of zero there, which counts as a sample like every other.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from unlora.errors import InputError
from unlora.importance.hooks import LEAVE_OUT, Consumer, Tap
from unlora.models.experts import PROJECTIONS, ExpertModule

Rows = tuple[Int[Tensor, " row"], Float[Tensor, "row d_in"], Float[Tensor, "row d_out"]]
"""Tokens, and what one expert sees of them and gets back."""


class ExpertTaps:
    """Feeds `consume(name, inputs, output_gradients)` once per expert and backward pass, as `GradientTaps` does.

    The tokens of an example are padded with zeros to the longest of the batch. An expert that no token reached gets
    zeros; one that is fed is fed as soon as the backward pass is through with it, so that no batch is held.
    """

    def __init__(self, experts: Mapping[str, ExpertModule], consume: Consumer) -> None:
        self._experts = experts
        self._consume = consume
        self._batch_shape = (0, 0)
        self._uses: Counter[str] = Counter()
        self._forward = True
        self._arrived: dict[str, list[Rows]] = {}
        self._fed: set[str] = set()

    @contextmanager
    def attached(self) -> Iterator["ExpertTaps"]:
        """Put the forwards in place; the models' own come back on every way out."""
        holders: dict[nn.Module, dict[tuple[str, int], str]] = defaultdict(dict)
        for name, expert in self._experts.items():
            holders[expert.module][expert.parameter.rpartition(".")[2], expert.index] = name
        with ExitStack() as stack:
            for module, names in holders.items():
                before = vars(module).get("forward")
                stack.callback(_put_back, module, before)
                module.forward = partial(self._read, module, names)
            yield self

    def start_batch(self, batch_size: int, token_count: int) -> None:
        """Say how many examples, of how many positions, the coming forward pass has."""
        self._batch_shape = (batch_size, token_count)
        self._uses.clear()
        self._arrived.clear()
        self._fed.clear()
        self._forward = True

    def start_backward(self) -> None:
        """Say that the forward pass is over: what checkpointing repeats of it from now on is no further use."""
        self._forward = False

    def finish_batch(self) -> None:
        """Feed zeros for the experts that no token reached.

        Raises:
            InputError: an expert that was used got no gradient.
        """
        for name, expert in self._experts.items():
            if name in self._fed:
                continue
            if self._uses[name]:
                raise InputError(f"target module '{name}' took no part in the loss; {LEAVE_OUT}.")
            nothing = expert.module.get_parameter(expert.parameter.rpartition(".")[2]).new_zeros
            batch_size = self._batch_shape[0]
            self._consume(name, nothing(batch_size, 1, expert.d_in), nothing(batch_size, 1, expert.d_out))

    def _read(self, module: Any, names: Mapping[tuple[str, int], str], *args: Any, **options: Any) -> Tensor:
        """What transformers' experts compute of (hidden states, experts of each token, their weights)."""
        hidden, chosen, shares = [*args, *options.values()][:3]
        rows, width = hidden.reshape(-1, hidden.shape[-1]), chosen.shape[-1]
        chosen, shares = chosen.reshape(-1, width), shares.reshape(-1, width)
        if len(rows) != self._batch_shape[0] * self._batch_shape[1] or len(chosen) != len(rows):
            raise InputError(
                f"{next(iter(names.values()))}: sees {len(rows)} tokens of {self._batch_shape[0]} examples of "
                f"{self._batch_shape[1]}; {LEAVE_OUT}."
            )
        first = next(kind for kind in PROJECTIONS if module._parameters.get(kind) is not None)
        output = torch.zeros_like(rows)
        for index in chosen.unique().tolist():
            if index >= module.num_experts:  # In place of an expert that another process holds, or of none
                continue
            tokens, places = torch.where(chosen == index)
            inner = self._product(module, names.get((first, index)), first, index, rows[tokens], tokens)
            inner = module._apply_gate(inner) if module.has_gate else module.act_fn(inner)
            outer = self._product(module, names.get(("down_proj", index)), "down_proj", index, inner, tokens)
            if getattr(module, "has_post_expert_norm", False):
                outer = module.post_expert_norm(outer)
            output = output.index_add(0, tokens, (outer * shares[tokens, places, None]).to(output.dtype))
        return output.reshape(hidden.shape)

    def _product(
        self, module: Any, name: str | None, kind: str, index: int, inputs: Tensor, tokens: Tensor
    ) -> Float[Tensor, "row d_out"]:
        matrix = getattr(module, kind)[index]
        output = inputs @ matrix if module.is_transposed else F.linear(inputs, matrix)
        if module.has_bias:
            output = output + getattr(module, f"{kind}_bias")[index]
        if name is None or not output.requires_grad:
            return output
        self._uses[name] += self._forward
        return Tap.apply(output, inputs.detach(), partial(self._take, name, tokens))

    def _take(self, name: str, tokens: Tensor, inputs: Tensor, gradients: Tensor) -> None:
        arrived = self._arrived.setdefault(name, [])
        arrived.append((tokens, inputs, gradients))
        if len(arrived) == max(1, self._uses[name]):
            parts = [self._by_example(*rows) for rows in arrived]
            del self._arrived[name]
            self._fed.add(name)
            self._consume(name, *(torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True)))

    def _by_example(self, tokens: Tensor, *tensors: Tensor) -> list[Tensor]:
        """Lay rows out as (example, token, width), zeros behind the last of an example."""
        batch_size, length = self._batch_shape
        examples = tokens // length
        counts = examples.bincount(minlength=batch_size)
        places = torch.arange(len(tokens), device=tokens.device) - (counts.cumsum(0) - counts)[examples]
        laid = []
        for rows in tensors:
            padded = rows.new_zeros(batch_size, int(counts.max()), rows.shape[-1])
            padded[examples, places] = rows
            laid.append(padded)
        return laid


def _put_back(module: nn.Module, forward: Callable[..., Any] | None) -> None:
    if forward is None:
        del module.forward
    else:
        module.forward = forward
