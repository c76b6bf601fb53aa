"""Tokens that a model has an embedding for: a tokenizer can have grown without it."""

import math
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from unlora.errors import InputError


def padding(tokenizer: PreTrainedTokenizerBase, embedding_count: int | None) -> int:
    """The tokenizer's pad token, else its end token, else 0: padding is masked, so any with an embedding will do."""
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    limit = math.inf if embedding_count is None else embedding_count
    return next((token for token in candidates if isinstance(token, int) and token < limit), 0)


def refuse_no_embedding(
    input_ids: Sequence[int], source: str, tokenizer: PreTrainedTokenizerBase, embedding_count: int | None
) -> None:
    """Refuse tokens that a model has no embedding for; `embedding_count` None checks nothing but that there are tokens.

    Raises:
        InputError: naming `source` and the token.
    """
    if None in input_ids:
        raise InputError(f"{source}: the tokenizer has no token for a part of this text.")
    if embedding_count is not None and max(input_ids, default=0) >= embedding_count:
        token = next(one for one in input_ids if one >= embedding_count)
        raise InputError(
            f"{source}: token {token} ({tokenizer.decode([token])!r}) has no embedding (the model has "
            f"{embedding_count}); the tokenizer is of another model."
        )
