"""ReGLU's start and its penalty (arXiv 2604.17396): where the layers' outputs tell forget from retain examples.

Per layer, h is the sum over an example's tokens of the layer's outputs, and Cov = mean over a set's examples of h h^T:

    B = leading r eigenvectors of (1 - b) Cov_forget - b Cov_retain,    A = B^T W,
    penalty = weight x sum over layers of ||U^T B||_F^2,    U = leading k eigenvectors of Cov_retain.

Formulas and constants are those of the authors' released code (sustech-nlp/ReGLU, MIT licence); the paper itself was
not compared. Three things differ. The released code subtracts s B A from the base weights; here the factors start an
anchored adapter, whose trainable half is the B of the penalty. It sums over padding too; here padding does not count.
And it adds 1e-4 to the diagonal of both matrices, which changes no eigenvector. Paper's settings: r 32, alpha 64,
256 examples of either set, b 0.7 on TOFU and 0.5 on WMDP, k 128, weight 0.5.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from unlora.adapters.anchored import ADAPTER_NAME, factor_parameters, lora_layers, refuse_adapter
from unlora.adapters.halves import HalvedB
from unlora.adapters.initial import FactorRequest, InitialFactors, refuse_rank
from unlora.errors import InputError
from unlora.importance.accumulate import MODEL_INPUTS, Batch
from unlora.importance.hooks import LEAVE_OUT
from unlora.models.forward import completion_logits
from unlora.models.target_modules import TargetModule
from unlora.starts.peft_layers import left_as_found
from unlora.starts.reading import by_example

RETAIN_SHARE = 0.7
RETAIN_DIRECTIONS = 128
PENALTY_WEIGHT = 0.5

SummedOutputs = Float[Tensor, "example d_out"]
Subspace = Float[Tensor, "d_out direction"]


@dataclass(frozen=True)
class RetainSide:
    """What the retain set has a say in."""

    share: float = RETAIN_SHARE
    """b, 0 (the forget set decides) up to but without 1."""
    directions: int = RETAIN_DIRECTIONS
    """k; fewer where the layer or the retain set has not so many."""

    def __post_init__(self) -> None:
        """Refuse what is out of range.

        Raises:
            InputError: naming it.
        """
        if not 0 <= self.share < 1:
            raise InputError(f"retain share: {self.share} must be at least 0 and less than 1.")
        if self.directions < 1:
            raise InputError(f"retain directions: {self.directions} must be at least 1.")


class RepresentationStart(NamedTuple):
    """What both sets' outputs decide."""

    factors: dict[str, InitialFactors]
    """Canonical name -> B (d_out, r) with orthonormal columns, leading first, and A = B^T W."""
    retain_subspaces: dict[str, Subspace]
    """Canonical name -> U, orthonormal columns, leading first; what `OrthogonalityPenalty` keeps B out of."""


def representation_start(
    model: PreTrainedModel,
    targets: Mapping[str, TargetModule],
    forget_batches: Iterable[Batch],
    retain_batches: Iterable[Batch],
    request: FactorRequest,
    side: RetainSide = RetainSide(),
) -> RepresentationStart:
    """Read both sets once, forward only, and decompose what the layers put out; (examples, d_out) is held per layer.

    B and A are not divided by the scaling s, as in the released code: ||B||_F is sqrt(r), and the product that the
    anchor cancels is s B B^T W.

    Args:
        model: the model whose layers `targets` are; it is left as it was found.
        targets: canonical name -> linear layer.
        forget_batches: dict batches; every real token of the prompt and the completion counts.
        retain_batches: likewise.
        request: r, and s, which enters `relative_residual` alone.
        side: b and k.

    Raises:
        InputError: the rank is larger than a layer or, in a layer wider than both sets together, than the number of
            forget examples; an empty set; a layer that takes no part or mixes the examples.
    """
    refuse_adapter(model)
    for target in targets.values():
        refuse_rank(request.rank, target)
    forget = summed_outputs(model, targets, forget_batches, "forget")
    retain = summed_outputs(model, targets, retain_batches, "retain")
    factors, subspaces = {}, {}
    for name, target in targets.items():
        weight = target.weight().cpu()
        lora_b = representation_directions(forget.pop(name), retain[name], request.rank, side.share)
        lora_a = (lora_b.T @ weight.double()).float()
        subspaces[name] = leading_directions(retain.pop(name), side.directions)
        lora_b = lora_b.float()
        lost = torch.linalg.vector_norm(weight - request.scaling * lora_b @ lora_a)
        residual = lost / torch.linalg.vector_norm(weight)
        factors[name] = InitialFactors(lora_b, lora_a, float(residual.nan_to_num()), "reglu", None)
        request.done()
    return RepresentationStart(factors, subspaces)


