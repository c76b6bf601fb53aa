"""The three protocols against the released programs' own rules, written once more as plain loops."""

import pytest
from transformers import PreTrainedTokenizerBase

from tests.data.conftest import TOKENIZERS
from unlora.data.records import Example
from unlora.data.tokenise import ExampleTokeniser
from unlora.suites.tofu.protocols import PROTOCOLS, protocol_in_force, tokeniser_for

ANSWERS = {
    "short": "In Cusco.",
    "just under the limit": " ".join(["Cusco"] * 60),
    "long": "Kamila was born in the city of Cusco in Peru. " * 20,
}
TOFU_TAGS = {"plain": ("Question: ", "\n", "Answer: "), "llama2": ("[INST] ", " [/INST]", "")}
"""What TOFU's configuration of Phi and of Llama 2 puts before and after a question, and before an answer."""


def tofu_s_ids_and_labels(
    tokenizer: PreTrainedTokenizerBase, template: str, question: str, answer: str
) -> tuple[list[int], list[int]]:
    """Tokens that are seen and tokens that are scored: 200 in all, and an end token where there is room."""
    start, end, tag = TOFU_TAGS[template]
    asked = len(tokenizer(start + question + end)["input_ids"])
    ids = list(tokenizer(start + question + end + tag + answer)["input_ids"])[:200]
    if len(ids) < 200:
        ids = [*ids, tokenizer.eos_token_id]
    return ids, ids[asked:]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("template", TOFU_TAGS)
@pytest.mark.parametrize("tokenizer", ["plain", "bos"])
def test_tofu_s_tokens_are_those_of_its_program(tokenizer: str, template: str, answer: str) -> None:
    base = ExampleTokeniser(TOKENIZERS[tokenizer], template=template, max_length=512)  # type: ignore[arg-type]
    tokeniser = tokeniser_for(PROTOCOLS["tofu"], base)
    example = Example("question_answer", "Where was Kamila born?", ANSWERS[answer], "here")
    encoded = tokeniser.encode(example)
    ids, scored = tofu_s_ids_and_labels(TOKENIZERS[tokenizer], template, example.prompt, example.completion)
    assert list(encoded.input_ids) == ids
    assert list(encoded.input_ids[encoded.prompt_length :]) == scored
    assert encoded.truncated == (answer == "long")
    # Its prompt for generation is what comes before "Answer: ", or ends with " [/INST]".
    prompt = TOKENIZERS[tokenizer].decode(list(tokeniser.prompt_ids(example)), skip_special_tokens=True)
    start, end, _ = TOFU_TAGS[template]
    assert prompt == f"{start}{example.prompt}{end}"
    assert PROTOCOLS["tofu"].generation_limit(encoded.prompt_length) == 200 - (len(ids) - len(scored))


def test_generated_answers_have_each_protocol_s_limit() -> None:
    limits = {name: [protocol.generation_limit(length) for length in (20, 150)] for name, protocol in PROTOCOLS.items()}
    assert limits == {"unlora": [128, 128], "tofu": [180, 50], "open_unlearning": [200, 200]}
    assert {name: protocol.max_examples for name, protocol in PROTOCOLS.items()} == {
        "unlora": 300,
        "tofu": 300,
        "open_unlearning": None,
    }


def test_what_a_setting_changes_is_listed() -> None:
    assert protocol_in_force("tofu") == PROTOCOLS["tofu"]
    assert protocol_in_force("tofu", max_examples=300) == PROTOCOLS["tofu"]
    short = protocol_in_force("tofu", max_examples=40, max_new_tokens=60)
    assert short.overridden == ("max_examples", "max_new_tokens")
    assert [short.generation_limit(length) for length in (20, 150)] == [60, 50]
    assert short.to_json()["overridden"] == ["max_examples", "max_new_tokens"]
    assert (short.to_json()["name"], short.to_json()["max_length"]) == ("tofu", 200)


def test_length_limit_is_the_protocol_s_where_it_has_one() -> None:
    own = ExampleTokeniser(TOKENIZERS["plain"], template="plain", max_length=64, on_long="refuse")
    kept, tofu, other = (tokeniser_for(PROTOCOLS[name], own) for name in ("unlora", "tofu", "open_unlearning"))
    assert (kept.max_length, kept.on_long, kept.describe()) == (64, "refuse", own.describe())
    assert [(one.max_length, one.on_long) for one in (tofu, other)] == [(200, "truncate"), (512, "truncate")]
    assert tofu.describe()["rendered_probe_sha256"] != own.describe()["rendered_probe_sha256"]
    assert other.describe()["rendered_probe_sha256"] == own.describe()["rendered_probe_sha256"]
    again = tokeniser_for(PROTOCOLS["tofu"], tofu)
    assert again.describe() == tofu.describe()
