"""The class that config.json names is the one that is loaded, and the one that an adapter moves."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    Llama4Config,
    Llama4ForConditionalGeneration,
    PreTrainedModel,
)

from tests.models.test_choose import tiny_config
from tests.tiny import build_tiny_tokenizer
from unlora.models.load import load_model
from unlora.models.named_class import auto_class, deaf_class
from unlora.models.quiet import quiet

IDS = torch.arange(2, 22)[None]


def llama4(vocab_size: int = 64) -> Llama4Config:
    """Text and image part; the automatic class for text takes the text part alone."""
    text = {
        "vocab_size": vocab_size, "hidden_size": 32, "intermediate_size": 64, "intermediate_size_mlp": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "num_local_experts": 2, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32,
        "patch_size": 16, "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32,
    }  # fmt: skip
    return Llama4Config(text_config=text, vision_config=vision)


@pytest.mark.parametrize(
    ("named", "taken"),
    [
        (["Llama4ForConditionalGeneration"], AutoModelForImageTextToText),
        (["Llama4ForCausalLM"], AutoModelForCausalLM),
        (["SomethingElse"], AutoModelForCausalLM),
        (None, AutoModelForCausalLM),
    ],
)
def test_the_automatic_class_is_the_one_that_makes_the_class_named(named: list[str] | None, taken: type):
    config = llama4()
    config.architectures = named
    assert auto_class(config) is taken


def test_a_model_of_text_alone_is_left_to_the_causal_class():
    config = tiny_config("mixtral")
    config.architectures = ["MixtralForCausalLM"]
    assert auto_class(config) is AutoModelForCausalLM


def test_an_adapter_moves_the_class_that_is_deployed(tmp_path: Path):
    """On the class that AutoModelForCausalLM gives it would move that of config.json by exactly nothing."""
    tokenizer = build_tiny_tokenizer()
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        Llama4ForConditionalGeneration(llama4(len(tokenizer))).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    loaded = load_model(str(tmp_path / "model"), device=torch.device("cpu")).model
    assert type(loaded) is Llama4ForConditionalGeneration
    layer = "language_model.model.layers.0.self_attn.q_proj"
    (name,) = [name for name, _ in loaded.named_modules() if name.endswith(layer)]
    tuned = get_peft_model(loaded, LoraConfig(r=4, target_modules=[name], init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    deployed = Llama4ForConditionalGeneration.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        before = deployed(input_ids=IDS).logits
        after = PeftModel.from_pretrained(deployed, str(tmp_path / "adapter")).eval()(input_ids=IDS).logits
    assert float((after - before).abs().max()) > 1e-3


@torch.no_grad()
def test_class_in_which_an_adapter_is_nothing_is_named(tmp_path: Path):
    """What `AutoModelForCausalLM` gives of the same files has logits that the adapter moves by exactly nothing."""
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        Llama4ForConditionalGeneration(llama4()).save_pretrained(tmp_path / "model")
    named = Llama4ForConditionalGeneration.from_pretrained(tmp_path / "model").eval()
    names = [
        name for name, _ in named.named_modules() if name.endswith("language_model.model.layers.0.self_attn.q_proj")
    ]
    said = deaf_class(named, names)
    assert said is not None
    assert said.startswith("AutoModelForCausalLM gives Llama4ForCausalLM of the same files")
    tuned = get_peft_model(named, LoraConfig(r=4, target_modules=["q_proj"]))
    for name, parameter in tuned.named_parameters():
        if ".lora_B." in name:
            parameter.normal_()
    tuned.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    text = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    before = text(input_ids=IDS).logits
    with pytest.warns(UserWarning, match="missing adapter keys"):
        deaf = PeftModel.from_pretrained(text, str(tmp_path / "adapter")).eval()
    assert torch.equal(deaf(input_ids=IDS).logits, before)
    layers = [name for name, _ in AutoModelForCausalLM.from_config(llama4()).named_modules()]
    assert deaf_class(named, [name for name in layers if name.endswith("q_proj")]) is None
    assert deaf_class(tiny_of_text(), ["model.layers.0.self_attn.q_proj"]) is None


def tiny_of_text() -> PreTrainedModel:
    return AutoModelForCausalLM.from_config(tiny_config("mixtral"))
