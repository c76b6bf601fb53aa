"""A target that is an adapter folder: which base it belongs to, and how the two become one model."""

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftConfig, PeftModel
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from unlora.artifacts import read_json_object, refuse_cut_tensors
from unlora.errors import InputError
from unlora.models.formats import forget_format
from unlora.models.merge import Expected, Merged, changes_nothing, merge_adapter, probe_logits
from unlora.models.origin import find_from, read_origin
from unlora.models.peft_trial import unread
from unlora.models.quantised import quantisation_of
from unlora.models.quiet import quiet
from unlora.models.reading import reading
from unlora.models.wrapping import PEFT_PREFIX, canonical_name

MATCHING_SECONDS = 10
"""How long the patterns of an adapter may take to be compared with the names of the layers."""

_MATCH = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    for name in names:
        re.fullmatch(pattern, name)
"""


def is_adapter(name: str) -> bool:
    """Whether a model's name is the folder of a PEFT adapter."""
    return (Path(name) / "adapter_config.json").is_file()


def recorded_base(folder: Path) -> str:
    """The base that an adapter folder names, with its revision where it names one.

    Raises:
        InputError: it names none, or itself by way of others.
    """
    base, seen = _named_base(folder), {folder.resolve()}
    below = base
    while is_adapter(below):
        if Path(below).resolve() in seen:
            raise InputError(f"{folder}: names itself as the base; give the model it belongs to with --base.")
        seen.add(Path(below).resolve())
        below = _named_base(Path(below))
    return base


def plain_base(name: str, base: str | None) -> str:
    """The model at the end of a chain of adapters; `name` itself where it is no adapter.

    Raises:
        InputError: as `recorded_base`.
    """
    while is_adapter(name):
        name, base = base or recorded_base(Path(name)), None
    return name


def _named_base(folder: Path) -> str:
    config, origin = read_json_object(folder / "adapter_config.json"), read_origin(folder)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if origin is not None and origin.base is not None and _tells_others(base, find_from(folder, origin.base)):
        return find_from(folder, origin.base)
    if not base or not isinstance(base, str):
        raise InputError(f"{folder}: does not say which model it belongs to; give that with --base.")
    base = find_from(folder, base)
    return f"{base}@{revision}" if revision and isinstance(revision, str) and not Path(base).exists() else base


def _tells_others(recorded: object, here: str) -> bool:
    """Whether PEFT is told a name for others (a hub id, or none for an adapter target), and not the way here."""
    if recorded is None:
        return is_adapter(here)
    return isinstance(recorded, str) and not recorded.startswith((".", "/")) and not Path(recorded).exists()


class MergedTarget(NamedTuple):
    """A base with its adapter in it."""

    merged: Merged
    notes: tuple[str, ...]
    """What PEFT had to say about the adapter, but for what is checked here."""


def merge_target(model: PreTrainedModel, folder: Path, *, base: str) -> MergedTarget:
    """Merge the adapter in `folder` into its base, which is used up.

    A base in 4 or 8 bits is multiplied out first: rounding the sum again would take away much of what the adapter
    added. The merged model, in full precision, has to compute what the adapter does on the rounded base.

    Raises:
        InputError: the adapter is damaged, no LoRA adapter, does not fit the base, or is another model when merged.
    """
    config = _readable_config(folder)
    refuse_slow_patterns(config, model, str(folder))
    fitting = f"{folder}: does not fit the base {base}"
    _fit_vocabulary(model, folder, base)
    expected = None
    if quantisation_of(model) is not None:
        wrapped, _ = _wrap(model, folder, fitting)
        expected = Expected(probe_logits(wrapped), computing_dtype(model))
        with reading(fitting), quiet():
            model = multiply_out(wrapped.unload())  # type: ignore[operator]  PEFT forwards it to the tuner
    wrapped, notes = _wrap(model, folder, fitting)
    if changes_nothing(wrapped):
        notes = (*notes, f"{folder}: this adapter changes nothing; the model is its base, {base}")
    return MergedTarget(merge_adapter(wrapped, where=str(folder), expected=expected), notes)


def _readable_config(folder: Path) -> dict[str, Any]:
    config = read_json_object(folder / "adapter_config.json")
    kind, start = config.get("peft_type"), config.get("init_lora_weights")
    if kind != "LORA":
        raise InputError(f"{folder}: is an adapter of type {kind}; only LoRA can be merged.")
    if isinstance(start, str) and start.startswith("pissa_niter"):
        raise InputError(
            f"{folder}: was started with {start}, which changed its base by directions drawn at random; nobody can "
            "load it again. Where it was trained, save_pretrained(path_initial_model_for_weight_conversion=...) makes "
            "plain LoRA of it."
        )
    if not (folder / "adapter_model.safetensors").is_file():
        raise InputError(f"{folder}: has no adapter_model.safetensors.")
    refuse_cut_tensors(folder)
    return config


