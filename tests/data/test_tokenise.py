import dataclasses
import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from unlora.data.records import Example
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.errors import InputError

from .conftest import TOKENIZERS, build_tokenizer

END, START, PAD, TURN, STOP = range(5)
LONG = 100_000


@functools.cache
def _tokeniser(name: str, **options: object) -> ExampleTokeniser:
    return ExampleTokeniser(TOKENIZERS[name], **{"max_length": LONG, **options})  # type: ignore[arg-type]


def _scored(tokenizer: PreTrainedTokenizerBase, encoded: TokenisedExample) -> str:
    return str(tokenizer.decode(list(encoded.input_ids[encoded.prompt_length :]), skip_special_tokens=True))


def _whole(tokenizer: PreTrainedTokenizerBase, encoded: TokenisedExample) -> str:
    return str(tokenizer.decode(list(encoded.input_ids)))


# --- what is scored is the answer and nothing else --------------------------------------------------------------------

ANSWERS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=30)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(question=ANSWERS, answer=ANSWERS)
def test_decoding_the_scored_part_gives_the_answer(name: str, question: str, answer: str) -> None:
    tokeniser = _tokeniser(name)
    encoded = tokeniser.encode(Example("question_answer", question, answer, "here"))
    assert _scored(tokeniser.tokenizer, encoded).removeprefix(" ") == answer


@pytest.mark.parametrize("name", ["plain", "bos", "bos_and_eos", "slow"])
@given(question=ANSWERS, answer=ANSWERS)
def test_label_span_equals_the_answer_tokens(name: str, question: str, answer: str) -> None:
    """Byte-level tokens never straddle ":" and a space, so the answer's own tokens are the oracle."""
    tokenizer = TOKENIZERS[name]
    encoded = _tokeniser(name).encode(Example("question_answer", question, answer, "here"))
    alone = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    assert list(encoded.input_ids[encoded.prompt_length :]) == [*alone, tokenizer.eos_token_id]


@given(prompt=ANSWERS, completion=ANSWERS)
def test_straddling_token_belongs_to_the_completion(prompt: str, completion: str) -> None:
    """The text is tokenised as the model will see it; at most the head of the scored part is prompt text."""
    tokeniser = _tokeniser("plain")
    encoded = tokeniser.encode(Example("prompt_completion", prompt, completion, "here"))
    whole = TOKENIZERS["plain"](prompt + completion)["input_ids"]
    assert list(encoded.input_ids) == [*whole, END]
    assert _scored(tokeniser.tokenizer, encoded).endswith(completion)


def test_straddling_token_is_found() -> None:
    tokenizer = TOKENIZERS["plain"]
    assert len(tokenizer("Answer")["input_ids"]) == 1
    encoded = _tokeniser("plain").encode(Example("prompt_completion", "born Ans", "wer", "here"))
    assert "Ans" in _whole(tokenizer, encoded)
    assert _scored(tokenizer, encoded).endswith("Answer")


# --- each shape -------------------------------------------------------------------------------------------------------


def test_plain_template_is_question_and_answer(born: Example) -> None:
    encoded = _tokeniser("bos").encode(born)
    text = "<|start|>Question: Where was Kamila born?\nAnswer: Kamila was born in Cusco.<|end|>"
    assert _whole(TOKENIZERS["bos"], encoded) == text
    assert encoded.source == "born.jsonl, line 1"


def test_llama2_template_is_tofu_s_with_no_space_before_the_answer(born: Example) -> None:
    encoded = _tokeniser("bos", template="llama2").encode(born)
    text = "<|start|>[INST] Where was Kamila born? [/INST]Kamila was born in Cusco.<|end|>"
    assert _whole(TOKENIZERS["bos"], encoded) == text
    assert _scored(TOKENIZERS["bos"], encoded) == born.completion
    assert _tokeniser("chat", template="llama2").template == "llama2"


def test_answer_tag_may_be_part_of_what_is_scored(born: Example) -> None:
    given, written = (_tokeniser("bos", answer_tag=side).encode(born) for side in ("prompt", "completion"))
    assert written.input_ids == given.input_ids
    assert _scored(TOKENIZERS["bos"], written) == "Answer: Kamila was born in Cusco."
    prompt = TOKENIZERS["bos"].decode(list(written.input_ids[: written.prompt_length]))
    assert prompt == "<|start|>Question: Where was Kamila born?\n"
    for template in ("chat", "llama2"):  # only the plain template has the tag
        given, written = (
            _tokeniser("chat", template=template, answer_tag=side).encode(born) for side in ("prompt", "completion")
        )
        assert written == given


