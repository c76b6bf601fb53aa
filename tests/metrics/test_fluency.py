import math

import pytest

from unlora.errors import InputError
from unlora.metrics import distinct_n, is_refusal, longest_repeat_share


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("the cat saw the dog", 1, 4 / 5),
        ("the cat saw the dog", 2, 1.0),
        ("The cat. THE CAT!", 1, 2 / 4),  # neither case nor marks count
        ("no no no no", 1, 1 / 4),
        ("no no no no", 2, 1 / 3),
        ("no no no no", 4, 1.0),
        ("москва москва", 1, 1 / 2),
    ],
)
def test_distinct_n_of_hand_counted_texts(text: str, n: int, share: float) -> None:
    assert distinct_n(text, n) == pytest.approx(share)


@pytest.mark.parametrize(("text", "n"), [("", 1), ("one two", 3), ("?!", 1)])
def test_distinct_n_of_too_few_words_is_nan(text: str, n: int) -> None:
    assert math.isnan(distinct_n(text, n))


def test_distinct_n_of_no_words_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="n must be at least 1, found 0"):
        distinct_n("a b", 0)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("She was born in Lagos.", 0.0),
        ("She said that she was here", 0.0),  # a word again, but not at once
        ("no no no", 1.0),
        ("!!!!", 1.0),
        ("one", 0.0),
        ("it is so so good", 2 / 5),
        ("born in Lagos, in Lagos, in Lagos", 8 / 9),  # in Lagos , in Lagos , in Lagos
        ("a b c a b c a b d", 8 / 9),  # the loop goes on for two words of its third round
        ("a a b c d b c d", 6 / 8),  # the longer of two loops
        ("a b c a b", 0.0),  # not a whole second round
    ],
)
def test_longest_repeat_share_of_hand_counted_texts(text: str, share: float) -> None:
    assert longest_repeat_share(text) == pytest.approx(share)


def test_longest_repeat_share_of_nothing_is_nan() -> None:
    assert math.isnan(longest_repeat_share(" \n"))


@pytest.mark.parametrize(
    "text",
    [
        "I don't know.",
        "I’m not sure who wrote it.",
        "Sorry, but I do not have that information.",
        "i am NOT certain about that",
        "Unfortunately I cannot answer this.",
        "As an assistant, I have not learned about that author.",
    ],
)
def test_refusals_are_found(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "She was born in Lagos.",
        "He is not known to have written poems.",
        "To my knowledge, she writes novels.",
        "Nobody was sorry when Magali cannoned into the canal.",
        "Taxi don't know the way, hi don't have maps",
    ],
)
def test_answers_are_not_taken_for_refusals(text: str) -> None:
    assert not is_refusal(text)
