"""Long documents in consecutive pieces that a model takes in at once."""

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
    words = count_words(text)
    count = math.ceil(words / max_words)
    borders = [words * place // count for place in range(count + 1)] if count else []
    firsts, lasts = set(borders[:-1]), {border - 1 for border in borders[1:]}
    starts, ends = [], []
    for number, match in enumerate(_WORD.finditer(text)):
        if number in firsts:
            starts.append(match.start())
        if number in lasts:
            ends.append(match.end())
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def count_words(text: str) -> int:
    """Words of a text, as `cut_text` counts them."""
    return sum(1 for _ in _WORD.finditer(text))
