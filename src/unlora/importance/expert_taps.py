"""What each expert of a mixture sees and gets back: statistics of a slice of a tensor that no layer owns.

The experts' own forward is replaced, while it is measured, by one that reads the same tensors expert by expert and
knows which token each row is (`expert_readers`). So row t of an expert's input and output gradient belongs to the
example that token t stands in, and G_b = D_b^T X_b over the tokens of example b that were routed there. An example
without such a token has a gradient of zero there, which counts as a sample like every other.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unlora.errors import InputError
from unlora.importance.expert_readers import Tapped, read_by_expert
from unlora.importance.hooks import LEAVE_OUT, Consumer, Tap
from unlora.models.experts import ExpertModule, experts_tensor

ExpertRows = tuple[Int[Tensor, " row"], Float[Tensor, "row d_in"], Float[Tensor, "row d_out"]]
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
        self._arrived: dict[str, list[ExpertRows]] = {}
        self._fed: set[str] = set()

    @contextmanager
    def attached(self) -> Iterator["ExpertTaps"]:
        """Put the forwards in place; the models' own come back on every way out."""
        with ExitStack() as stack:
            for reader, experts in _by_reader(self._experts).items():
                stack.enter_context(read_by_expert(reader, self._tap(experts)))
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
            nothing = experts_tensor(expert).new_zeros
            batch_size = self._batch_shape[0]
            self._consume(name, nothing(batch_size, 1, expert.d_in), nothing(batch_size, 1, expert.d_out))

    def _tap(self, experts: Mapping[tuple[str, int], ExpertModule]) -> Tapped:
        def tapped(path: str, index: int, inputs: Tensor, tokens: Tensor, output: Tensor) -> Tensor:
            expert = experts.get((path, index))
            if expert is None or not output.requires_grad:
                return output
            self._uses[expert.name] += self._forward
            return Tap.apply(output, inputs.detach(), partial(self._take, expert.name, tokens))

        def check(rows: int) -> None:
            if rows != self._batch_shape[0] * self._batch_shape[1]:
                raise InputError(
                    f"{next(iter(experts.values())).name}: sees {rows} tokens of {self._batch_shape[0]} examples of "
                    f"{self._batch_shape[1]}; {LEAVE_OUT}."
                )

        return Tapped(tapped, check)

    def _take(self, name: str, tokens: Tensor, inputs: Tensor, gradients: Tensor) -> None:
        arrived = self._arrived.setdefault(name, [])
        arrived.append((tokens, inputs, gradients))
        if len(arrived) == max(1, self._uses[name]):
            parts = [self._by_example(*rows) for rows in arrived]
            del self._arrived[name]
            self._fed.add(name)
            laid = parts[0] if len(parts) == 1 else [torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True)]
            self._consume(name, *laid)

    def _by_example(self, tokens: Tensor, *tensors: Tensor) -> list[Tensor]:
        """Lay rows out as (example, token, width), zeros behind the last of an example."""
        batch_size, length = self._batch_shape
        examples = tokens // length
        counts = examples.bincount(minlength=batch_size)
        before = torch.empty_like(tokens)  # Rows of earlier tokens, whatever order they came in
        before[tokens.argsort()] = torch.arange(len(tokens), device=tokens.device)
        places = before - (counts.cumsum(0) - counts)[examples]
        laid = []
        for rows in tensors:
            padded = rows.new_zeros(batch_size, int(counts.max()), rows.shape[-1])
            padded[examples, places] = rows
            laid.append(padded)
        return laid


@contextmanager
def keeping(experts: Mapping[str, ExpertModule]) -> Iterator[None]:
    """Keep of a forward pass what `ExpertTaps` keeps, for nobody: what it takes can be counted without values."""

    def tap(measured: Mapping[tuple[str, int], ExpertModule]) -> Tapped:
        def tapped(path: str, index: int, inputs: Tensor, _tokens: Tensor, output: Tensor) -> Tensor:
            known = (path, index) in measured and output.requires_grad
            return Tap.apply(output, inputs.detach(), lambda *_: None) if known else output

        return Tapped(tapped, lambda _rows: None)

    with ExitStack() as stack:
        for reader, measured in _by_reader(experts).items():
            stack.enter_context(read_by_expert(reader, tap(measured)))
        yield


def _by_reader(experts: Mapping[str, ExpertModule]) -> dict[nn.Module, dict[tuple[str, int], ExpertModule]]:
    """What reads them -> (name of the tensor, expert) -> expert."""
    readers: dict[nn.Module, dict[tuple[str, int], ExpertModule]] = defaultdict(dict)
    for expert in experts.values():
        readers[expert.reader][expert.path, expert.index] = expert
    return dict(readers)
