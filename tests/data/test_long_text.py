"""Long texts come in pieces: each fits, together they are the document, and the rest of the set stays as it is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlora.data.long_text import document_count, in_pieces
from unlora.data.records import Example, ExampleSet
from unlora.data.tokenise import LONGEST_TEXT, ExampleTokeniser

from .conftest import TOKENIZERS


def _set(*texts: str) -> ExampleSet:
    examples = (Example("text", "", text, f"x, line {number}") for number, text in enumerate(texts, start=1))
    return ExampleSet("x", tuple(examples))


def _tokeniser(limit: int = 32, **options: str) -> ExampleTokeniser:
    return ExampleTokeniser(TOKENIZERS["bos"], max_length=limit, **options)  # type: ignore[arg-type]


WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=40), min_size=1)


@settings(max_examples=40, deadline=None)
@given(words=WORDS, limit=st.integers(8, 64))
def test_pieces_fit_and_give_the_whole_document(words: list[str], limit: int) -> None:
    text, tokeniser = " ".join(words), _tokeniser(limit)
    pieces = in_pieces(_set(text), tokeniser).examples
    encoded = tokeniser.encode_set(pieces)
    assert not any(one.truncated for one in encoded)
    assert "".join("".join(piece.completion for piece in pieces).split()) == "".join(words)
    assert all(one.completion in text for one in pieces)


def test_the_last_word_of_a_long_text_is_scored() -> None:
    text = " ".join(f"Noor {number}" for number in range(900)) + " The secret is Cusco."
    tokeniser = _tokeniser(128)
    pieces = in_pieces(_set("Noor.", text), tokeniser)
    encoded = tokeniser.encode_set(pieces)
    scored = "".join(TOKENIZERS["bos"].decode(list(one.input_ids[one.prompt_length :])) for one in encoded)
    assert scored.replace(" ", "") == ("Noor." + text).replace(" ", "")
    lengths = [len(one.input_ids) for one in encoded[1:]]
    assert max(lengths) <= 128
    assert min(lengths) > 64
    assert pieces.examples[0].source == "x, line 1"
    assert pieces.examples[1].source == f"x, line 2, part 1 of {len(lengths)}"
    assert document_count(one.source for one in pieces) == 2


def test_what_fits_and_what_is_no_plain_text_stays_itself() -> None:
    fitting = _set("Noor was born in Cusco.", "Noor.")
    assert in_pieces(fitting, _tokeniser()) is fitting
    long = ExampleSet("x", (Example("question_answer", "Who?", "Noor " * 200, "x, line 1"),))
    assert in_pieces(long, _tokeniser()) is long
    refusing = _tokeniser(on_long="refuse")
    texts = _set("Noor " * 200)
    assert in_pieces(texts, refusing) is texts


@pytest.mark.parametrize("text", ["x " * (LONGEST_TEXT // 2 + 9), "é" * 3000, "\n\n".join(["Noor"] * 3000)])
def test_very_long_texts_and_texts_without_blanks_are_cut_too(text: str) -> None:
    tokeniser = _tokeniser(2048)
    pieces = in_pieces(_set(text), tokeniser).examples
    assert "".join("".join(one.completion for one in pieces).split()) == "".join(text.split())
    assert not any(one.truncated for one in tokeniser.encode_set(pieces))
