"""What people deploy: a plain PEFT adapter folder, written whole or not at all."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from peft import LoraConfig, PeftConfig, PeftModel
from peft.utils import load_peft_weights
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlora import processes
from unlora.adapters.anchored import ADAPTER_NAME
from unlora.adapters.factors import Factors
from unlora.artifacts import read_json_object, refuse_cut_tensors
from unlora.errors import InputError
from unlora.models.old_readers import save_tokenizer
from unlora.models.origin import FILE, Origin
from unlora.models.peft_trial import unread
from unlora.models.quiet import quiet
from unlora.models.reading import reading
from unlora.models.save import new_folder
from unlora.models.wrapping import PEFT_PREFIX
from unlora.regular_files import refuse_missing

HARMLESS_STARTS = (True, False, "gaussian", "eva", "orthogonal", "mica")
"""`init_lora_weights` that touch A and B alone."""

ORDINARY = (
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out", "use_rslora",
    "init_lora_weights", "layers_to_transform", "layers_pattern", "megatron_core", "eva_config", "runtime_config",
    "qalora_group_size", "ensure_weight_tying",
)  # fmt: skip
"""Settings of a LoRA adapter that may have any value: all others must have their default, or its function is not that
of its two factors."""


def read_adapter(folder: Path) -> tuple[LoraConfig, dict[str, Factors]]:
    """Read a LoRA adapter folder as plain factors, scaling multiplied in.

    Raises:
        InputError: no adapter there, a damaged one, one that holds NaN or infinity, or one that is more than low-rank
            factors.
    """
    _refuse_unreadable(folder)
    refuse_rewriting(folder)
    config = _read_config(folder)
    if not isinstance(config, LoraConfig):
        raise InputError(f"{folder}: a {config.peft_type} adapter; only LoRA adapters can be combined.")
    if config.target_parameters:
        raise InputError(
            f"{folder}: holds factors of experts (target_parameters), which are not those of linear layers; use it as "
            "it is in PEFT, or merged (unlora export --merged)."
        )
    plain = {field.name: getattr(LoraConfig(), field.name) for field in dataclasses.fields(LoraConfig)}
    # PEFT writes an empty list where it has looked for experts and found none: as good as the default, None.
    unusual = [
        name
        for name, value in plain.items()
        if name not in ORDINARY and getattr(config, name) != value and (value or getattr(config, name))
    ]
    if unusual:
        raise InputError(f"{folder}: the adapter uses {unusual[0]}, which plain factors cannot express.")
    scaling = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    weights = _read_weights(folder)
    factors = {}
    for key in list(weights):
        if key.endswith(".lora_A.weight") and (twin := key.replace(".lora_A.", ".lora_B.")) in weights:
            lora_a, lora_b = weights.pop(key), weights.pop(twin)
            _refuse_misshapen(folder, key, lora_a, lora_b, config.r)
            name = key.removeprefix(PEFT_PREFIX).removesuffix(".lora_A.weight")
            factors[name] = Factors(lora_b.float() * scaling, lora_a.float())
    if weights:
        raise InputError(
            f"{folder}: besides the factors of linear layers it holds {sorted(weights)[0]}"
            f"{f' and {len(weights) - 1} more' if len(weights) > 1 else ''}, which plain factors cannot express."
        )
    if not factors:
        raise InputError(f"{folder}: holds no LoRA factors.")
    return config, factors


def refuse_rewriting(folder: Path) -> None:
    """Refuse an adapter that changes the base's own weights when it is put on, as PiSSA, OLoRA, CorDA and LoftQ do.

    Raises:
        InputError: naming its initialisation.
    """
    kind = read_json_object(folder / "adapter_config.json").get("init_lora_weights", True)
    if kind not in HARMLESS_STARTS:
        raise InputError(
            f"{folder}: init_lora_weights '{kind}' changes the base's own weights when the adapter is put on; with it "
            "off, or apart from its base, it is another model. Convert it to plain LoRA with PEFT (save_pretrained, "
            "path_initial_model_for_weight_conversion), or give it as --model, which merges it."
        )


def _read_config(folder: Path) -> PeftConfig:
    with _fitting(folder):
        return PeftConfig.from_pretrained(str(folder))


def _refuse_misshapen(folder: Path, key: str, lora_a: Tensor, lora_b: Tensor, rank: int) -> None:
    if lora_a.ndim != 2 or lora_b.ndim != 2 or lora_a.shape[0] != rank or lora_b.shape[1] != rank:
        shapes = f"{tuple(lora_a.shape)} and {tuple(lora_b.shape)}"
        raise InputError(f"{folder}: {key} and its B have shapes {shapes}; of a linear layer and rank {rank} neither.")


def write_adapter(
    folder: Path,
    factors: Mapping[str, Factors],
    *,
    transposed: bool,
    base_model: str | None,
    card: str,
    origin: Origin | None = None,
) -> None:
    """Write factors as an ordinary PEFT LoRA adapter of scaling 1.

    Args:
        folder: must not exist yet, or be empty.
        factors: canonical module name -> update; all of one rank.
        transposed: the base keeps its weights as (d_in, d_out), as GPT-2 does.
        base_model: what PEFT is told of the model it belongs to.
        card: README.md.
        origin: unlora.json; None where it is not known.

    Raises:
        InputError: the folder already exists.
        UnloraError: it cannot be written.
    """
    rank = next(iter(factors.values())).lora_a.shape[0]
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=list(factors), task_type="CAUSAL_LM", inference_mode=True,
        fan_in_fan_out=transposed, base_model_name_or_path=base_model,
    )  # fmt: skip
    tensors = {}
    for name, module in factors.items():
        tensors[f"{PEFT_PREFIX}{name}.lora_A.weight"] = module.lora_a.contiguous()
        tensors[f"{PEFT_PREFIX}{name}.lora_B.weight"] = module.lora_b.contiguous()

    with new_folder(folder) as temporary:
        config.save_pretrained(str(temporary))
        _settle(temporary / "adapter_config.json", base_model)
        save_file(tensors, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
        _write_papers(temporary, card, origin)


def save_trained_adapter(
    model: PeftModel,
    folder: Path,
    *,
    base_model: str | None,
    card: str,
    origin: Origin | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Save the trained adapter as it is (an anchored one with rank 2r, anchor included) with a model card of ours.

    All processes put it together, where it is sharded; the main one writes it.

    Args:
        model: with the adapter on it.
        folder: must not exist yet, or be empty.
        base_model: what PEFT is told of the model it belongs to.
        card: README.md.
        origin: unlora.json; None where it is not known.
        tokenizer: saved beside it.

    Raises:
        InputError: the folder already exists.
        UnloraError: it cannot be written.
    """
    model.peft_config[ADAPTER_NAME].base_model_name_or_path = base_model
    held = model.state_dict(keep_vars=True)
    state = {name: processes.whole(tensor).detach() for name, tensor in held.items() if ".lora_" in name}

    def write() -> None:
        with new_folder(folder) as temporary:
            # Left to itself, PEFT asks the hub whether the vocabulary has grown.
            model.save_pretrained(str(temporary), save_embedding_layers=False, state_dict=state)
            _settle(temporary / "adapter_config.json", base_model)
            _write_papers(temporary, card, origin)
            if tokenizer is not None:
                save_tokenizer(tokenizer, temporary)

    processes.on_main(write)


