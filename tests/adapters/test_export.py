"""Adapter folders: written whole or not at all, read by plain PEFT, refused when they do not fit."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.adapters.test_anchored import token_batch
from tests.tiny import Architecture, build_tiny_model, save_tiny
from tests.training.runs import logits
from unlora.adapters.anchored import factor_parameters, lora_layers
from unlora.adapters.export import (
    load_trained_adapter,
    read_adapter,
    restore_adapter,
    save_trained_adapter,
    write_adapter,
)
from unlora.errors import InputError, UnloraError
from unlora.models.quiet import quiet
from unlora.starts.attach import attach_anchored_adapter


def trained(arch: Architecture, *, rank: int = 4, seed: int = 0) -> PeftModel:
    """An anchored adapter whose first half has moved."""
    model = attach_anchored_adapter(build_tiny_model(arch), rank=rank)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in lora_layers(model):
            lora_a, lora_b = factor_parameters(layer)
            lora_a[:rank] += 0.1 * torch.randn(rank, lora_a.shape[1], generator=generator)
            lora_b[:, :rank] += 0.1 * torch.randn(lora_b.shape[0], rank, generator=generator)
    return model


@pytest.mark.parametrize("arch", ["llama", "gpt2", "phi"])
def test_saved_adapter_loads_with_plain_peft(arch: Architecture, tmp_path: Path):
    """Three lines, none of ours. One product of width 2r sums in another order than two of width r: 1e-5."""
    save_tiny(tmp_path / "target", arch)
    target = AutoModelForCausalLM.from_pretrained(tmp_path / "target")
    adapted = attach_anchored_adapter(target, rank=4)
    with torch.no_grad():
        for _, layer in lora_layers(adapted):
            factor_parameters(layer)[1][:, :4] *= 1.1
    save_trained_adapter(adapted, tmp_path / "adapter", base_model=str(tmp_path / "target"), card="# Card\n")

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "target")
    model = PeftModel.from_pretrained(model, str(tmp_path / "adapter"))

    batch = token_batch()
    torch.testing.assert_close(logits(model, batch), logits(adapted, batch), atol=1e-5, rtol=0)
    with model.disable_adapter():
        assert not torch.allclose(logits(model, batch), logits(adapted, batch), atol=1e-2)


def test_saved_folder_is_an_ordinary_adapter(tmp_path: Path):
    model = trained("llama")
    save_trained_adapter(model, tmp_path / "adapter", base_model="some/model", card="# Card\n")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    expected = {"peft_type": "LORA", "r": 8, "lora_alpha": 32, "lora_dropout": 0.0, "bias": "none"}
    assert {key: config[key] for key in expected} == expected
    assert config["base_model_name_or_path"] == "some/model"
    assert not config["use_dora"]
    assert not config["use_rslora"]
    assert config["target_modules"] == sorted(config["target_modules"])  # A set, in another order in every process.
    assert (tmp_path / "adapter" / "README.md").read_text() == "# Card\n"
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    names = set(load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    assert len(names) == 28
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)


def test_saving_never_asks_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Left to itself, PEFT looks on the hub whether the vocabulary has grown."""

    def asked(*_arguments: object, **_options: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", asked)
    save_trained_adapter(trained("llama"), tmp_path / "adapter", base_model="some/model", card="")


def test_failed_save_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = trained("llama")

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(UnloraError, match="no space left on the disk"):
        save_trained_adapter(model, tmp_path / "adapter", base_model="m", card="")
    assert list(tmp_path.iterdir()) == []


def test_folder_in_use_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        save_trained_adapter(trained("llama"), tmp_path, base_model="m", card="")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_reading_and_writing_keeps_the_update(arch: Architecture, tmp_path: Path):
    """Through plain factors and back; GPT-2 keeps its weights transposed, and says so without a warning."""
    model, batch = trained(arch), token_batch()
    save_trained_adapter(model, tmp_path / "adapter", base_model="m", card="")
    config, factors = read_adapter(tmp_path / "adapter")
    write_adapter(tmp_path / "again", factors, transposed=config.fan_in_fan_out, base_model="m", card="")
    again = PeftModel.from_pretrained(build_tiny_model(arch), str(tmp_path / "again"))
    torch.testing.assert_close(logits(again, batch), logits(model, batch), atol=1e-5, rtol=0)


def test_loading_gives_what_was_saved(tmp_path: Path):
    model, batch = trained("llama"), token_batch()
    save_trained_adapter(model, tmp_path / "adapter", base_model="m", card="")
    plain = PeftModel.from_pretrained(build_tiny_model("llama"), str(tmp_path / "adapter"))
    loaded = load_trained_adapter(build_tiny_model("llama"), tmp_path / "adapter")
    assert torch.equal(logits(loaded, batch), logits(plain, batch))


def test_reading_multiplies_the_scaling_in(tmp_path: Path):
    """Of rsLoRA too: alpha over the root of the rank."""
    for folder, rslora, scaling in (("plain", False, 3.0), ("rslora", True, 6.0)):
        config = LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj"], use_rslora=rslora, init_lora_weights=False)
        peft_model = get_peft_model(build_tiny_model("llama"), config)
        peft_model.save_pretrained(str(tmp_path / folder))
        _, factors = read_adapter(tmp_path / folder)
        name = "model.layers.0.self_attn.q_proj"
        layer = dict(lora_layers(peft_model))[name]
        assert list(factors) == [name, name.replace(".0.", ".1.")]
        torch.testing.assert_close(factors[name].lora_b, scaling * factor_parameters(layer)[1].detach())


def test_what_plain_factors_cannot_express_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"no adapter_config\.json; not an adapter folder"):
        read_adapter(tmp_path)
    config = LoraConfig(r=4, target_modules=["q_proj"], use_dora=True)
    get_peft_model(build_tiny_model("llama"), config).save_pretrained(str(tmp_path / "dora"))
    with pytest.raises(InputError, match="uses use_dora"):
        read_adapter(tmp_path / "dora")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "lora_only"}, "bias"),
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"layer_replication": [(0, 2), (0, 2)]}, "layer_replication"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights 'olora'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_adapter_that_is_more_than_factors_is_refused(options: dict[str, Any], named: str, tmp_path: Path):
    """What was left out of it before, and with it part of the model, without a word."""
    config = LoraConfig(r=4, **{"target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **options})
    with quiet():
        get_peft_model(build_tiny_model("llama"), config).save_pretrained(
            str(tmp_path / "lora"), save_embedding_layers=False
        )
    with pytest.raises(InputError, match=re.escape(named)):
        read_adapter(tmp_path / "lora")


def test_factors_of_other_things_and_shapes_are_refused(tmp_path: Path):
    save_trained_adapter(trained("llama"), tmp_path / "adapter", base_model="m", card="")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    key = next(key for key in tensors if ".lora_B." in key)
    for changed, named in (
        ({key: None}, ".lora_A.weight"),
        ({key: torch.zeros(3)}, "have shapes"),
        ({key: torch.zeros(32, 5)}, "have shapes"),
        ({"base_model.model.model.norm.weight": torch.ones(32)}, "it holds base_model.model.model.norm.weight"),
    ):
        kept = {name: tensor for name, tensor in (tensors | changed).items() if tensor is not None}
        save_file(kept, tmp_path / "adapter" / "adapter_model.safetensors")
        with pytest.raises(InputError, match=re.escape(named)):
            read_adapter(tmp_path / "adapter")


def test_adapter_of_another_model_is_refused(tmp_path: Path):
    save_trained_adapter(trained("llama"), tmp_path / "adapter", base_model="m", card="")
    with pytest.raises(InputError, match="does not fit the model"):
        load_trained_adapter(build_tiny_model("gpt2"), tmp_path / "adapter")
    with pytest.raises(InputError, match="does not fit the model"):
        load_trained_adapter(build_tiny_model("llama", hidden=64), tmp_path / "adapter")
    with pytest.raises(InputError, match=r"no counterpart for .*layers\.2"):
        load_trained_adapter(build_tiny_model("llama", layers=3), tmp_path / "adapter")
    with pytest.raises(InputError, match=r"no counterpart for .*layers\.1"):
        load_trained_adapter(build_tiny_model("llama", layers=1), tmp_path / "adapter")
    with pytest.raises(InputError, match="no such folder"):
        load_trained_adapter(build_tiny_model("llama"), tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not an adapter folder"):
        load_trained_adapter(build_tiny_model("llama"), tmp_path / "empty")


def test_saved_values_come_back_to_the_adapter_that_had_them(tmp_path: Path):
    model, batch = trained("llama", seed=1), token_batch()
    saved = logits(model, batch)
    save_trained_adapter(model, tmp_path / "adapter", base_model="m", card="")
    other = trained("llama", seed=2)
    assert not torch.equal(logits(other, batch), saved)
    restore_adapter(other, tmp_path / "adapter")
    assert torch.equal(logits(other, batch), saved)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_cut_file_of_an_adapter_is_named(tmp_path: Path, name: str):
    folder = tmp_path / "adapter"
    save_trained_adapter(trained("llama"), folder, base_model="m", card="")
    os.truncate(folder / name, (folder / name).stat().st_size * 9 // 10)
    readers: list[Callable[[], object]] = [
        lambda: read_adapter(folder),
        lambda: load_trained_adapter(build_tiny_model("llama"), folder),
        lambda: restore_adapter(trained("llama"), folder),
    ]
    for read in readers:
        with pytest.raises(InputError, match=rf"^{folder / name}(, line \d+)?: not (a complete|valid)"):
            read()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("tensor", r"q_proj\.lora_A\.weight holds NaN or infinity"),
        ("lora_alpha", r"adapter_config\.json: NaN is no number of JSON"),
        ("alpha_pattern", r"adapter_config\.json: Infinity is no number of JSON"),
    ],
)
def test_adapter_that_is_not_finite_is_refused(tmp_path: Path, what: str, said: str):
    """Every logit would be NaN, and every score missing."""
    model = build_tiny_model("llama")
    folder = tmp_path / "adapter"
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    wrapped.save_pretrained(str(folder))
    weights = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    if what == "tensor":
        next(tensor for name, tensor in weights.items() if "lora_A" in name).view(-1)[3] = float("nan")
    else:
        config[what] = float("nan") if what == "lora_alpha" else {"q_proj": float("inf")}
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=said):
        load_trained_adapter(build_tiny_model("llama"), folder)
    with pytest.raises(InputError, match=said):
        read_adapter(folder)
