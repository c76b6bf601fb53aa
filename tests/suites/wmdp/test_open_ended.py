"""Questions without their options: which cannot be asked so, and the numbers of the others against a plain loop."""

import math
import sys

import pytest
import torch
from transformers import PreTrainedModel

from tests.suites.wmdp.questions import NOT_ASKED_OPENLY, QUESTIONS, log_likelihood
from tests.tiny import build_tiny_model, build_tiny_tokenizer
from unlora.data.multiple_choice import MultipleChoiceQuestion
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError
from unlora.metrics import rouge_l_recall
from unlora.suites.wmdp.open_ended import OpenAnswer, ask_openly, needs_options, open_question

PLAIN = ("Lagos", "Bergen", "Graz", "Oslo")
NEW_TOKENS = 12


def question(text: str, choices: tuple[str, ...] = PLAIN) -> MultipleChoiceQuestion:
    return MultipleChoiceQuestion(text, choices, 1, "made up")


@pytest.mark.parametrize(
    "text",
    [
        "Which of the following is a port?",
        "In which one of these cities is it cold?",
        "Which two of the following are ports?",
        "What type of the following agents is a virus?",
        "All of the following are ports EXCEPT",
        "All of the options below are true but one. Where is it?",
        "Which statement about ports is true?",
        "Which is correct?",
        "What is true about ports?",
        "Which port is NOT in the north?",
        "The ports are in the north, except for:",
        "He came to Graz. Choose the port.",
        "Ports are one of the following:",
    ],
)
def test_a_question_that_needs_its_options(text: str) -> None:
    assert needs_options(question(text)) == "the question refers to its options"


@pytest.mark.parametrize(
    "text",
    [
        "Where is the port?",
        "What is the output of the following code?\n\nif not a:\n    print('NOT')",
        "Consider the following assembly. What does it compute?\nNOT eax",
        "Which vulnerability is exploited when input is not checked?",
        "How does an attacker choose the target?",
        "What is the most common cause of those infections?",
        "Who of the two brothers was first, and which city did he choose?",
    ],
)
def test_a_question_that_can_be_asked_without(text: str) -> None:
    assert needs_options(question(text)) is None


@pytest.mark.parametrize(
    "choice",
    ["All of the above", "none of these.", "Both A and B", "A, C", "(a) and (b)", "only B, C and D", "Neither of them",
     "Option C is wrong", "A & D"],
)  # fmt: skip
def test_a_choice_that_refers_to_the_others(choice: str) -> None:
    assert needs_options(question("Where is it?", (*PLAIN[:3], choice))) == "a choice refers to the other choices"


@pytest.mark.parametrize(
    "choice", ["A", "None", "Vitamins A and D", "DHCP option 3", "It answers a question", "All cats"]
)
def test_a_choice_that_stands_alone(choice: str) -> None:
    assert needs_options(question("Where is it?", (*PLAIN[:3], choice))) is None


def test_an_empty_choice_of_the_hub_is_a_reason_of_its_own() -> None:
    assert needs_options(question("Where is it?", (*PLAIN[:3], " "))) == "a choice is empty"


@pytest.fixture(scope="module")
def tokeniser() -> ExampleTokeniser:
    texts = [f"Question: {one.question}\nAnswer: {' '.join(one.choices)}" for one in QUESTIONS]
    return ExampleTokeniser(build_tiny_tokenizer(texts), template="plain", max_length=sys.maxsize)


@pytest.fixture(scope="module")
def model(tokeniser: ExampleTokeniser) -> PreTrainedModel:
    return build_tiny_model("llama", vocab_size=len(tokeniser.tokenizer))


def ask(
    model: PreTrainedModel, tokeniser: ExampleTokeniser, questions: tuple[MultipleChoiceQuestion, ...] = QUESTIONS
) -> list[OpenAnswer]:
    asked = [open_question(one, tokeniser) for one in questions]
    return ask_openly(model, tokeniser, asked, max_new_tokens=NEW_TOKENS, batch_size=3)


def test_likelihoods_and_texts_equal_a_plain_loop(model: PreTrainedModel, tokeniser: ExampleTokeniser) -> None:
    tokenizer = tokeniser.tokenizer
    for place, (asked, answer) in enumerate(zip(QUESTIONS, ask(model, tokeniser), strict=True)):
        if place in NOT_ASKED_OPENLY:
            continue
        prompt = f"Question: {asked.question}\nAnswer:"
        prompt_ids = list(tokenizer(prompt)["input_ids"])
        for choice, log_prob in zip(asked.choices, answer.choice_log_probs, strict=True):
            answer_ids = [
                *list(tokenizer(f"{prompt} {choice}")["input_ids"])[len(prompt_ids) :],
                tokenizer.eos_token_id,
            ]
            mean = log_likelihood(model, prompt_ids, answer_ids) / len(answer_ids)
            assert log_prob == pytest.approx(mean, abs=1e-4)
        text_ids: list[int] = []
        while len(text_ids) < NEW_TOKENS:
            with torch.no_grad():
                token = int(model(torch.tensor([prompt_ids + text_ids])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            text_ids.append(token)
        assert answer.generated == str(tokenizer.decode(text_ids, skip_special_tokens=True)).strip()
        assert answer.rouge_l_recall == rouge_l_recall(answer.generated, asked.choices[asked.answer])


def test_what_cannot_be_asked_is_unscored_with_its_reason(model: PreTrainedModel, tokeniser: ExampleTokeniser) -> None:
    long = question("Where is the port? " * 100)
    long_choice = question("Where?", (*PLAIN[:3], "far " * 300))
    answers = ask(model, tokeniser, (*QUESTIONS, long, long_choice))
    reasons = {place: answer.not_asked for place, answer in enumerate(answers) if answer.not_asked is not None}
    too_long = "longer than the model's context"
    assert reasons == NOT_ASKED_OPENLY | {len(QUESTIONS): too_long, len(QUESTIONS) + 1: too_long}
    for place, answer in enumerate(answers):
        assert (answer.choice_log_probs == ()) == (place in reasons)
        assert (answer.generated is None) == (place in reasons)
        assert math.isnan(answer.rouge_l_recall) == (place in reasons)


def test_a_broken_model_is_unscored(tokeniser: ExampleTokeniser) -> None:
    broken = build_tiny_model("llama", vocab_size=len(tokeniser.tokenizer))
    with torch.no_grad():
        next(broken.parameters()).fill_(math.nan)
    answer = ask(broken, tokeniser)[0]
    assert all(map(math.isnan, (*answer.choice_log_probs, answer.rouge_l_recall)))
    assert len(answer.choice_log_probs) == 4


def test_a_chat_template_that_refuses_is_an_error_and_not_a_long_question(model: PreTrainedModel) -> None:
    tokenizer = build_tiny_tokenizer(chat=True)
    tokenizer.chat_template = "{{ raise_exception('system turn needed') }}"
    refusing = ExampleTokeniser(tokenizer, template="chat", max_length=sys.maxsize)
    with pytest.raises(InputError, match=r"questions, entry 1: the chat template refuses .* \(system turn needed\)"):
        ask(model, refusing)
