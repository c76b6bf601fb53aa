"""Long documents in consecutive pieces that a model takes in at once."""

import itertools
import math
import re

from unlora.errors import InputError

MAX_WORDS = 192
"""Words a piece: about 250 tokens of English prose, up to 500 of tables and code (2.2 tokens a word with SmolLM2, 2.7
at most), so that what is not prose fits the default limit of 512 tokens too."""

_WORD = re.compile(r"\S{1,16}")
"""A longer run (a link, a base64 block, text without spaces) counts as several words, and may be cut within."""


def cut_text(text: str, *, max_words: int) -> list[str]:
    """Cut a text into the fewest consecutive pieces of at most `max_words` words, their lengths as even as can be.

    Each piece stands in the text as it is, line breaks included; only the white space where two pieces meet, and
    around the text, is dropped. Even lengths, because a short rest would weigh as much as a whole piece in training.

    Args:
        text: any text; without a word it gives no piece.
        max_words: limit in words; a run of more than 16 characters without white space counts as several.

    Raises:
        InputError: a limit below one word.
    """
    if max_words < 1:
        raise InputError(f"max_words: must be at least 1 (found {max_words}).")
    words = [match.span() for match in _WORD.finditer(text)]
    count = math.ceil(len(words) / max_words)
    borders = [len(words) * place // count for place in range(count + 1)] if count else []
    return [text[words[first][0] : words[end - 1][1]] for first, end in itertools.pairwise(borders)]
