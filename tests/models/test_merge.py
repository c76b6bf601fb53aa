"""The merged model computes what base and adapter did, whatever the adapter changes, also when saved and read again."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.tiny import Architecture, build_tiny_model, build_tiny_tokenizer, save_tiny
from unlora.errors import InputError
from unlora.models.load import load_model
from unlora.models.merge import Expected, changes_nothing, compare_logits, merge_adapter, probe_logits, probe_tokens
from unlora.models.quantised import Bits
from unlora.models.save import save_model

PROBE = torch.arange(24).reshape(2, 12)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=PROBE).logits


def wrap(model: PreTrainedModel, *, seed: int = 3, **options: Any) -> PeftModel:
    """Lay an adapter on `model`, every part of which has random values."""
    turned = type(model).__name__.startswith("GPT2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of what is tested here
        wrapped = get_peft_model(model, LoraConfig(**{"r": 4, "fan_in_fan_out": turned} | options))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return wrapped.eval()


HEADS = {
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "head and embedding": {"target_modules": ["lm_head", "embed_tokens"]},
    "head and embedding, kept tied": {"target_modules": ["lm_head", "embed_tokens"], "ensure_weight_tying": True},
    "head, weight-decomposed": {"target_modules": ["q_proj", "lm_head"], "use_dora": True},
    "whole head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "whole embedding": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "whole embedding and a LoRA head": {"target_modules": ["lm_head"], "modules_to_save": ["embed_tokens"]},
    "some tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 5, 70]},
}
STAYS_TIED = ("head and embedding, kept tied", "some tokens")


@pytest.mark.parametrize("kind", HEADS)
def test_tied_head_is_merged_into_weights_of_its_own(kind: str, tmp_path: Path):
    base = save_tiny(tmp_path / "base", "gemma3")
    target = load_model(str(base), device=torch.device("cpu")).model
    assert target.config.tie_word_embeddings
    wrapped = wrap(target, **HEADS[kind])
    expected = logits(wrapped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped.save_pretrained(str(tmp_path / "adapter"))
    loaded = load_model(str(tmp_path / "adapter"), base=str(base), device=torch.device("cpu"))
    torch.testing.assert_close(logits(loaded.model), expected, atol=1e-5, rtol=1e-5)
    assert loaded.merge is not None
    assert loaded.merge.relative_difference < 1e-5

    save_model(loaded.model, loaded.tokenizer, tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits(again), expected, atol=1e-5, rtol=1e-5)
    assert again.config.tie_word_embeddings == (kind in STAYS_TIED)


@pytest.mark.parametrize("arch", ["llama", "gpt2", "phi"])
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": "all-linear", "use_dora": True},
        {"target_modules": "all-linear", "use_rslora": True},
        {"target_modules": "all-linear", "bias": "all"},
        {"target_modules": "all-linear", "bias": "lora_only"},
        {"target_modules": ["q_proj", "v_proj", "c_attn"], "layers_to_transform": [1]},
        {"target_modules": "all-linear", "rank_pattern": {"1.*": 2}, "alpha_pattern": {"1.*": 32}},
    ],
)
def test_every_kind_of_lora_computes_the_same_merged(arch: Architecture, options: dict[str, Any]):
    wrapped = wrap(build_tiny_model(arch), **options)
    expected = logits(wrapped)
    assert not torch.allclose(expected, logits(build_tiny_model(arch)), atol=0.05)
    model, check = merge_adapter(wrapped, where="adapter")
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    assert check.relative_difference < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_to_fewer_bits_is_no_other_model(dtype: torch.dtype):
    wrapped = wrap(build_tiny_model("llama").to(dtype), target_modules="all-linear")
    expected = logits(wrapped).float()
    model, check = merge_adapter(wrapped, where="adapter")
    found = logits(model).float()
    assert check.tolerance == 16 * torch.finfo(dtype).eps
    assert 0 < check.relative_difference < check.tolerance / 2
    assert float((found - expected).norm() / expected.norm()) < check.tolerance / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merge_that_gives_another_model_is_refused(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    """As when a part of the adapter stays behind: here the merge forgets the adapter of one layer."""
    from peft.tuners.lora import layer

    whole = layer.Linear.get_delta_weight
    wrapped = wrap(build_tiny_model("llama").to(dtype), target_modules="all-linear", init_lora_weights=False)
    left_out = wrapped.get_submodule("base_model.model.model.layers.1.mlp.down_proj")
    monkeypatch.setattr(
        layer.Linear,
        "get_delta_weight",
        lambda self, adapter: whole(self, adapter) * (0.0 if self is left_out else 1.0),
    )
    with pytest.raises(InputError, match=r"^runs/adapter: merged into its base it is another model \(the logits"):
        merge_adapter(wrapped, where="runs/adapter")


def test_adapter_that_is_not_finite_is_refused():
    wrapped = wrap(build_tiny_model("llama"), target_modules=["q_proj"])
    with torch.no_grad():
        wrapped.get_parameter("base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight")[0, 0] = (
            torch.nan
        )
    with pytest.raises(InputError, match=r"^runs/adapter: cannot be merged"):
        merge_adapter(wrapped, where="runs/adapter")


def test_probe_holds_the_tokens_that_were_trained():
    model = build_tiny_model("llama")
    assert probe_tokens(model).shape == (2, 16)
    assert int(probe_tokens(model).max()) == model.config.vocab_size - 1
    trained = wrap(model, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [2, 77]})
    assert {2, 77} <= set(probe_tokens(trained).flatten().tolist())


@pytest.mark.parametrize(
    ("options", "nothing"),
    [
        ({"init_lora_weights": True}, True),
        ({"lora_alpha": 0}, True),
        ({}, False),
        ({"lora_alpha": 0, "trainable_token_indices": [3]}, False),
        ({"lora_alpha": 0, "bias": "all"}, False),
    ],
)
def test_an_adapter_that_changes_nothing_is_known(options: dict[str, Any], nothing: bool):
    """As it is made, B is nought; every other one here has random numbers."""
    options = {"target_modules": ["q_proj"]} | options
    model = build_tiny_model("llama")
    wrapped = get_peft_model(model, LoraConfig(**options)) if "init_lora_weights" in options else wrap(model, **options)
    assert changes_nothing(wrapped) is nothing


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen2"])
def test_replicated_layers_are_merged_each_for_itself(arch: Architecture, tmp_path: Path):
    wrapped = wrap(build_tiny_model(arch), target_modules=["q_proj"], layer_replication=[[0, 2], [0, 2]])
    config = wrapped.get_base_model().config
    if arch != "llama":  # PEFT leaves the list of layer types as it was, and the model cannot compute
        config.layer_types = config.layer_types * 2
    expected = logits(wrapped)
    if arch != "llama":
        config.layer_types = config.layer_types[:2]
    model, _ = merge_adapter(wrapped, where="adapter")
    assert model.config.num_hidden_layers == 4
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    save_model(model, build_tiny_tokenizer(), tmp_path / "saved")
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "saved")), expected, atol=1e-5, rtol=1e-5
    )


def test_expected_logits_can_be_those_of_another_model():
    wrapped = wrap(build_tiny_model("llama"), target_modules=["q_proj"])
    other = Expected(probe_logits(build_tiny_model("llama", seed=1)), torch.float32)
    with pytest.raises(InputError, match="another model"):
        merge_adapter(wrapped, where="adapter", expected=other)


@pytest.mark.parametrize(("moved", "bits", "same"), [
    (0.004, "8bit", True), (0.05, "8bit", False), (0.004, "4bit", False), (0.004, None, False), (1e-6, None, True),
])  # fmt: skip
def test_layers_that_round_their_inputs_may_move_by_a_step(moved: float, bits: Bits | None, same: bool):
    before = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0))
    check = compare_logits(before, before * (1 + moved), dtype=torch.float32, bits=bits)
    assert check.relative_difference == pytest.approx(moved, rel=0.1)
    assert (check.relative_difference <= check.tolerance) == same