@torch.no_grad()
def summed_outputs(
    model: PreTrainedModel, targets: Mapping[str, TargetModule], batches: Iterable[Batch], set_name: str
) -> dict[str, SummedOutputs]:
    """Each target's outputs, bias included, summed over the real tokens of every example; float32, on the CPU.

    Raises:
        InputError: the set is empty, or a layer takes no part, is used twice, or does not keep the examples apart.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in targets}
    mask = torch.empty(0, 0)

    def hook_of(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            outputs = by_example(name, "puts out", output, mask)
            found[name].append((outputs * mask.to(outputs.device)[..., None]).sum(dim=1).cpu())

        return hook

    batch_count = 0
    with left_as_found(model, targets):
        model.eval()
        for name, target in targets.items():
            target.module.register_forward_hook(hook_of(name))
        for batch_count, batch in enumerate(batches, start=1):  # noqa: B007  counted for the check below
            mask = batch["attention_mask"].float()
            completion_logits(model, {key: batch[key].to(model.device) for key in MODEL_INPUTS})
    if batch_count == 0:
        raise InputError(f"reglu: the {set_name} set is empty.")
    for name, outputs in found.items():
        if len(outputs) != batch_count:
            raise InputError(f"target module '{name}' is not used exactly once in a forward pass; {LEAVE_OUT}.")
    return {name: torch.cat(outputs) for name, outputs in found.items()}


def representation_directions(
    forget: SummedOutputs, retain: Float[Tensor, "retain_example d_out"], rank: int, retain_share: float
) -> Float[Tensor, "d_out rank"]:
    """Eigenvectors of the r largest eigenvalues of (1 - b) Cov_forget - b Cov_retain, leading first; float64.

    The matrix is never formed: in the span of all examples' outputs (h = Q R) it is R diag(weights) R^T.

    Raises:
        InputError: r directions are not determined.
    """
    weights = torch.cat(
        [
            torch.full((len(forget),), (1 - retain_share) / len(forget), dtype=torch.float64),
            torch.full((len(retain),), -retain_share / len(retain), dtype=torch.float64),
        ]
    )
    q, r = torch.linalg.qr(torch.cat([forget, retain]).double().T)
    if q.shape[1] < q.shape[0] and rank > len(forget):
        raise InputError(
            f"adapter.rank: {len(forget)} forget examples determine no {rank} directions; use more examples or a "
            "smaller rank."
        )
    _, vectors = torch.linalg.eigh((r * weights) @ r.T)
    return (q @ vectors[:, -rank:]).flip(1)


def leading_directions(outputs: SummedOutputs, count: int) -> Subspace:
    """Eigenvectors of the `count` largest eigenvalues of a set's Cov, leading first; only as many as it spans."""
    _, values, vectors = torch.linalg.svd(outputs.double(), full_matrices=False)
    spanned = int((values > values[0] * max(outputs.shape) * torch.finfo(torch.float32).eps).sum())
    return vectors[: min(count, spanned)].T.float().contiguous()


@dataclass(frozen=True, eq=False)
class OrthogonalityPenalty:
    """ReGLU's ROL: weight x sum over layers of ||U^T B||_F^2, at least 0, lower when B keeps out of the retain outputs.

    The released code adds up layers and does not average them, so its size grows with depth and rank.
    """

    retain_subspaces: Mapping[str, Subspace]
    """Canonical name -> U; layers that are not named are free."""
    weight: float = PENALTY_WEIGHT

    def __call__(self, model: nn.Module) -> Float[Tensor, ""]:
        """Of the adapter's trainable B, the first half of an anchored one; differentiable.

        Raises:
            InputError: the adapter lacks a layer that is named.
        """
        layers = dict(lora_layers(model))
        total = torch.zeros(())
        for name, subspace in self.retain_subspaces.items():
            if name not in layers:
                raise InputError(f"orthogonality penalty: the adapter has no layer '{name}'.")
            lora_b = factor_parameters(layers[name])[1]
            if isinstance(layers[name].lora_B[ADAPTER_NAME], HalvedB):
                lora_b, _ = lora_b.chunk(2, dim=1)
            overlap = subspace.to(lora_b.device).T @ lora_b.float()
            total = total.to(overlap.device) + overlap.square().sum()
        return self.weight * total

    def to(self, device: torch.device) -> "OrthogonalityPenalty":
        """Return the penalty with its subspaces on `device`, where the model is, so that no step moves them."""
        return OrthogonalityPenalty({name: u.to(device) for name, u in self.retain_subspaces.items()}, self.weight)
