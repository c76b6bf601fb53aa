"""What the rule for tiny configurations would get wrong, by model type."""

from typing import Any

_LIST = {"moe_intermediate_size": [16, 16], "moe_num_experts": 4, "moe_k": 2}
_MROPE = {"rope_type": "default", "rope_theta": 10000.0}
_SECTIONS = {"text_config": {"rope_parameters": {**_MROPE, "mrope_section": [2, 1, 1]}}}
_HALF_SECTIONS = {
    "text_config": {"rope_parameters": {**_MROPE, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.5}}
}
_ALPHA = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "head_dim": 8}
_SPACED = {
    "rope_parameters": {"full_attention": _MROPE, "sliding_attention": _MROPE},
}
_INDEXED = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 32,
    "indexer_compress_ratio": 4, "hc_lowrank": 8, "ngram_vocab_size_base": 400, "split_ngram_parts": 1,
}  # fmt: skip
_CONVOLVED = {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2}
_DOTS = {
    "num_key_value_heads": 4, "head_dim": 16, "num_hidden_layers": 2, "rope_parameters": None,
    "layer_types": ["indexed_attention", "sliding_attention"], "mlp_layer_types": ["dense", "sparse"],
    "shared_experts_intermediate_size": 16, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 16, "swa_kv_lora_rank": 16, "swa_head_dim": 16, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8,
    "num_attention_heads": 4, "sliding_window": 16,
}  # fmt: skip
EXCEPTIONS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1], "mamba_d_head": 16},
    "blt": {
        "encoder_hash_byte_group_vocab": 50, "encoder_hash_byte_group_size": [3, 4],
        "encoder_config": {"hidden_size_global": 32}, "decoder_config": {"hidden_size_global": 32},
    },
    "cohere_compass_text": _SPACED,
    "cohere_compass": {"text_config": _SPACED},
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    },
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "deepseek_v2": {"num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "dots3_note_text": _DOTS,
    "dots3_note": {
        "text_config": _DOTS,
        "vision_config": {
            "adapter_in_dim": 32, "adapter_out_dim": 32, "num_hidden_layers": 2, "mlp_layer_types": ["dense", "sparse"],
        },
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32, "downsample_hidden_size": 8},
    },
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_d_head": 16},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"], "mamba_d_head": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hrm_text": {"num_hidden_layers": 2, "num_layers_per_stack": None},
    "hunyuan_v1_dense": _ALPHA,
    "hunyuan_v1_moe": _ALPHA,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "laguna": {"num_attention_heads_per_layer": [4, 4]},
    "lfm2": _CONVOLVED,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"zero_expert_num": 2},
    "mamba2": {"head_dim": 16},
    "ministral": {"head_dim": 8},
    "qwen4_exp_text": _INDEXED,
    "qwen4_exp": {"text_config": _INDEXED},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "num_hidden_layers": 2},
    "reformer": {
        "is_decoder": True, "axial_pos_shape": [16, 16], "axial_pos_embds_dim": [16, 16],
        "attn_layers": ["local", "lsh"], "lsh_attn_chunk_length": 8, "local_attn_chunk_length": 8,
    },
    "roc_bert": {
        "shape_vocab_size": 50, "pronunciation_vocab_size": 50, "shape_embed_dim": 16, "pronunciation_embed_dim": 16,
    },
    "xlstm": {"hidden_size": 64, "embedding_dim": 64, "qk_dim_factor": 1.0, "autocast_kernel_dtype": "float32"},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attention_hidden_size": 64, "attention_head_dim": 16,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"], "num_hidden_layers": 4,
    },
    "zaya": {"num_experts_per_tok": 1},
    "chameleon": {"vocabulary_map": {"<image>": 410, "IMGIMGAZ": 411, "IMGIMGBZ": 412}},
    "emu3": {
        "vq_config": {"base_channels": 32},
        "vocabulary_map": {"<image>": 410, "<|extra_200|>": 411, "<|visual token 000001|>": 412},
    },
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense", "sparse"], "num_experts_per_tok": 2}},
    "diffusion_gemma": {"text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16}},
    "ernie4_5_vl_moe": {"text_config": {**_LIST, "rope_parameters": {**_MROPE, "mrope_section": [1, 1, 2]}}},
    "granite4_vision": {
        "deepstack_layer_map": [[0, 0]], "spatial_target_layers": [0, 0, 1, 1], "vision_config": {"hidden_size": 64},
        "downsample_rate": "1/2",
    },
    "florence2": {
        "vision_config": {"patch_size": [7, 3, 3, 3], "embed_dim": [16, 16, 16, 16], "num_heads": [2, 2, 2, 2]},
    },
    "glm46v": _SECTIONS,
    "glm4v": _SECTIONS,
    "glm_ocr": _SECTIONS,
    "glmga": _SECTIONS,
    "glm4v_moe": _HALF_SECTIONS,
    "glm5_next": {"text_config": {"num_key_value_heads": 4, "qk_rope_head_dim": 0}},
    "nemotron_h_omni": {"vision_config": {"video_temporal_patch_size": 2}, "audio_config": None},
    "paddleocr_vl": _SECTIONS,
    "qwen2_5_vl": _SECTIONS,
    "qwen2_vl": _SECTIONS,
    "cosmos3_edge": {"rope_parameters": {**_MROPE, "mrope_section": [2, 1, 1]}, **_SECTIONS},
    "hunyuan_vl": {"text_config": {"head_dim": 8, "rope_parameters": {**_MROPE, "mrope_section": [1, 1, 1, 1]}}},
    "janus": {"vq_config": {"base_channels": 32}},
    "lfm2_vl": {"text_config": _CONVOLVED},
    "muse_spark": {"audio_config": {
        "patch_sizes": [16, 6], "hidden_sizes": [16, 32], "depths": [1, 1], "num_hidden_layers": 2,
    }},
    "mistral_large4": {"text_config": {
        "num_hidden_layers": 4, "layer_types": None, "mlp_layer_types": None, "indexer_types": None,
        "no_rope_layers": None, "kv_source_layers": None,
    }},
    "molmo2": {
        "vision_config": {"image_size": [8, 8], "num_hidden_layers": 2},
        "adapter_config": {"vision_feature_layer": [-1, -2]}, "text_config": {"num_hidden_layers": 2},
    },
    "qwen2_5_omni_thinker": {"vision_start_token_id": 401, "audio_start_token_id": 402, **_SECTIONS},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 401, "audio_start_token_id": 402, **_SECTIONS},
    "step3p7": {"text_config": {"sliding_window": 16}},
}  # fmt: skip
"""Model type -> field -> value; a mapping for a configuration inside."""
