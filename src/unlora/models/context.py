"""How many tokens a model takes at once, as its configuration says it."""

from transformers import PreTrainedConfig

NAMES = ("max_position_embeddings", "max_seq_len", "max_target_positions")
"""Under which configurations say it: nearly all under the first, MPT under the second, Whisper under the third."""

COUNTED_FROM_PADDING = {
    "camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip
"""Model types whose table of positions begins with padding's, as RoBERTa's does."""


def context_length(config: PreTrainedConfig) -> int | None:
    """Tokens of one text, of the language model where there are several parts; None where the configuration is silent.

    Past it GPT-2 and its like fail, and others babble.
    """
    text = config.get_text_config()
    told = (getattr(text, name, None) for name in NAMES)
    context = next((one for one in told if isinstance(one, int)), None)
    if context is not None and text.model_type in COUNTED_FROM_PADDING:
        context -= (text.pad_token_id or 0) + 1  # Of RoBERTa's 514 places the first two are no token's.
    return context
