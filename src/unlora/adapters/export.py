"""What people deploy: a plain PEFT adapter folder, written whole or not at all."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from peft import LoraConfig, PeftConfig, PeftModel
from peft.utils import load_peft_weights
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlora import processes
from unlora.adapters.anchored import ADAPTER_NAME
from unlora.adapters.factors import Factors
from unlora.artifacts import read_json_object, refuse_cut_tensors
from unlora.errors import InputError
from unlora.models.old_readers import save_tokenizer
from unlora.models.quiet import quiet
from unlora.models.save import new_folder

PREFIX = "base_model.model."


def read_adapter(folder: Path) -> tuple[LoraConfig, dict[str, Factors]]:
    """Read a LoRA adapter folder as plain factors, scaling multiplied in.

    Raises:
        InputError: no adapter there, a damaged one, or one that is more than low-rank factors.
    """
    _refuse_unreadable(folder)
    config = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise InputError(f"{folder}: a {config.peft_type} adapter; only LoRA adapters can be combined.")
    unusual = [
        name
        for name in ("use_dora", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern")
        if getattr(config, name)
    ]
    if unusual:
        raise InputError(f"{folder}: the adapter uses {unusual[0]}, which plain factors cannot express.")
    scaling = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    weights: dict[str, Tensor] = load_peft_weights(str(folder), device="cpu")  # type: ignore[assignment]
    factors = {}
    for key, lora_a in weights.items():
        if key.endswith(".lora_A.weight"):
            lora_b = weights[str(key).replace(".lora_A.", ".lora_B.")]
            name = key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            factors[name] = Factors(lora_b.float() * scaling, lora_a.float())
    if not factors:
        raise InputError(f"{folder}: holds no LoRA factors.")
    return config, factors


def write_adapter(
    folder: Path, factors: Mapping[str, Factors], *, transposed: bool, base_model: str | None, card: str
) -> None:
    """Write factors as an ordinary PEFT LoRA adapter of scaling 1.

    Args:
        folder: must not exist yet, or be empty.
        factors: canonical module name -> update; all of one rank.
        transposed: the base keeps its weights as (d_in, d_out), as GPT-2 does.
        base_model: what the adapter belongs to.
        card: README.md.

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
        tensors[f"{PREFIX}{name}.lora_A.weight"] = module.lora_a.contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = module.lora_b.contiguous()

    with new_folder(folder) as temporary:
        config.save_pretrained(str(temporary))
        _sort_lists(temporary / "adapter_config.json")
        save_file(tensors, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
        (temporary / "README.md").write_text(card, encoding="utf-8")


def save_trained_adapter(
    model: PeftModel,
    folder: Path,
    *,
    base_model: str,
    card: str,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Save the trained adapter as it is (an anchored one with rank 2r, anchor included) with a model card of ours.

    All processes put it together, where it is sharded; the main one writes it.

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
            _sort_lists(temporary / "adapter_config.json")
            (temporary / "README.md").write_text(card, encoding="utf-8")
            if tokenizer is not None:
                save_tokenizer(tokenizer, temporary)

    processes.on_main(write)


def load_trained_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put a saved adapter on the model it was made for, as plain PEFT does.

    Raises:
        InputError: no adapter there, a damaged one, or one that does not fit the model.
    """
    _refuse_unreadable(folder)
    with _fitting(folder):
        adapted = PeftModel(model, PeftConfig.from_pretrained(str(folder)), ADAPTER_NAME)
    restore_adapter(adapted, folder)
    return adapted


def restore_adapter(model: PeftModel, folder: Path) -> None:
    """Give the adapter that is on the model the values that were saved of it.

    Raises:
        InputError: no adapter there, a damaged one, or one of another shape.
    """
    _refuse_unreadable(folder)
    with _fitting(folder):
        found = model.load_adapter(str(folder), ADAPTER_NAME)
    strangers = [*found.missing_keys, *found.unexpected_keys]
    if strangers:
        raise InputError(f"{folder}: does not fit the model (no counterpart for {strangers[0]}).")


def _sort_lists(file: Path) -> None:
    """Give a written configuration one form: PEFT's sets of names come out in another order in every process."""
    settings = read_json_object(file)
    ordered = {key: sorted(value, key=str) if isinstance(value, list) else value for key, value in settings.items()}
    file.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _fitting(folder: Path) -> Iterator[None]:
    try:
        with quiet():
            yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder}: does not fit the model ({' '.join(str(error).split())[:200]}).") from None


def _refuse_unreadable(folder: Path) -> None:
    if not (folder / "adapter_config.json").is_file():
        raise InputError(f"{folder}: no adapter_config.json; not an adapter folder.")
    read_json_object(folder / "adapter_config.json")
    refuse_cut_tensors(folder)
