"""LoRA factors of rank 2r whose halves are multiplied apart: the anchor cancels exactly and cannot learn.

One product of width 2r would sum B0 a - B0 a in whatever order the kernel likes and leave a rounding error, which
thirty layers amplify to 2e-4 in a float32 logit (SmolLM2). Two products of the same shape give the same bits, so their
difference is zero. Detaching the second half freezes it by construction and spares its gradient.

These modules hold the same parameter under the same name as the `nn.Linear` they stand in for: what is saved is a plain
LoRA adapter, and what is loaded elsewhere is one.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class HalvedA(nn.Linear):
    """A = [A; A0], (2r, d_in): x -> [A x; A0 x]."""

    def forward(self, input: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch two_ranks"]:
        trained, anchor = self.weight.chunk(2, dim=0)
        return torch.cat([F.linear(input, trained), F.linear(input, anchor.detach())], dim=-1)


class HalvedB(nn.Linear):
    """B = [B, -B0], (d_out, 2r): [a; a0] -> B a - B0 a0."""

    def forward(self, input: Float[Tensor, "*batch two_ranks"]) -> Float[Tensor, "*batch d_out"]:
        trained, anchor = self.weight.chunk(2, dim=1)
        trained_input, anchor_input = input.chunk(2, dim=-1)
        return F.linear(trained_input, trained) + F.linear(anchor_input, anchor.detach())


class FrozenHalvedA(nn.Linear):
    """A = [A0; A0] that does not learn: one product serves both halves."""

    def forward(self, input: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch two_ranks"]:
        anchor = F.linear(input, self.weight.chunk(2, dim=0)[1].detach())
        return torch.cat([anchor, anchor], dim=-1)


class FrozenA(nn.Linear):
    """A that does not learn. `requires_grad` would be set again by whoever loads a checkpoint."""

    def forward(self, input: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch rank"]:
        return F.linear(input, self.weight.detach())


def stand_in(linear: nn.Module, kind: type[HalvedA] | type[HalvedB] | type[FrozenHalvedA] | type[FrozenA]) -> nn.Linear:
    """Return the stand-in of one of PEFT's factors, sharing its parameter."""
    weight = linear.get_parameter("weight")
    with torch.device("meta"):
        halved = kind(weight.shape[1], weight.shape[0], bias=False)
    halved.weight = nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
    return halved
