"""What counts of an answer to RWKU's utility sets (arXiv 2406.10890, section 4.3)."""

import math
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

from nltk.tokenize import NLTKWordTokenizer, PunktSentenceTokenizer

from unlora.data.rwku_utility import Choices

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_STATED = re.compile(r"[tT]he answer is (.*?)\.")
_NOT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _words(text: str) -> list[str]:
    """As SQuAD compares answers (Rajpurkar et al. 2016, arXiv 1606.05250): no case, punctuation or articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_NOT_PUNCTUATION)).split()


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 where the answer has the words of a reference and no others, in order, as SQuAD compares them; else 0."""
    return float(any(_words(answer) == _words(reference) for reference in references))


def f1_score(answer: str, references: Sequence[str]) -> float:
    """Harmonic mean of the precision and the recall of an answer's words, in [0, 1]; of several references the best."""
    return max(_f1(_words(answer), _words(reference)) for reference in references)


def _f1(answer: list[str], reference: list[str]) -> float:
    shared = (Counter(answer) & Counter(reference)).total()
    if not answer or not reference:
        return float(answer == reference)
    return 2 * shared / (len(answer) + len(reference))


def stated_answer(text: str) -> str:
    """What a text says the answer is: between "the answer is" and the next full stop; without such words all of it."""
    found = _STATED.search(text)
    return (found.group(1) if found else text).strip() or "NOANSWER"


def mc1(choices: Choices, log_probs: Mapping[str, float]) -> float:
    """1 where the one true answer is likelier than every false one, else 0 (TruthfulQA, arXiv 2109.07958)."""
    return float(log_probs[choices.true[0]] > max(log_probs[choice] for choice in choices.false))


def mc2(choices: Choices, log_probs: Mapping[str, float]) -> float:
    """The probability of the true answers over that of all, in [0, 1] (TruthfulQA, arXiv 2109.07958).

    Args:
        choices: those that are weighed.
        log_probs: of each whole answer, in nats; long ones are very improbable, so the largest is divided out first.
    """
    most = max(log_probs[choice] for choice in (*choices.true, *choices.false))
    true, false = (
        math.fsum(math.exp(log_probs[choice] - most) for choice in side) for side in (choices.true, choices.false)
    )
    return true / (true + false)


def n_gram_entropy(text: str) -> float:
    """Mean of the entropies of a text's pairs and triples of words, in bits; a text that repeats itself is near 0.

    (2/3 H_2 + 4/3 H_3) / 2 with H_n = -sum p log2 p over the frequencies p of the n-grams (Zhang et al. 2018, arXiv
    1809.05972; weights of ROME, Meng et al. 2022, arXiv 2202.05262). It grows with length. Words are those of nltk,
    whose sentence cutter is used untrained: an abbreviation may end a sentence.
    """
    split = NLTKWordTokenizer()
    words = [word for sentence in PunktSentenceTokenizer().tokenize(text) for word in split.tokenize(sentence)]
    return (2 / 3 * _entropy(words, 2) + 4 / 3 * _entropy(words, 3)) / 2


def _entropy(words: Sequence[str], n: int) -> float:
    counts = Counter(zip(*(words[start:] for start in range(n)), strict=False))
    shares = [count / counts.total() for count in counts.values()]
    return math.fsum(share * math.log2(1 / share) for share in shares)
