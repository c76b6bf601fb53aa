"""The model that people ship: adapter merged into the weights, saved, and read back in fewer bits."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from unlora.adapters.anchored import ADAPTER_NAME, lora_layers
from unlora.adapters.expert_factors import expert_layers
from unlora.errors import UnloraError
from unlora.models.named_class import auto_class
from unlora.models.quantised import Bits, compute_in_full, loading_options, loading_quietly
from unlora.models.reading import one_line
from unlora.models.save import save_model
from unlora.models.wrapping import CausalModel, canonical_name, unwrap

Format = Literal["int8", "nf4"]

QUANTISATION: dict[Format, Bits] = {"int8": "8bit", "nf4": "4bit"}


def save_merged(model: CausalModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write W + s B A as a plain model folder. The model itself is not touched, not even for a moment.

    Needs memory for the merged layers beside the model's own; all other weights are shared.

    Args:
        model: Plain, or with an adapter (merged in, switched on or not).
        tokenizer: Saved beside it.
        folder: Must not exist yet, or be empty.

    Raises:
        InputError: the folder holds something already.
        UnloraError: the disk is full or the folder cannot be written.
    """
    plain = unwrap(model)
    settings = {key: value for key, value in plain.config.to_dict().items() if key != "quantization_config"}
    config = type(plain.config).from_dict(settings)
    with torch.device("meta"):
        twin = type(plain)(config)
    twin.load_state_dict(_merged_weights(model), assign=True)
    twin.tie_weights()
    twin.generation_config = plain.generation_config
    save_model(twin, tokenizer, folder)


@torch.no_grad()
def _merged_weights(model: CausalModel) -> dict[str, Tensor]:
    names = ((canonical_name(name), tensor) for name, tensor in unwrap(model).state_dict().items())
    weights = {name: tensor for name, tensor in names if name is not None}
    for name, layer in lora_layers(model):
        weight = weights[f"{name}.weight"]
        update = layer.get_delta_weight(ADAPTER_NAME)  # pyright: ignore[reportAttributeAccessIssue]  every linear one has it
        weights[f"{name}.weight"] = weight + update.to(weight.dtype)
    for tensor, wrapper in expert_layers(model):
        weights[tensor] = weights[tensor] + wrapper.get_delta_weight(ADAPTER_NAME).to(weights[tensor].dtype)
    return weights


@contextmanager
def rounded(folder: Path, format: Format, *, device: torch.device, dtype: torch.dtype) -> Iterator[PreTrainedModel]:
    """Yield the model of a folder in 8 or 4 bits, and free it afterwards.

    int8 is what `unlora.models.quantised` calls 8bit, nf4 what it calls 4bit; the rest of the model stays in `dtype`.
    On a CPU see `misread_layer` first.

    Raises:
        UnloraError: it cannot be read in this format on this device.
    """
    with loading_quietly():
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            model = (
                auto_class(config)
                .from_pretrained(
                    folder,
                    **loading_options(QUANTISATION[format], dtype, device),
                    dtype=dtype,
                    use_safetensors=True,
                    local_files_only=True,
                )
                .eval()
            )
            compute_in_full(model)
        except Exception as error:  # transformers raises whatever comes up
            raise UnloraError(f"{format}: {one_line(error)}") from None
        try:
            yield model
        finally:
            del model
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
