"""The forward passes of transformers' classes of experts, expert by expert, with every product passed on to taps.

Each computes what the class computes from the same tensors, in a form in which it is known which token a row of a
product belongs to.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlora.models.expert_forms import PROJECTIONS
from unlora.models.experts import plain_layer


class Tapped(NamedTuple):
    """What the taps do with what a reader comes across."""

    product: Callable[[str, int, Tensor, Tensor, Tensor], Tensor]
    """(name of the tensor, expert, inputs (row, d_in), token of each row, output (row, d_out)) -> output."""
    check: Callable[[int], None]
    """Refuses a number of tokens that is not the batch's."""


@contextmanager
def read_by_expert(reader: nn.Module, tapped: Tapped) -> Iterator[None]:
    """Put the forwards in place; the class's own come back on every way out."""
    kind = type(reader).__name__
    with ExitStack() as stack:
        if kind in ("JetMoeMoE", "JetMoeMoA"):
            _sort_by_router(reader, tapped, stack)
        elif kind == "Llama4TextExperts":
            _replace(reader, partial(_every_expert, reader, tapped), stack)
        else:
            compute = {"DbrxExperts": _dbrx, "LongcatFlashExperts": _longcat}.get(kind, _gated)
            _replace(reader, partial(_by_choice, partial(compute, reader, tapped), _count(reader), tapped), stack)
        yield


def _replace(module: nn.Module, forward: Callable[..., Tensor], stack: ExitStack) -> None:
    before = vars(module).get("forward")
    stack.callback(_put_back, module, before)
    module.forward = forward


def _put_back(module: nn.Module, forward: Callable[..., Any] | None) -> None:
    if forward is None:
        del module.forward
    else:
        module.forward = forward


def _count(reader: Any) -> int:
    """How many experts a token may be sent to; LongCat-Flash counts those apart that hand it on as it is."""
    return int(reader.total_experts if hasattr(reader, "total_experts") else reader.num_experts)


def _by_choice(
    compute: Callable[[int, Tensor, Tensor], Tensor], experts: int, tapped: Tapped, *args: Any, **options: Any
) -> Tensor:
    """What most classes compute of (hidden states, experts of each token, their weights)."""
    hidden, chosen, shares = [*args, *options.values()][:3]
    rows, width = hidden.reshape(-1, hidden.shape[-1]), chosen.shape[-1]
    chosen, shares = chosen.reshape(-1, width), shares.reshape(-1, width)
    tapped.check(len(rows) if len(chosen) == len(rows) else -1)
    flat = chosen.flatten()
    if flat.is_meta:  # Without values tokens go to the experts in turn: what is kept and computed is the same.
        flat = torch.arange(len(flat)).remainder(experts)
    order = flat.argsort(stable=True)  # By expert, and by token within one.
    counts = flat.bincount(minlength=experts)
    # What lies above is in place of an expert that another process holds, or of none.
    order, sizes = order[: int(counts[:experts].sum())], counts[:experts].tolist()
    order = order.to(rows.device)
    tokens = order // width
    parts = zip(rows.index_select(0, tokens).split(sizes), tokens.split(sizes), strict=True)
    outer = [compute(index, *part) for index, part in enumerate(parts) if sizes[index]]
    if not outer:
        return torch.zeros_like(hidden)
    weighted = torch.cat(outer) * shares.flatten()[order, None]
    return torch.zeros_like(rows).index_add(0, tokens, weighted.to(rows.dtype)).reshape(hidden.shape)


def _gated(module: Any, tapped: Tapped, index: int, rows: Tensor, tokens: Tensor) -> Tensor:
    """A class that follows the interface for experts."""
    first = next(kind for kind in PROJECTIONS if module._parameters.get(kind) is not None)
    inner = _product(module, tapped, first, index, rows, tokens)
    # A class without the interface (Step 3.7) has a gate always, and no bias.
    inner = module._apply_gate(inner) if getattr(module, "has_gate", True) else module.act_fn(inner)
    outer = _product(module, tapped, "down_proj", index, inner, tokens)
    return module.post_expert_norm(outer) if getattr(module, "has_post_expert_norm", False) else outer


def _product(module: Any, tapped: Tapped, kind: str, index: int, inputs: Tensor, tokens: Tensor) -> Tensor:
    matrix = getattr(module, kind)[index]
    output = inputs @ matrix if getattr(module, "is_transposed", False) else F.linear(inputs, matrix)
    if getattr(module, "has_bias", False):
        output = output + getattr(module, f"{kind}_bias")[index]
    return tapped.product(kind, index, inputs, tokens, output)


def _dbrx(module: Any, tapped: Tapped, index: int, rows: Tensor, tokens: Tensor) -> Tensor:
    """DBRX: matrices one below the other; w2 is (d_in, d_out)."""
    shape = (-1, module.ffn_hidden_size, module.hidden_size)
    w1, v1, w2 = (getattr(module.mlp, kind).view(shape)[index] for kind in ("w1", "v1", "w2"))
    gate = tapped.product("mlp.w1", index, rows, tokens, rows @ w1.T)
    inner = module.mlp.activation_fn(gate) * tapped.product("mlp.v1", index, rows, tokens, rows @ v1.T)
    return tapped.product("mlp.w2", index, inner, tokens, inner @ w2)


def _longcat(module: Any, tapped: Tapped, index: int, rows: Tensor, tokens: Tensor) -> Tensor:
    """LongCat-Flash: behind the experts come those that hand a token on as it is."""
    if index >= module.num_routed_experts:
        return rows
    gate, up = _product(module, tapped, "gate_up_proj", index, rows, tokens).chunk(2, dim=-1)
    return _product(module, tapped, "down_proj", index, module.act_fn(gate) * up, tokens)


def _every_expert(module: Any, tapped: Tapped, hidden: Tensor) -> Tensor:
    """Llama 4: every expert reads every token, times its weight, which is zero where it was not chosen."""
    outputs = []
    for index, rows in enumerate(hidden.view(module.num_experts, -1, module.hidden_size)):
        tapped.check(len(rows))
        tokens = torch.arange(len(rows), device=rows.device)
        inner = tapped.product("gate_up_proj", index, rows, tokens, rows @ module.gate_up_proj[index])
        gate, up = inner.chunk(2, dim=-1)
        inner = up * module.act_fn(gate)
        outputs.append(tapped.product("down_proj", index, inner, tokens, inner @ module.down_proj[index]))
    return torch.cat(outputs)


def _sort_by_router(block: Any, tapped: Tapped, stack: ExitStack) -> None:
    """JetMoE: its router sorts the tokens by expert; both products see the rows in that order."""
    sorted_tokens: list[Tensor] = []

    def note(_module: nn.Module, inputs: tuple[Tensor, ...], output: tuple[Any, ...]) -> None:
        tapped.check(len(inputs[0]))
        sorted_tokens[:] = [output[1]]

    stack.callback(block.router.register_forward_hook(note).remove)
    for path in ("input_linear", "output_linear"):
        layer: Any = plain_layer(getattr(block, path))
        _replace(layer, partial(_sorted, layer, tapped, path, sorted_tokens), stack)


def _sorted(layer: Any, tapped: Tapped, path: str, sorted_tokens: list[Tensor], rows: Tensor, sizes: Any) -> Tensor:
    parts = zip(rows.split(sizes), sorted_tokens[0].split(sizes), strict=True)
    outputs = []
    for index, (inputs, tokens) in enumerate(parts):
        output = F.linear(inputs, layer.weight[index])
        outputs.append(tapped.product(f"{path}.weight", index, inputs, tokens, output) if len(tokens) else output)
    return torch.cat(outputs)
