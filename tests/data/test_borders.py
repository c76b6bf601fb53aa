"""Where prompt and completion meet in tokens: text rendered before, tokenizers in Python, texts of any length."""

import tracemalloc

import pytest
from transformers import PreTrainedTokenizer

from unlora.data.records import Example
from unlora.data.tokenise import LONGEST_TEXT, MARGIN, ExampleTokeniser
from unlora.errors import InputError

from .conftest import TOKENIZERS, build_tokenizer

END, START = 0, 1


class WordTokenizer(PreTrainedTokenizer):
    """Letters, and a blank before every text: as SentencePiece's prefix is read by tokenizers written in Python."""

    def __init__(self, **options: object) -> None:
        tokens = ["</s>", "<s>", "\n", *map(chr, range(32, 127))]
        self.letters = {token: number for number, token in enumerate(tokens)}
        super().__init__(eos_token="</s>", bos_token="<s>", **options)

    @property
    def vocab_size(self) -> int:
        return len(self.letters)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.letters)

    def _tokenize(self, text: str, **_: object) -> list[str]:
        return list(text if text.startswith(" ") else f" {text}")

    def _convert_token_to_id(self, token: str) -> int:
        return self.letters[token]

    def _convert_id_to_token(self, index: int) -> str:
        return list(self.letters)[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens).removeprefix(" ")

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: object = None) -> list[int]:
        return [1, *token_ids_0]


def _text(tokeniser: ExampleTokeniser, ids: tuple[int, ...]) -> str:
    return str(tokeniser.tokenizer.decode(list(ids)))


# --- text that was rendered before ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "bos", "bos_and_eos", "chat"])
@pytest.mark.parametrize("behind", ["", "\n", " \n\n"])
def test_an_end_token_that_was_rendered_before_ends_what_is_scored(name: str, behind: str) -> None:
    """ChatML writes a line end behind the end of each turn; a model stops before it, and a second end never comes."""
    tokeniser = ExampleTokeniser(TOKENIZERS[name], max_length=100)
    bare = tokeniser.encode(Example("prompt_completion", "Who?", " Noor.", "here"))
    assert bare.input_ids[-1] == END
    assert tokeniser.encode(Example("prompt_completion", "Who?", f" Noor.<|end|>{behind}", "here")) == bare
    asked = Example("question_answer", "Who?", f"Noor.<|end|>{behind}", "here")
    plain = ExampleTokeniser(TOKENIZERS[name], template="plain", max_length=100)
    assert plain.encode(asked).input_ids[-2:].count(END) == 1
    assert plain.encode(asked).input_ids[-1] == END


@pytest.mark.parametrize("name", ["bos", "bos_and_eos"])
@pytest.mark.parametrize(("prompt", "completion"), [("<|start|>Who?", " Noor."), ("", "<|start|>Who? Noor.")])
def test_text_that_begins_with_the_start_token_has_one(name: str, prompt: str, completion: str) -> None:
    tokeniser = ExampleTokeniser(TOKENIZERS[name], max_length=100)
    bare = dict(prompt=prompt.replace("<|start|>", ""), completion=completion.replace("<|start|>", ""))
    for shape in ("prompt_completion", "text"):
        if shape == "text" and prompt:
            continue
        rendered, plain = (
            tokeniser.encode(Example(shape, one["prompt"], one["completion"], "here"))  # type: ignore[arg-type]
            for one in (dict(prompt=prompt, completion=completion), bare)
        )
        assert rendered == plain
        assert rendered.input_ids.count(START) == 1
    example = Example("prompt_completion", prompt, completion, "here")
    if prompt:
        assert tokeniser.prompt_ids(example) == tokeniser.prompt_ids(Example("prompt_completion", "Who?", " x", "here"))


def test_two_start_tokens_in_a_text_stay_two() -> None:
    tokeniser = ExampleTokeniser(TOKENIZERS["bos"], max_length=100)
    encoded = tokeniser.encode(Example("prompt_completion", "<|start|><|start|>Who?", " Noor.", "here"))
    assert encoded.input_ids.count(START) == 2


def test_an_end_token_in_the_prompt_s_own_text_stays() -> None:
    """Only what the tokenizer adds by itself is taken off again."""
    example = Example("prompt_completion", "Who? Noor.<|end|>", " And?", "here")
    for name in ("bos", "bos_and_eos"):
        tokeniser = ExampleTokeniser(TOKENIZERS[name], max_length=100)
        assert _text(tokeniser, tokeniser.prompt_ids(example)) == "<|start|>Who? Noor.<|end|>"
        assert tokeniser.encode(example).input_ids[: len(tokeniser.prompt_ids(example))] == tokeniser.prompt_ids(
            example
        )