def _wrap(model: PreTrainedModel, folder: Path, fitting: str) -> tuple[PeftModel, tuple[str, ...]]:
    """Lay the adapter on the base as plain PEFT does; nothing of either may be left without a counterpart."""
    with warnings.catch_warnings(record=True) as said, reading(fitting):
        with quiet():
            warnings.simplefilter("always", UserWarning, append=True)
            wrapped = PeftModel(model, PeftConfig.from_pretrained(str(folder)))
            found = wrapped.load_adapter(str(folder), "default", torch_device=str(model.device))
    strangers = [*found.missing_keys, *_without_second_copies(found.unexpected_keys, folder)]
    if strangers:
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            why = unread(wrapped, file.keys(), found.missing_keys)
        raise InputError(f"{fitting} (no counterpart for {strangers[0]}).{why}")
    return wrapped.eval(), tuple(dict.fromkeys(" ".join(str(one.message).split()) for one in said))


def _without_second_copies(unexpected: Sequence[str], folder: Path) -> list[str]:
    """Leave out what PEFT writes of a wholly trained layer beside its weight, if told to save embeddings too."""
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        names = set(file.keys())
    bare = {name: re.sub(r"\.(modules_to_save|original_module)(\.default)?\.", ".", name) for name in unexpected}
    return [name for name in unexpected if bare[name] == name or bare[name] not in names]


def multiply_out(model: PreTrainedModel) -> PreTrainedModel:
    """Turn layers that bitsandbytes holds in 4 or 8 bits into ordinary ones of the numbers that they multiply with."""
    embedding: Any = model.get_input_embeddings()
    model.dequantize(dtype=embedding.weight.dtype)
    return forget_format(model)


def computing_dtype(model: nn.Module) -> torch.dtype:
    """The coarsest number format that the rounded layers of a model compute in.

    8-bit layers round what they are given to 8 bits, which is as coarse as bfloat16.
    """
    dtypes = [getattr(module, "compute_dtype", None) for module in model.modules()]
    if getattr(model, "is_loaded_in_8bit", False):
        dtypes.append(torch.bfloat16)
    known = [dtype for dtype in dtypes if isinstance(dtype, torch.dtype)]
    own = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    return max([*known, own], key=lambda dtype: torch.finfo(dtype).eps)


def _fit_vocabulary(model: PreTrainedModel, folder: Path, base: str) -> None:
    """Give the base as many tokens as the adapter was trained with, where the adapter holds their embeddings."""
    embedding: Any = model.get_input_embeddings()
    count, shapes = embedding.weight.shape[0], _tensor_shapes(folder)
    names = {id(module): name for name, module in model.named_modules(remove_duplicate=False)}
    layers = [layer for layer in (embedding, model.get_output_embeddings()) if layer is not None]
    held = {names[id(layer)]: shapes.get(f"{names[id(layer)]}.weight") for layer in layers}
    factors = [shapes.get(f"{name}.{part}") for name in held for part in ("lora_embedding_A", "lora_B.weight")]
    sizes = {shape[0] for shape in held.values() if shape}
    sizes |= {max(shape) for shape in factors if shape}
    if sizes <= {count}:
        return
    tied = len({id(layer.weight) for layer in layers}) == 1
    if len(sizes) > 1 or not (all(held.values()) or (tied and any(held.values()))):
        raise InputError(
            f"{folder}: was trained with a vocabulary of {max(sizes)} entries and the base {base} has {count}; the "
            "adapter does not hold all of their embeddings. Give the base it was trained on with --base."
        )
    with reading(f"{folder}: a vocabulary of {max(sizes)} entries cannot be had of the base {base}"), quiet():
        model.resize_token_embeddings(sizes.pop(), mean_resizing=False)


def _tensor_shapes(folder: Path) -> Mapping[str, tuple[int, ...]]:
    """Shape of every tensor of an adapter, by the plain model's name of the layer and what the adapter adds to it."""
    with reading(f"{folder}: cannot be read"), safe_open(folder / "adapter_model.safetensors", "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    parts = ("base_layer", "modules_to_save", "original_module")
    return {
        ".".join(part for part in name.removeprefix(PEFT_PREFIX).split(".") if part not in parts): shape
        for name, shape in shapes.items()
    }


def refuse_slow_patterns(config: Mapping[str, Any], model: nn.Module, where: str) -> None:
    """Refuse patterns that would be compared with the layers' names for ever; another process tries them first.

    Raises:
        InputError: they are not through within ten seconds.
    """
    patterns = [pattern for pattern in _patterns(config) if not re.fullmatch(r"[\w.\-]*", pattern)]
    if not patterns:
        return
    names = [name for path, _ in model.named_modules() if (name := canonical_name(path)) is not None]
    try:
        subprocess.run(
            [sys.executable, "-I", "-c", _MATCH],
            input=json.dumps([patterns, names]).encode(),
            capture_output=True,
            timeout=MATCHING_SECONDS,
            check=False,  # A pattern with a mistake is PEFT's to refuse.
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{where}: adapter_config.json: a pattern takes more than {MATCHING_SECONDS} seconds to compare with the "
            "layers' names; write the names out."
        ) from None


def _patterns(config: Mapping[str, Any]) -> Iterator[str]:
    for key in ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern"):
        value = config.get(key)
        if isinstance(value, str) and key != "layers_pattern":
            yield value
        elif isinstance(value, str):
            yield rf".*\.{value}\.(\d+)\..*"
        elif isinstance(value, dict):
            yield from (rf"(.*\.)?({one})" for one in value if isinstance(one, str))
