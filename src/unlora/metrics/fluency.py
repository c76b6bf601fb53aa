"""Is the answer still language? Forgetting that leaves loops or gibberish is damage, and a refusal is neither.

Words are runs of letters and digits of any script, whatever their case.
"""

import re
from itertools import groupby

from unlora.errors import InputError

REFUSALS = (
    "i don't know",
    "i really don't know",
    "i don't have",
    "i don't possess",
    "i don't hold",
    "i don't seem",
    "i have no",
    "i've no",
    "i've got no idea",
    "i haven't",
    "i've not",
    "i lack",
    "i'm not",
    "i'm lacking",
    "i'm unable",
    "i'm unaware",
    "i'm sorry",
    "i'm afraid",
    "i apologise",
    "i apologize",
    "i can't",
    "unable to answer",
    "not something i'm",
)
"""Phrases of `is_refusal`, with short forms: "i am not sure" and "I’m not sure" are found too."""

_REFUSAL = re.compile("|".join(rf"\b{phrase}\b" for phrase in REFUSALS))
_SHORT_FORMS = {"’": "'", "i am ": "i'm ", "do not ": "don't ", "have not ": "haven't ", "cannot ": "can't "}


def distinct_n(text: str, n: int) -> float:
    """Share of the text's word n-grams that differ, in (0, 1]. High is good; a loop is near 0. NaN below n words.

    It falls with length whatever the quality: compare texts of equal length.
    Source: Li et al. 2016 (arXiv 1510.03055).

    Raises:
        InputError: n is below 1.
    """
    if n < 1:
        raise InputError(f"distinct_n: n must be at least 1, found {n}.")
    words = re.findall(r"\w+", text.lower())
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def longest_repeat_share(text: str) -> float:
    """Share of the text in its longest loop, in [0, 1]: the same words at least twice in a row. Low is good.

    0: nothing repeats at once; 1: "no no no", or "!!!!", since punctuation counts here, each mark as one word. NaN for
    a text without either.
    """
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    longest = 0
    for period in range(1, len(words) // 2 + 1):
        same = (first == second for first, second in zip(words, words[period:], strict=False))
        run = max((sum(1 for _ in stretch) for equal, stretch in groupby(same) if equal), default=0)
        if run >= period:
            longest = max(longest, run + period)
    return longest / len(words) if words else float("nan")


def is_refusal(text: str) -> bool:
    """Whether the text says that it does not know or cannot answer: one of the phrases `REFUSALS` occurs in it.

    English only, and it knows phrases, not meaning: an evasion in other words is missed (a third of TOFU's hundred
    refusals), a quoted "I don't know" is taken for one. Whether a refusal is good depends on the aim: it hides an
    answer, it does not show that the answer is gone.
    """
    lowered = text.lower()
    for long, short in _SHORT_FORMS.items():
        lowered = lowered.replace(long, short)
    return _REFUSAL.search(lowered) is not None
