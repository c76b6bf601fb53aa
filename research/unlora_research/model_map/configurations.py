"""A tiny configuration of every class of configuration that transformers has, made by rule from its own defaults."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from unlora.errors import InputError
from unlora_research.model_map.exceptions import EXCEPTIONS

WIDTH, HEADS, HEAD, INNER = 32, 4, 8, 48
VOCABULARY = 420
"""More than the tokenizer of the map has, so that what stands for an image or a sound is no token of text."""
SPARE = 400
"""First of the tokens that no text has."""
DEPTHS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers", "num_decoder_layers",
    "num_encoder_layers", "num_blocks", "depth", "mtp_num_hidden_layers", "num_layers_per_stack", "encoder_num_layers",
    "decoder_num_layers", "vision_num_hidden_layers", "num_global_layers", "layers",
)  # fmt: skip
WIDTHS = (
    "hidden_size", "d_model", "n_embd", "embed_dim", "dim", "embedding_size", "word_embed_proj_dim", "emb_dim",
    "embedding_dim", "attention_hidden_size", "lru_width", "input_embedding_size", "output_embedding_size",
    "output_hidden_size", "out_hidden_size", "projection_dim", "image_text_hidden_size", "projector_hidden_size",
    "text_hidden_size", "backbone_hidden_size", "router_hidden_size", "encoder_hidden_size",
)  # fmt: skip
INNERS = (
    "intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "n_inner", "ffn_hidden_size", "dff",
    "d_inner", "d_ff", "dim_ff", "feed_forward_size", "intermediate_size_mlp", "dense_intermediate_size",
    "ffn_intermediate_size",
    "vision_intermediate_size", "mlp_dim",
)  # fmt: skip
SMALL_INNERS = (
    "moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size", "expert_ffn_hidden_size",
    "moe_shared_expert_intermediate_size", "moe_shared_intermediate_size",
)  # fmt: skip
HEAD_COUNTS = (
    "num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "encoder_attention_heads",
    "attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads", "swa_num_attention_heads",
    "mamba_n_heads", "linear_num_value_heads", "linear_num_heads", "mamba_num_heads", "vision_num_attention_heads",
)  # fmt: skip
GROUP_COUNTS = ("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads", "linear_num_key_heads", "n_head_kv")
HEAD_SIZES = (
    "head_dim", "kv_channels", "d_kv", "d_head", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "rotary_dim",
    "swa_head_dim", "index_head_dim", "attention_head_size", "attention_head_dim", "dim_head", "linear_head_dim",
    "linear_key_head_dim", "linear_value_head_dim", "query_pre_attn_scalar", "global_head_dim", "swa_v_head_dim",
)  # fmt: skip
EXPERT_COUNTS = (
    "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts", "n_experts",
)  # fmt: skip
EXPERTS_TAKEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_k",
    "moe_topk",
    "top_k_experts",
    "experts_per_token",
)
LENGTHS = (
    "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_target_positions", "max_source_positions",
    "context_length", "original_max_position_embeddings", "max_sequence_length",
)  # fmt: skip
WINDOWS = ("sliding_window", "sliding_window_size", "attention_window_size", "window_size", "local_attention")
OTHERS: dict[str, Any] = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "o_lora_rank": 16, "index_topk": 64, "index_n_heads": 2, "n_group": 1,
    "topk_group": 1, "state_size": 8, "ssm_state_size": 8, "mamba_d_state": 8, "time_step_rank": 8, "mamba_dt_rank": 8,
    "mamba_d_head": 16, "mamba_head_dim": 16, "mamba_n_groups": 1, "n_groups": 1, "mamba_expand": 2, "patch_size": 4,
    "image_size": 8, "mm_tokens_per_image": 4, "first_k_dense_replace": 1, "num_query_tokens": 4, "laurel_rank": 8,
    "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0, "mamba_chunk_size": 8, "chunk_size": 8,
    "gated_norm_rank": 8, "full_attn_idxs": None, "max_window_layers": 1,
}  # fmt: skip
"""Sizes of their own."""
BY_NAME: dict[str, Any] = (
    dict.fromkeys(DEPTHS, 2)
    | dict.fromkeys(WIDTHS, WIDTH)
    | dict.fromkeys(INNERS, INNER)
    | dict.fromkeys(SMALL_INNERS, 16)
    | dict.fromkeys(HEAD_COUNTS, HEADS)
    | dict.fromkeys(GROUP_COUNTS, 2)
    | dict.fromkeys(HEAD_SIZES, HEAD)
    | dict.fromkeys(EXPERT_COUNTS, 4)
    | dict.fromkeys(EXPERTS_TAKEN, 2)
    | dict.fromkeys(LENGTHS, 256)
    | dict.fromkeys(WINDOWS, 16)
    | OTHERS
)
TOKENS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1, "decoder_start_token_id": 0, "sep_token_id": 0}
VOCABULARIES = ("vocab_size", "decoder_vocab_size", "unpadded_vocab_size", "vocab_size_per_layer_input", "n_vocab")


def tiny_configuration(kind: str) -> PreTrainedConfig:
    """Make a configuration of a model type whose model has a few thousand weights.

    Raises:
        InputError: there is no such model type.
        Exception: whatever the class raises that does not take these values.
    """
    if kind not in CONFIG_MAPPING:
        raise InputError(f"model type '{kind}': transformers has none of this name.")
    made = CONFIG_MAPPING[kind]
    return made(**tiny_values(made, EXCEPTIONS.get(kind, {})))


def tiny_values(made: type[PreTrainedConfig], exceptions: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to give to a class of configuration: small numbers, and of each list by layer one of every kind.

    Args:
        made: the class.
        exceptions: what the rule would get wrong; a mapping for a configuration inside.
    """
    names = [field.name for field in dataclasses.fields(made)]
    parts: Any = made.sub_configs
    inside = {name: one for name, one in parts.items() if isinstance(one, type)}
    usual = _defaults(made)
    values: dict[str, Any] = {}
    for name in names:
        given = _given(usual, name)
        if name in inside or isinstance(given, PreTrainedConfig):
            of = type(given) if isinstance(given, PreTrainedConfig) else _part(made, name)
            own = exceptions.get(name, {})
            values[name] = own if own is None or isinstance(own, str) else of(**tiny_values(of, own)).to_dict()
        elif name in VOCABULARIES and isinstance(given, int):
            values[name] = VOCABULARY
        elif name in TOKENS:
            values[name] = TOKENS[name]
        elif name.endswith(("_token_id", "_token_index")) and isinstance(given, int):
            values[name] = SPARE + names.index(name) % (VOCABULARY - SPARE)
        elif "dropout" in name or name.endswith("_pdrop"):
            values |= {name: 0.0} if isinstance(given, float) else {}
        elif name in BY_NAME and (given is not None or name in (*GROUP_COUNTS, "head_dim")):
            values[name] = BY_NAME[name]
    if "kv_lora_rank" in values and "num_key_value_heads" in values:
        values["num_key_value_heads"] = HEADS  # Latent attention has no groups.
    rotary = _given(usual, "rope_parameters")
    if isinstance(rotary, dict) and "mrope_section" in rotary:
        half = int(HEAD * rotary.get("partial_rotary_factor", 1) / 2)
        values["rope_parameters"] = rotary | {"mrope_section": [half - 2 * (half // 3), half // 3, half // 3]}
    if "is_decoder" in names:
        values["is_decoder"] = True  # Otherwise it is an encoder, which unlora refuses.
    values |= _by_layer(usual, names, values)
    return {**values, **{name: value for name, value in exceptions.items() if name not in inside or value is None}}


def _part(made: type[PreTrainedConfig], name: str) -> type[PreTrainedConfig]:
    """Class of a configuration inside another: named, or of the model type that stands for it."""
    spec: Any = made.sub_configs_defaults[name]
    return spec.config_class if spec.model_type is None else CONFIG_MAPPING[spec.model_type]


def _given(usual: PreTrainedConfig | None, name: str) -> Any:
    """What the defaults have under a name; None where that differs from layer to layer."""
    try:
        return getattr(usual, name, None)
    except Exception:
        return None


def _defaults(made: type[PreTrainedConfig]) -> PreTrainedConfig | None:
    """An instance with the defaults of its class; None where those do not fit each other."""
    try:
        return made()
    except Exception:
        return None


def _by_layer(usual: PreTrainedConfig | None, names: list[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Cut what is listed by layer to few layers, so that every value that a list has is there."""
    depth_name = next((name for name in DEPTHS if name in values), None)
    depth = getattr(usual, depth_name, None) if depth_name else None
    if not isinstance(depth, int):
        return {}
    lists = {
        name: value
        for name in names
        if isinstance(value := _given(usual, name), list | tuple)
        and len(value) == depth
        and len(value) > 1
        and not sorted(map(str, value)) == sorted(map(str, range(depth)))  # Names every layer: no property of it.
    }
    if not lists or depth_name is None:
        return {}
    kept = sorted(
        {list(value).index(one) for value in lists.values() for one in dict.fromkeys(value) if one is not None}
    )
    kept += [place for place in range(len(next(iter(lists.values())))) if place not in kept][: max(0, 2 - len(kept))]
    return {depth_name: len(kept)} | {name: [value[place] for place in sorted(kept)] for name, value in lists.items()}
