"""A model without its weights: shapes, parameters, and what a step on it keeps and computes."""

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from unlora.models.adapter_target import plain_base
from unlora.models.even_routing import route_evenly
from unlora.models.formats import settle_format
from unlora.models.forward import takes, token_kinds
from unlora.models.load import read_config
from unlora.models.locate import locate
from unlora.models.named_class import auto_class
from unlora.models.reading import reading
from unlora.models.without_values import read_shapes


def load_skeleton(name: str, *, base: str | None, dtype: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    """Build the model on the meta device from its config alone; of an adapter, the base that it would be merged into.

    Raises:
        InputError: there is no such model, or its config cannot be read.
    """
    name = plain_base(name, base)
    config = read_config(name, locate(name), trust_remote_code)
    settle_format(name, config)
    with reading(f"model '{name}': its config cannot be read"), torch.device("meta"):
        model = auto_class(config).from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    model.set_experts_implementation("batched_mm")  # The default multiplies without values in bfloat16 only.
    route_evenly(model)
    return model.requires_grad_(False)


class Footprint(NamedTuple):
    """What one forward and backward pass costs, but for the output head."""

    activation_bytes: int
    """Kept from the forward for the backward pass, parameters not counted."""
    flops: int
    """Floating-point operations of both passes, a multiply-add as two."""


def footprint(model: nn.Module, sequences: int, length: int) -> Footprint:
    """Run both passes over (sequences, length) tokens and count; on a skeleton nothing is computed or held.

    Every tensor that autograd saves counts once, whatever views of it are saved, but for those of shape
    (..., length, length): fused kernels keep no attention weights. Give an odd length, which no width of a layer is.
    Logits are taken of one token a sequence and have to be added.

    Raises:
        InputError: the model cannot be read without values.
    """
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    # Weights of experts, copied for each token, which the default does without.
    experts = {shape for each in model.parameters() if each.ndim == 3 for shape in (each.shape[1:], each.shape[:0:-1])}
    options = {"use_cache": False} | ({"logits_to_keep": 1} if takes(model, "logits_to_keep") else {})

    def read(inputs: dict[str, Any]) -> Footprint:
        kept: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            copied = tensor.ndim == 3 and tensor.shape[1:] in experts
            if storage._cdata not in own and tensor.shape[-2:] != (length, length) and not copied:
                kept[storage._cdata] = storage  # held, so that its place is not given to another
            return tensor

        unpack, count = (lambda tensor: tensor), FlopCounterMode(display=False)
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack), count:
            model(**inputs, **options, **token_kinds(model, ids)).logits[:, -1:].sum().backward()
        return Footprint(sum(storage.nbytes() for storage in kept.values()), count.get_total_flops())

    ids = torch.zeros(sequences, length, dtype=torch.long, device=next(model.parameters()).device)
    return read_shapes(ids, read)
