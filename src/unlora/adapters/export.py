"""What people deploy: a plain PEFT adapter folder, written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

from peft import LoraConfig, PeftConfig, PeftModel
from peft.utils import load_peft_weights
from safetensors.torch import save_file
from torch import Tensor

from unlora.adapters.factors import Factors
from unlora.errors import InputError
from unlora.models.save import new_folder

PREFIX = "base_model.model."


def read_adapter(folder: Path) -> tuple[LoraConfig, dict[str, Factors]]:
    """Read a LoRA adapter folder as plain factors, scaling multiplied in.

    Raises:
        InputError: no adapter there, or one that is more than low-rank factors.
    """
    if not (folder / "adapter_config.json").is_file():
        raise InputError(f"{folder}: no adapter_config.json; not an adapter folder.")
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
    folder: Path, factors: Mapping[str, Factors], *, target_modules: list[str], base_model: str | None, card: str
) -> None:
    """Write factors as an ordinary PEFT LoRA adapter of scaling 1.

    Raises:
        InputError: the folder already exists.
        UnloraError: it cannot be written.
    """
    rank = next(iter(factors.values())).lora_a.shape[0]
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=target_modules, task_type="CAUSAL_LM", inference_mode=True,
        base_model_name_or_path=base_model,
    )  # fmt: skip
    tensors = {}
    for name, module in factors.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = module.lora_a.contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = module.lora_b.contiguous()

    with new_folder(folder) as temporary:
        config.save_pretrained(str(temporary))
        save_file(tensors, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
        (temporary / "README.md").write_text(card, encoding="utf-8")


def save_trained_adapter(model: PeftModel, folder: Path, *, base_model: str, card: str) -> None:
    """Save the trained adapter as it is (rank 2r, anchor included) with a model card of ours."""
    active = model.peft_config[model.active_adapter]
    active.base_model_name_or_path = base_model
    with new_folder(folder) as temporary:
        model.save_pretrained(str(temporary))
        (temporary / "README.md").write_text(card, encoding="utf-8")