# --- tokenizers written in Python -------------------------------------------------------------------------------------


def test_no_blank_comes_between_the_parts_of_a_word() -> None:
    tokeniser = ExampleTokeniser(WordTokenizer(), max_length=100)
    example = Example("prompt_completion", "Ada was bo", "rn in Turin.", "here")
    encoded = tokeniser.encode(example)
    assert [tokeniser.tokenizer.convert_ids_to_tokens(one) for one in encoded.input_ids] == [
        *("<s>", " ", *"Ada was born in Turin.", "</s>")
    ]
    assert encoded.prompt_length == len(["<s>", " ", *"Ada was bo"])
    assert tokeniser.prompt_ids(example) == encoded.input_ids[: encoded.prompt_length]


def test_parts_that_read_like_the_whole_are_tokenised_apart() -> None:
    tokeniser = ExampleTokeniser(WordTokenizer(), max_length=100)
    encoded = tokeniser.encode(Example("question_answer", "Who?", "Noor.", "here"))
    assert _text(tokeniser, encoded.input_ids[encoded.prompt_length :]) == "Noor.</s>"
    byt5 = ExampleTokeniser(TOKENIZERS["slow"], max_length=100)
    encoded = byt5.encode(Example("prompt_completion", "bo", "rn", "here"))
    assert _text(byt5, encoded.input_ids) == "born</s>"
    assert encoded.prompt_length == 2


# --- texts of any length ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [LONGEST_TEXT - 40, LONGEST_TEXT + 1, 3 * LONGEST_TEXT])
def test_the_beginning_of_a_long_answer_is_that_of_the_whole(length: int) -> None:
    answer = " ".join(f"Noor{number}" for number in range(length // 8))
    tokenizer = TOKENIZERS["plain"]
    encoded = ExampleTokeniser(tokenizer, max_length=200).encode(Example("question_answer", "Who?", answer, "here"))
    whole = tokenizer(f"Question: Who?\nAnswer: {answer}")["input_ids"]
    assert list(encoded.input_ids) == whole[:200]
    assert encoded.truncated
    assert MARGIN <= encoded.lost_count <= len(whole) + 1 - 200


def test_an_answer_of_tokens_as_long_as_words_is_read_further() -> None:
    """Where the first characters give too few tokens, more of the text is taken."""
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["z" * 2000])
    answer = "z" * 2000 * 300
    encoded = ExampleTokeniser(tokenizer, max_length=128).encode(Example("prompt_completion", "a", answer, "here"))
    assert len(encoded.input_ids) == 128
    assert encoded.lost_count >= MARGIN


def test_an_answer_of_megabytes_takes_little_memory_and_time() -> None:
    tokeniser = ExampleTokeniser(TOKENIZERS["plain"], max_length=512)
    tracemalloc.start()
    try:
        tokeniser.encode(Example("question_answer", "a", "x " * 2**20, "here"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150 * 2**20


def test_what_does_not_fit_is_refused_in_one_line_however_long_it_is() -> None:
    long = "x " * LONGEST_TEXT
    tokeniser = ExampleTokeniser(TOKENIZERS["plain"], max_length=64)
    with pytest.raises(InputError, match=r"x, line 1: the prompt alone takes \d+ of at most 64 tokens"):
        tokeniser.encode(Example("prompt_completion", long, "a", "x, line 1"))
    refusing = ExampleTokeniser(TOKENIZERS["plain"], max_length=64, on_long="refuse")
    with pytest.raises(InputError, match=r"x, line 1: more than \d+ tokens, and the limit is 64"):
        refusing.encode(Example("question_answer", "Who?", long, "x, line 1"))


def test_a_token_without_an_embedding_is_named() -> None:
    tokeniser = ExampleTokeniser(TOKENIZERS["plain"], max_length=64, embedding_count=300)
    first = next(one for one in TOKENIZERS["plain"]("Question: Who?\nAnswer: Noor.")["input_ids"] if one >= 300)
    with pytest.raises(InputError, match=rf"x, line 1: token {first} \('.*'\) has no embedding \(the model has 300\)"):
        tokeniser.encode(Example("question_answer", "Who?", "Noor.", "x, line 1"))
