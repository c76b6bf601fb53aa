"""Which layers an adapter can be on, and what share of the weights they are, on small models of many kinds."""

import inspect
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from tests.tiny import ARCHITECTURES, Architecture, build_tiny_model
from unlora.errors import InputError
from unlora.models import choose
from unlora.models.bypass import weights_passed_on
from unlora.models.choose import choose_target_modules, narrowed
from unlora.models.peft_trial import MISTAKEN
from unlora.models.target_modules import find_target_modules
from unlora.reach import Reach

SIZE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "vocab_size": 64, "pad_token_id": 1, "bos_token_id": 0,
    "eos_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
LATENT = {
    "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 16,
    "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16, "num_key_value_heads": 4,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {"num_experts": 4, "shared_expert_intermediate_size": 16, **EXPERTS},
    "jetmoe": {"num_local_experts": 4, "kv_channels": 8, "num_key_value_heads": 4, "num_experts_per_tok": 2},
    "phimoe": {"num_local_experts": 16, "num_experts_per_tok": 2},
    "glm4_moe": {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, **EXPERTS},
    "deepseek_v3": {**LATENT, **EXPERTS},
    "mamba": {"state_size": 8, "time_step_rank": 8},
    "mamba2": {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1},
    "bamba": {"attn_layer_indices": [1], **MAMBA2},
    "falcon": {},
}


def tiny_config(kind: str, **changes: Any) -> PretrainedConfig:
    return CONFIG_MAPPING[kind](**(SIZE | KINDS.get(kind, {}) | changes))


def tiny(kind: str) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(tiny_config(kind))
    return model.float().eval()


def whole(model: PreTrainedModel) -> int:
    heads = {id(head.weight) for head in (model.get_input_embeddings(), model.get_output_embeddings()) if head}
    return sum(each.numel() for each in model.parameters() if each.ndim > 1 and id(each) not in heads)


def why(reach: Reach) -> dict[str, str]:
    return {one.name: one.why for one in reach.left_out}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_ordinary_model_is_taken_whole_and_left_as_it_was(arch: Architecture):
    model = build_tiny_model(arch)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    targets, left_out, reach = choose_target_modules(model, rank=4)
    assert list(targets) == list(find_target_modules(model))
    assert left_out == {}
    assert reach.whole == whole(model)
    assert reach.share == sum(one.d_out * one.d_in for one in targets.values()) / whole(model)
    assert why(reach) == ({"transformer.wpe": "not linear layers"} if arch == "gpt2" else {})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


