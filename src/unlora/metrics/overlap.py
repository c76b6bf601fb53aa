"""Metrics that compare what the model says with the reference answer. High means memorised: low is good on the forget
set, high elsewhere. NaN when there is nothing to compare with.
"""

import itertools
import unicodedata

import numpy as np
from jaxtyping import Bool
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer, Tokenizer

from unlora.characters import WITHOUT_BLANKS

TokenMatches = Bool[np.ndarray, " token"]
"""For each completion token, under teacher forcing: is it the model's most likely token?"""


class AnyScript(Tokenizer):
    """Words of any script: runs of letters, marks and digits; in scripts without blanks each letter is a word.

    ASCII words come out as `rouge_score` gives them, stemmed where they are long enough. Others are not stemmed.
    """

    def tokenize(self, text: str) -> list[str]:
        """Split `text`, in composed form and small letters."""
        plain = unicodedata.normalize("NFKC", text.lower())
        words = "".join(_spaced(before, now) for before, now in itertools.pairwise(f" {plain}")).split()
        return [stem for word in words for stem in (_STEMS.tokenize(word) if word.isascii() else [word])]


_STEMS = DefaultTokenizer(use_stemmer=True)
_WORDS = DefaultTokenizer(use_stemmer=False)
_ANY_SCRIPT = AnyScript()
_SCORER = RougeScorer(["rougeL"], tokenizer=_ANY_SCRIPT)
_STEM_SCORER = RougeScorer(["rougeL"], tokenizer=_STEMS)
_WORD_SCORER = RougeScorer(["rougeL"], tokenizer=_WORDS)


def rouge_l_recall(candidate: str, reference: str) -> float:
    """Longest common subsequence of stemmed words over the reference's words, in [0, 1].

    Words are those of `AnyScript`; on ASCII text the value is TOFU's. A reference without any word gives NaN, not 0.
    Source: Lin 2004, section 3.1; Maini et al. 2024, TOFU (arXiv 2401.06121).
    """
    if not _ANY_SCRIPT.tokenize(reference):
        return float("nan")
    return float(_SCORER.score(target=reference, prediction=candidate)["rougeL"].recall)


def rouge_l_recall_ascii(candidate: str, reference: str) -> float:
    """As `rouge_l_recall` with the words of TOFU's and OpenUnlearning's code: runs of ASCII letters and digits.

    An accented word falls into pieces there, as published. A reference of which a whole word would vanish (another
    script) gives NaN: what is left, such as a year, says nothing about the answer.
    """
    if not _STEMS.tokenize(reference) or loses_words(reference):
        return float("nan")
    return float(_STEM_SCORER.score(target=reference, prediction=candidate)["rougeL"].recall)


def rouge_l_f1(candidate: str, reference: str) -> float:
    """Harmonic mean of ROUGE-L's precision and recall over unstemmed words, in [0, 1], as in MUSE (times 100 there).

    TOFU's `rouge_l_recall` stems ("novel" matches "novels") and forgives extra words; here both cost, so the two
    numbers are never compared. Words and the NaN are those of `rouge_l_recall_ascii`; an empty candidate scores 0.
    Source: Lin 2004, section 3.1; Shi et al. 2024, MUSE (arXiv 2407.06460), section 3.
    """
    if not _WORDS.tokenize(reference) or loses_words(reference):
        return float("nan")
    return float(_WORD_SCORER.score(target=reference, prediction=candidate)["rougeL"].fmeasure)


def loses_words(reference: str) -> bool:
    """Whether a word of `reference` has no ASCII letter or digit, so that the published tokenizer drops it whole."""
    return any(not _WORDS.tokenize(word) for word in _ANY_SCRIPT.tokenize(reference))


def _spaced(before: str, character: str) -> str:
    """The character as it stands behind another: in its word, as the first of a new one, or a blank."""
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    if category[0] not in "LMN":
        return " "
    begins = category[0] != "M" and (_writes_no_blanks(before) or _writes_no_blanks(character))
    return f" {character}" if begins else character


def _writes_no_blanks(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in WITHOUT_BLANKS)


def exact_memorisation(argmax_match: TokenMatches) -> float:
    """Share of the completion's tokens that are the model's first choice, in [0, 1].

    Source: Tirumala et al. 2022 (arXiv 2205.10770).
    """
    return float(argmax_match.mean()) if argmax_match.size else float("nan")


def extraction_strength(argmax_match: TokenMatches) -> float:
    """Return 1 - k/T, in [0, 1], k of T tokens being the shortest prefix from which greedy decoding gives the rest.

    One teacher-forced pass is enough: as long as every token is the first choice, greedy decoding walks the same path.
    This is the definition. OpenUnlearning's code tries no prefix longer than T - 1, so it never gives less than 1/T
    (1 for a single wrong token), and it leaves the end token out of the T: never compare its numbers with these.
    Source: Carlini et al. 2021 (arXiv 2012.07805), as in Wang et al. 2025 (arXiv 2406.09179).
    """
    if not argmax_match.size:
        return float("nan")
    misses = np.flatnonzero(~argmax_match)
    prefix = misses[-1] + 1 if misses.size else 0
    return float(1 - prefix / argmax_match.size)
