"""What decides the function of a model or of an adapter, as one hash."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from unlora import processes
from unlora.artifacts import file_sha256, read_json_object
from unlora.errors import InputError
from unlora.models.wrapping import CausalModel, canonical_name, unwrap

WITHOUT_EFFECT = frozenset(
    "architectures auto_map bos_token_id dtype eos_token_id gradient_checkpointing id2label label2id "
    "output_attentions output_hidden_states pad_token_id return_dict tie_word_embeddings torch_dtype "
    "transformers_version use_cache".split()
)
"""What a config says of files, of how a call is answered, or of what the weights tell already."""

OLD_SPELLINGS = ("rope_theta", "rope_scaling")
"""Of what `rope_parameters` holds; some writers add them for old readers."""


def fingerprint(model: CausalModel) -> str:
    """Return a SHA-256 over names, shapes, dtypes and bytes of the plain model's state dict, and over its config.

    The same weights are another model where the config names another activation or another rotary base. Tied weights
    count once. An adapter around the model does not change it, whatever the adapter's values.
    """
    tensors: dict[str, torch.Tensor] = {}
    for wrapped_name, tensor in unwrap(model).state_dict(keep_vars=True).items():
        name = canonical_name(wrapped_name)
        if name is not None:
            tensors[name] = tensor
    digest, seen = hashlib.sha256(), set()
    digest.update(json.dumps(function_settings(unwrap(model).config), sort_keys=True, default=str).encode())
    for name, tensor in sorted(tensors.items()):
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        whole = processes.whole(tensor).detach()
        digest.update(f"{name} {tuple(whole.shape)} {whole.dtype}\n".encode())
        digest.update(whole.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def function_settings(config: PreTrainedConfig) -> dict[str, Any]:
    """What a config says of the function that the weights make up, without paths, versions and number formats."""
    return _with_effect(config.to_dict())


def _with_effect(values: Mapping[Any, Any]) -> dict[str, Any]:
    spelt_anew = bool(values.get("rope_parameters"))
    kept: dict[str, Any] = {}
    for key, value in values.items():
        old = spelt_anew and key in OLD_SPELLINGS
        of_gguf = key == "quantization_config" and isinstance(value, dict) and value.get("quant_method") == "gguf"
        if str(key).startswith("_") or key in WITHOUT_EFFECT or old or of_gguf:
            continue
        kept[str(key)] = _with_effect(value) if isinstance(value, dict) else value
    return kept


def adapter_sha256(folder: Path) -> str:
    """Hash the adapter in `folder`: its tensors and its configuration (alpha scales them), but not its base's name.

    Raises:
        InputError: no adapter, or an unreadable one.
    """
    config = read_json_object(folder / "adapter_config.json")
    tensors = folder / "adapter_model.safetensors"
    if not tensors.is_file():
        raise InputError(f"{folder}: not a complete adapter (adapter_config.json and adapter_model.safetensors).")
    config.pop("base_model_name_or_path", None)
    # PEFT writes its sets, such as the target modules, in the order in which they come out, another in every process.
    config = {key: sorted(value, key=str) if isinstance(value, list) else value for key, value in config.items()}
    content = json.dumps(config, sort_keys=True) + file_sha256(tensors)
    return hashlib.sha256(content.encode()).hexdigest()