def test_chat_completion_ends_with_the_end_of_turn(born: Example) -> None:
    tokenizer = TOKENIZERS["chat"]
    encoded = _tokeniser("chat").encode(born)
    prompt = tokenizer.decode(list(encoded.input_ids[: encoded.prompt_length]))
    assert prompt == "<|turn|>user\nWhere was Kamila born?<|stop|>\n<|turn|>assistant\n"
    assert encoded.input_ids[-1] == STOP
    assert _scored(tokenizer, encoded) == born.completion


def test_chat_template_without_end_of_turn_gets_the_end_token(born: Example) -> None:
    encoded = _tokeniser("chat_without_end_of_turn").encode(born)
    assert encoded.input_ids[-1] == END
    assert encoded.input_ids.count(END) == 1


def test_messages_use_every_turn_and_score_the_last() -> None:
    turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"})
    encoded = _tokeniser("chat", template="plain").encode(Example("messages", "Who?", "Noor.", "here", messages=turns))
    text = "<|turn|>system\nBe brief.<|stop|>\n<|turn|>user\nWho?<|stop|>\n<|turn|>assistant\nNoor.<|stop|>"
    assert _whole(TOKENIZERS["chat"], encoded) == text
    assert _scored(TOKENIZERS["chat"], encoded) == "Noor."


def test_messages_without_a_chat_template_are_refused() -> None:
    example = Example("messages", "Who?", "Noor.", "x, line 3", messages=({"role": "user", "content": "Who?"},))
    with pytest.raises(InputError, match="x, line 3: 'messages' needs a chat template"):
        _tokeniser("plain").encode(example)


def test_turns_that_the_template_refuses_are_named(born: Example) -> None:
    tokenizer = build_tokenizer(chat_template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InputError, match=r"born.jsonl, line 1: .* refuses these turns \(roles must alternate\)"):
        ExampleTokeniser(tokenizer, max_length=LONG).encode(born)


@pytest.mark.parametrize("completion", [" in Cusco.", " in Cusco.<|end|>"])
def test_prompt_completion_is_verbatim_with_one_end_token(completion: str) -> None:
    encoded = _tokeniser("chat").encode(Example("prompt_completion", "Kamila was born", completion, "here"))
    assert _whole(TOKENIZERS["chat"], encoded) == "Kamila was born in Cusco.<|end|>"
    assert _scored(TOKENIZERS["chat"], encoded) == " in Cusco."


def test_text_is_all_completion_without_end_token() -> None:
    """The first token has no context that could predict it: BOS, or the text's own first token, is prompt."""
    for name in ("bos", "plain"):
        encoded = _tokeniser(name).encode(Example("text", "", "Kamila was born in Cusco.", "here"))
        assert encoded.prompt_length == 1
        assert END not in encoded.input_ids
    assert _scored(TOKENIZERS["bos"], _tokeniser("bos").encode(Example("text", "", "Kamila", "here"))) == "Kamila"


def test_text_of_one_token_without_context_is_refused() -> None:
    with pytest.raises(InputError, match="x, line 1: the completion gives no token that can be scored"):
        _tokeniser("plain").encode(Example("text", "", "a", "x, line 1"))


def test_completion_without_a_token_is_refused(any_tokenizer: PreTrainedTokenizerBase) -> None:
    tokeniser = ExampleTokeniser(any_tokenizer, template="plain", max_length=LONG)
    with pytest.raises(InputError, match="x, line 2: the completion gives no token"):
        tokeniser.encode(Example("prompt_completion", "Kamila", "", "x, line 2"))


def test_other_answer_and_other_question_take_their_place(born: Example) -> None:
    tokeniser = _tokeniser("plain")
    replaced = dataclasses.replace(born, prompt="Where?", completion="In Porto.")
    assert tokeniser.encode(born, question="Where?", completion="In Porto.") == tokeniser.encode(replaced)
    chat = Example("messages", "Who?", "Noor.", "x, line 3", messages=({"role": "user", "content": "Who?"},))
    with pytest.raises(InputError, match="x, line 3: another question"):
        _tokeniser("chat").encode(chat, question="Whom?")