REASONS = {
    "mixtral": {"mlp.experts.gate_up_proj": "fused experts", "mlp.gate": "not linear layers"},
    "qwen2_moe": {"mlp.shared_expert_gate": "narrower than rank 8"},
    "jetmoe": {"mlp.input_linear": "fused experts", "mlp.router.layer": "narrower than rank 8"},
    "phimoe": {"mlp.router": choose.NOT_LINEAR},
    "glm4_moe": dict.fromkeys(("mlp.gate_proj", "mlp.shared_experts.up_proj"), MISTAKEN),
    "deepseek_v3": {"mlp.down_proj": MISTAKEN},
    "mamba": dict.fromkeys(("mixer.out_proj", "mixer.x_proj", "mixer.dt_proj"), choose.BYPASSED),
    "mamba2": {"mixer.out_proj": choose.BYPASSED, "mixer.conv1d": "not linear layers"},
    "bamba": {"mamba.out_proj": choose.BYPASSED},
    "falcon": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_reach_counts_every_weight_and_names_what_is_left_out(kind: str):
    model = tiny(kind)
    targets, left_out, reach = choose_target_modules(model, rank=8)
    assert REASONS[kind].items() <= why(reach).items()
    assert targets.keys() | left_out.keys() == find_target_modules(model).keys()
    assert reach.whole == whole(model) == reach.weights + sum(one.weights for one in reach.left_out)
    assert reach.weights == sum(one.module.get_parameter("weight").numel() for one in targets.values())
    assert Reach.from_json(reach.to_json()) == reach
    assert f"in {len(targets)} linear layers" in reach.sentence()
    assert all(one.name in reach.sentence() for one in reach.left_out[:2])


@pytest.mark.parametrize("kind", ["glm4_moe", "mamba2", "bamba", "deepseek_v3"])
def test_peft_adapts_what_is_chosen_and_reads_it_again(kind: str, tmp_path):
    model, ids = tiny(kind), torch.arange(20)[None]
    names = list(choose_target_modules(model, rank=4).targets)
    wrapped: Any = get_peft_model(model, LoraConfig(r=4, target_modules=names, init_lora_weights=False))
    wrapped.save_pretrained(tmp_path, save_embedding_layers=False)
    again = PeftModel.from_pretrained(tiny(kind), str(tmp_path)).eval()
    adapted = {name.removesuffix(".base_layer") for name, _ in model.named_modules() if name.endswith(".base_layer")}
    assert adapted == set(names)
    with torch.no_grad():
        moved = wrapped.eval()(input_ids=ids).logits
        assert torch.equal(again(input_ids=ids).logits, moved)
        with wrapped.disable_adapter():
            assert not torch.allclose(wrapped(input_ids=ids).logits, moved)


@pytest.mark.parametrize(
    ("kind", "patterns", "message"),
    [
        ("mamba2", ["out_proj"], "'out_proj' names layers whose weight a kernel"),
        ("qwen2_moe", ["q_proj", "shared_expert_gate"], "'shared_expert_gate' names layers narrower than rank 8"),
        ("phimoe", ["router", "q_proj"], "'router' names layers that compute more"),
        ("glm4_moe", ["q_proj", "mlp.gate_proj"], "'mlp.gate_proj' names layers whose names PEFT takes"),
        ("mixtral", ["gate_up_proj"], r"mlp.experts.gate_up_proj is one tensor of shape \(4, 96, 32\)"),
    ],
)
def test_what_cannot_have_an_adapter_is_refused_when_it_is_named(kind: str, patterns: list[str], message: str):
    with pytest.raises(InputError, match=message):
        choose_target_modules(tiny(kind), patterns, rank=8)


def test_layers_that_are_never_called_or_not_felt_are_left_out():
    model = build_tiny_model("llama")
    block: Any = model.get_submodule("model.layers.0.mlp")
    block.spare, block.deaf = nn.Linear(32, 32), nn.Linear(32, 32)
    block.register_forward_hook(lambda module, _inputs, output: output + module.deaf(output).detach())
    targets, _, reach = choose_target_modules(model)
    assert len(targets) == 14
    assert why(reach) == {"mlp.spare": choose.UNCALLED, "mlp.deaf": choose.UNFELT}


def test_excluded_and_unasked_layers_are_left_out():
    model = build_tiny_model("llama")
    targets, _, reach = choose_target_modules(model, ["self_attn.*"], exclude=["k_proj", "layers.1.*"])
    assert list(targets) == [f"model.layers.0.self_attn.{name}_proj" for name in "qvo"]
    assert ("mlp.up_proj", choose.NOT_ASKED, 1) in [(one.name, one.why, one.count) for one in reach.left_out]
    assert ("self_attn.k_proj", choose.EXCLUDED, 2) in [(one.name, one.why, one.count) for one in reach.left_out]
    with pytest.raises(InputError, match=r"adapter.exclude_modules: module 'k_porj'.*Did you mean 'k_proj'"):
        choose_target_modules(model, exclude=["k_porj"])
    with pytest.raises(InputError, match="no linear layer is left"):
        choose_target_modules(model, exclude=["*"])


def test_narrower_layers_give_way_to_the_rank():
    model = build_tiny_model("llama")
    _, _, reach = choose_target_modules(model, rank=17)
    assert {name: one.split()[0] for name, one in why(reach).items()} == dict.fromkeys(
        ("self_attn.k_proj", "self_attn.v_proj"), "narrower"
    )
    with pytest.raises(InputError, match=r"adapter.rank: 33 does not fit target module 'model.layers.0.*use 1 to 32"):
        choose_target_modules(model, rank=33)


def test_narrowed_choice_says_what_was_left_out_later():
    model = build_tiny_model("llama")
    choice = choose_target_modules(model)
    kept = list(choice.targets)[:7]
    targets, _, reach = narrowed(model, choice, kept, choose.BELOW_COVERAGE)
    assert list(targets) == kept
    assert reach.share == 0.5
    assert set(why(reach).values()) == {choose.BELOW_COVERAGE}


def test_model_without_weights_gives_the_same_choice():
    model = tiny("glm4_moe")
    with torch.device("meta"):
        skeleton = type(model)(model.config)
    skeleton.set_experts_implementation("batched_mm")
    ours, theirs = choose_target_modules(model, rank=8), choose_target_modules(skeleton.eval(), rank=8)
    assert list(theirs.targets) == list(ours.targets)
    assert theirs.reach == ours.reach


@pytest.mark.parametrize("kind", ["mamba", "mamba2", "falcon_h1", "nemotron_h", "bamba", "granitemoehybrid", "zamba2"])
def test_kernels_take_the_weight_of_the_output_projection(kind: str):
    """The installed source says so; where it no longer does, the layer can have an adapter."""
    module = __import__(f"transformers.models.{kind}.modeling_{kind}", fromlist=["x"])
    mixers = [one for name, one in vars(module).items() if inspect.isclass(one) and name.endswith("Mixer")]
    mixers += [one for name, one in vars(module).items() if inspect.isclass(one) and name.endswith("MambaLayer")]
    assert any("out_proj" in weights_passed_on(one) for one in mixers)


def test_a_number_format_or_an_initialisation_is_no_use_of_the_weight():
    class Block(nn.Module):
        def _init_weights(self):
            nn.init.zeros_(self.first.weight)

        def forward(self, inputs):
            inputs = inputs.to(self.first.weight.dtype)
            return torch.matmul(inputs, self.second.weight) + self.first(inputs)

    assert weights_passed_on(Block) == {"second"}


def test_a_weight_that_is_read_in_training_alone_is_passed_on():
    """As in Gemma 3n, where the adapter would be felt in evaluation and never learn; a setting's branch is tried."""

    class Block(nn.Module):
        def forward(self, inputs):
            if self.training and self.config.clip is not None:
                self.written.weight.data.clamp_(-1, 1)
                weight = self.first.weight.clamp(-1, 1) if self.first.weight.dtype == inputs.dtype else None
                return nn.functional.linear(inputs, weight)
            if self.config.slow_but_exact:
                inputs = nn.functional.linear(inputs, self.second.weight[:, :2])
            return self.first(self.written(self.second(inputs)))

    class Heir(Block):
        pass

    assert weights_passed_on(Block) == weights_passed_on(Heir) == {"first"}


def test_gemma_3n_corrects_past_a_layer_in_training():
    module = __import__("transformers.models.gemma3n.modeling_gemma3n", fromlist=["x"])
    assert weights_passed_on(module.Gemma3nTextAltUp) == {"correction_coefs"}
