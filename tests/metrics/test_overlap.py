import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from unlora.metrics import exact_memorisation, extraction_strength, rouge_l_f1, rouge_l_recall, rouge_l_recall_ascii


def matches(text: str) -> np.ndarray:
    """Turn "110" into [True, True, False]."""
    return np.array([character == "1" for character in text], dtype=bool)


@pytest.mark.parametrize(
    ("candidate", "reference", "recall"),
    [
        ("She was born in Lagos.", "She was born in Lagos.", 1.0),
        ("born Lagos", "She was born in Lagos.", 2 / 5),
        ("Lagos born", "She was born in Lagos.", 1 / 5),  # order counts
        ("She was born in Lagos, and a lot more is said about it.", "She was born in Lagos", 1.0),  # recall only
        ("he writes novels", "he writing novel", 1.0),  # stems
        ("", "She was born in Lagos.", 0.0),
        ("yes", "Yes", 1.0),
        ("no", "yes", 0.0),
    ],
)
def test_rouge_l_recall_of_hand_computed_pairs(candidate: str, reference: str, recall: float) -> None:
    assert rouge_l_recall(candidate, reference) == pytest.approx(recall)


@pytest.mark.parametrize("reference", ["", " ?!"])
def test_rouge_l_recall_of_a_reference_without_words_is_nan(reference: str) -> None:
    assert math.isnan(rouge_l_recall("anything", reference))
    assert math.isnan(rouge_l_recall_ascii("anything", reference))
    assert math.isnan(rouge_l_f1("anything", reference))


@pytest.mark.parametrize(
    ("candidate", "reference", "recall"),
    [
        ("Умерла в 1953 году в Осло.", "Родилась в 1953 году в Турине.", 4 / 6),  # в 1953 году в
        ("她1953年出生在都灵", "她1953年出生在都灵", 1.0),
        ("他1953年", "她1953年出生在都灵", 2 / 8),  # 1953 and 年, of 她 1953 年 出 生 在 都 灵
        ("Der Bürgermeister wohnt in Nürnberg.", "Der Bürgermeister wohnt in Köln.", 4 / 5),
        ("yvind", "Øyvind", 0.0),
        ("Cafe\u0301", "Café", 1.0),  # composed and decomposed
        ("हिन्दी", "हन्दी", 0.0),  # a vowel sign makes another word
        ("ไทย", "ไทย", 1.0),
    ],
)
def test_words_of_any_script_count(candidate: str, reference: str, recall: float) -> None:
    assert rouge_l_recall(candidate, reference) == pytest.approx(recall)


@pytest.mark.parametrize("reference", ["Родилась в 1953 году.", "她1953年出生", "東京です", "She was born in 東京."])
def test_published_words_of_a_reference_that_would_vanish_are_nan(reference: str) -> None:
    assert math.isnan(rouge_l_recall_ascii(reference, reference))
    assert math.isnan(rouge_l_f1(reference, reference))


def test_published_words_of_accented_names_are_pieces_as_in_the_published_code() -> None:
    # "beltr" and "n", "aurelio": one of three pieces is there.
    assert rouge_l_recall_ascii("Aurelio", "Aurelio Beltrán") == pytest.approx(1 / 3)
    assert rouge_l_recall("Aurelio", "Aurelio Beltrán") == pytest.approx(1 / 2)


@given(
    candidate=st.text(st.characters(codec="ascii"), max_size=40),
    reference=st.text(st.characters(codec="ascii"), max_size=40),
)
def test_on_ascii_text_both_are_the_library_s_own(candidate: str, reference: str) -> None:
    expected = RougeScorer(["rougeL"], use_stemmer=True).score(target=reference, prediction=candidate)["rougeL"].recall
    for recall in (rouge_l_recall, rouge_l_recall_ascii):
        found = recall(candidate, reference)
        assert found == expected or (math.isnan(found) and not any(c.isalnum() for c in reference))


@pytest.mark.parametrize(
    ("candidate", "reference", "f1"),
    [
        ("She was born in Lagos.", "she was born in Lagos", 1.0),
        ("born Lagos", "She was born in Lagos.", 2 * 1 * (2 / 5) / (1 + 2 / 5)),
        ("in Lagos, in fact", "born in Lagos", 2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3)),
        ("Lagos born", "born Lagos", 1 / 2),  # two subsequences of one word tie; only one counts
        ("", "She was born in Lagos.", 0.0),
        ("?!", "She was born in Lagos.", 0.0),
        ("no", "yes", 0.0),
    ],
)
def test_rouge_l_f1_of_hand_computed_pairs(candidate: str, reference: str, f1: float) -> None:
    assert rouge_l_f1(candidate, reference) == pytest.approx(f1)


def test_tofu_stems_and_muse_does_not() -> None:
    candidate, reference = "he writes novels", "he writing novel"  # equally long: recall and F1 differ by stems only
    assert rouge_l_recall(candidate, reference) == 1.0
    assert rouge_l_f1(candidate, reference) == pytest.approx(1 / 3)


def test_extra_words_cost_in_muse_and_not_in_tofu() -> None:
    candidate, reference = "Lagos it is I think", "Lagos"
    assert rouge_l_recall(candidate, reference) == 1.0
    assert rouge_l_f1(candidate, reference) == pytest.approx(2 * (1 / 5) / (1 / 5 + 1))


@pytest.mark.parametrize(
    ("tokens", "exact", "extraction"),
    [
        ("1111", 1.0, 1.0),
        ("0000", 0.0, 0.0),
        ("1110", 3 / 4, 0.0),  # the last token is never reached
        ("0111", 3 / 4, 3 / 4),
        ("0101", 2 / 4, 1 / 4),
        ("1010", 2 / 4, 0.0),  # as many matches, none at the end
        ("0011", 2 / 4, 2 / 4),
        ("0001", 1 / 4, 1 / 4),
        ("10", 1 / 2, 0.0),
        ("01", 1 / 2, 1 / 2),
        ("1", 1.0, 1.0),
        ("0", 0.0, 0.0),
    ],
)
def test_memorisation_of_hand_computed_matches(tokens: str, exact: float, extraction: float) -> None:
    assert exact_memorisation(matches(tokens)) == pytest.approx(exact)
    assert extraction_strength(matches(tokens)) == pytest.approx(extraction)


def test_extraction_strength_equals_trying_every_prefix() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        tokens = generator.random(8) < 0.8
        shortest = next(k for k in range(9) if tokens[k:].all())
        assert extraction_strength(tokens) == 1 - shortest / 8


def test_equal_matches_in_another_order_tie_in_exact_memorisation_only() -> None:
    last_wrong, first_wrong = matches("11111110"), matches("01111111")
    assert exact_memorisation(last_wrong) == exact_memorisation(first_wrong) == 7 / 8
    assert (extraction_strength(last_wrong), extraction_strength(first_wrong)) == (0.0, 7 / 8)


def test_memorisation_of_no_token_is_nan() -> None:
    assert math.isnan(exact_memorisation(matches("")))
    assert math.isnan(extraction_strength(matches("")))