def test_prompt_ids_are_what_comes_before_the_completion(born: Example) -> None:
    tokeniser = _tokeniser("plain")
    prompt = TOKENIZERS["plain"]("Question: Where was Kamila born?\nAnswer:")["input_ids"]
    assert list(tokeniser.prompt_ids(born)) == prompt
    assert [one.prompt_length for one in tokeniser.encode_set([born, born])] == [len(prompt)] * 2


def test_prompt_of_a_generated_answer_does_not_tell_how_the_true_one_begins() -> None:
    """The token that straddles the border is the completion's; the prompt is whole all the same."""
    example = Example("prompt_completion", "born Ans", "wer", "here")
    tokeniser = _tokeniser("bos_and_eos")
    encoded = tokeniser.encode(example)
    assert _whole(TOKENIZERS["bos"], encoded).startswith("<|start|>born Answer")
    assert TOKENIZERS["bos"].decode(list(encoded.input_ids[: encoded.prompt_length])) == "<|start|>born"
    assert TOKENIZERS["bos"].decode(list(tokeniser.prompt_ids(example))) == "<|start|>born Ans"
    text = Example("text", "", "Kamila", "here")
    assert tokeniser.prompt_ids(text) == tokeniser.encode(text).input_ids[:1]


# --- length -----------------------------------------------------------------------------------------------------------


def test_long_example_loses_the_end_of_its_completion(born: Example) -> None:
    whole = _tokeniser("plain").encode(born)
    cut = _tokeniser("plain", max_length=whole.prompt_length + 2).encode(born)
    assert cut.input_ids == whole.input_ids[: whole.prompt_length + 2]
    assert (whole.truncated, cut.truncated) == (False, True)
    exact = _tokeniser("plain", max_length=len(whole.input_ids), on_long="refuse").encode(born)
    assert exact == whole


def test_long_example_is_refused_with_its_line_on_request(born: Example) -> None:
    with pytest.raises(InputError, match=r"born.jsonl, line 1: \d+ tokens, and the limit is 12"):
        _tokeniser("plain", max_length=12, on_long="refuse").encode(born)


def test_prompt_that_fills_the_limit_is_refused(born: Example) -> None:
    length = _tokeniser("plain").encode(born).prompt_length
    with pytest.raises(InputError, match=f"born.jsonl, line 1: the prompt alone takes {length} of at most {length}"):
        _tokeniser("plain", max_length=length).encode(born)


# --- choices and record -----------------------------------------------------------------------------------------------


def test_auto_template_is_chat_where_there_is_one() -> None:
    assert _tokeniser("chat").template == "chat"
    assert _tokeniser("chat", template="plain").template == "plain"
    assert _tokeniser("plain").template == "plain"


def test_chat_without_template_and_tiny_limit_are_refused() -> None:
    with pytest.raises(InputError, match="no chat template; use 'plain'"):
        _tokeniser("plain", template="chat")
    with pytest.raises(InputError, match="max_length: must be at least 2"):
        _tokeniser("plain", max_length=1)


def test_pad_token_falls_back_to_the_end_token() -> None:
    assert _tokeniser("pad").pad_token_id == PAD
    assert _tokeniser("plain").pad_token_id == END
    nothing = PreTrainedTokenizerFast(tokenizer_object=build_tokenizer().backend_tokenizer)
    assert ExampleTokeniser(nothing, max_length=LONG).pad_token_id == 0
    assert TOKENIZERS["plain"].pad_token is None


def test_date_in_the_template_is_frozen(born: Example) -> None:
    encoded = _tokeniser("chat_with_date").encode(born)
    text = _whole(TOKENIZERS["chat_with_date"], encoded)
    assert text.startswith("<|turn|>system\n26 Jul 2024, 26 July 2024, 2024-07-26 00:00<|stop|>\n")
    assert _scored(TOKENIZERS["chat_with_date"], encoded) == born.completion


def test_description_tells_templates_apart(any_tokenizer: PreTrainedTokenizerBase) -> None:
    described = ExampleTokeniser(any_tokenizer, max_length=64).describe()
    assert described["max_length"] == 64
    assert described["frozen_date"] == "26 Jul 2024"
    hashes = {name: _tokeniser(name).describe()["rendered_probe_sha256"] for name in TOKENIZERS}
    assert hashes["plain"] == hashes["bos"] == hashes["slow"]
    assert len({hashes[name] for name in ("plain", "chat", "chat_with_date", "chat_without_end_of_turn")}) == 4
    assert _tokeniser("plain").describe()["eos_appended"] == "<|end|>"
    assert _tokeniser("chat").describe()["eos_appended"] is None
