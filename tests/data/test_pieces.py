"""Nothing is lost, nothing is longer than asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlora.data.pieces import cut_text
from unlora.errors import InputError


def test_text_is_cut_between_words_into_even_pieces() -> None:
    assert cut_text("one two three four five six seven", max_words=3) == ["one two", "three four", "five six seven"]
    assert cut_text("one two three", max_words=3) == ["one two three"]
    assert cut_text("one", max_words=100) == ["one"]


def test_inner_white_space_stays_and_that_at_the_borders_goes() -> None:
    text = "  First line,\n\n\tsecond  line. \n Third\u00a0line. \n"
    assert cut_text(text, max_words=4) == ["First line,\n\n\tsecond", "line. \n Third\u00a0line."]


def test_text_without_words_gives_no_piece() -> None:
    assert cut_text("", max_words=3) == []
    assert cut_text(" \n\t ", max_words=3) == []


def test_a_run_without_spaces_is_cut_within() -> None:
    assert cut_text("x" * 40, max_words=2) == ["x" * 16, "x" * 24]


@given(st.text(alphabet="ab ü\n\t.", max_size=200), st.integers(1, 9))
def test_everything_comes_back_in_order(text: str, max_words: int) -> None:
    pieces = cut_text(text, max_words=max_words)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    counts = [sum(-(-len(word) // 16) for word in piece.split()) for piece in pieces]
    assert all(0 < count <= max_words for count in counts)
    assert all(piece == piece.strip() and piece in text for piece in pieces)
    total = sum(-(-len(word) // 16) for word in text.split())
    assert len(pieces) == -(-total // max_words)


def test_a_limit_below_one_word_is_refused() -> None:
    with pytest.raises(InputError, match="max_words: must be at least 1"):
        cut_text("one", max_words=0)