def load_trained_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put a saved adapter on the model it was made for, as plain PEFT does.

    Raises:
        InputError: no adapter there, a damaged one, one that holds NaN or infinity, one that does not fit the model,
            or one that would change the model's own weights.
    """
    _refuse_unreadable(folder)
    refuse_rewriting(folder)
    config = _read_config(folder)
    with _fitting(folder):
        adapted = PeftModel(model, config, ADAPTER_NAME)
    restore_adapter(adapted, folder)
    return adapted


def restore_adapter(model: PeftModel, folder: Path) -> None:
    """Give the adapter that is on the model the values that were saved of it.

    Raises:
        InputError: no adapter there, a damaged one, one of another shape, or one that holds NaN or infinity.
    """
    _refuse_unreadable(folder)
    weights = _read_weights(folder)
    with _fitting(folder):
        found = model.load_adapter(str(folder), ADAPTER_NAME)
    strangers = [*found.missing_keys, *found.unexpected_keys]
    if strangers:
        why = unread(model, weights, found.missing_keys)
        raise InputError(f"{folder}: does not fit the model (no counterpart for {strangers[0]}).{why}")


def _write_papers(folder: Path, card: str, origin: Origin | None) -> None:
    (folder / "README.md").write_text(card, encoding="utf-8")
    if origin is not None:
        (folder / FILE).write_text(json.dumps(origin.to_json(), indent=2) + "\n", encoding="utf-8")


def _settle(file: Path, base_model: str | None) -> None:
    """Give a written configuration one form, and the name of the base that was chosen.

    PEFT's sets come out in another order in every process, and where it is given no base it writes a path of its own.
    """
    settings = read_json_object(file) | {"base_model_name_or_path": base_model}
    ordered = {key: sorted(value, key=str) if isinstance(value, list) else value for key, value in settings.items()}
    file.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _fitting(folder: Path) -> Iterator[None]:
    with reading(f"{folder}: does not fit the model"), quiet():
        yield


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the tensors as PEFT does, and refuse values that would make every logit NaN."""
    with _fitting(folder):
        weights: dict[str, Tensor] = load_peft_weights(str(folder), device="cpu")  # type: ignore[assignment]
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise InputError(f"{folder}: the adapter's {name} holds NaN or infinity.")
    return weights


def refuse_no_adapter(folder: Path) -> None:
    """Refuse a folder that is not there, or that holds no adapter.

    Raises:
        InputError: saying which; of a run's folder, where its adapter is.
    """
    refuse_missing(folder)
    if not (folder / "adapter_config.json").is_file():
        below = folder / "adapter"
        hint = f" Did you mean {below}?" if (below / "adapter_config.json").is_file() else ""
        raise InputError(f"{folder}: no adapter_config.json; not an adapter folder.{hint}")


def _refuse_unreadable(folder: Path) -> None:
    refuse_no_adapter(folder)
    read_json_object(folder / "adapter_config.json")
    refuse_cut_tensors(folder)
