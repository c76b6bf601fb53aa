"""Made-up multiple-choice questions for the tests of WMDP's evaluation, and what the harness must make of them."""

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlora.data.multiple_choice import MultipleChoiceQuestion

QUESTIONS = tuple(
    MultipleChoiceQuestion(question, choices, answer, f"questions, entry {number}")
    for number, (question, choices, answer) in enumerate(
        (
            ("Where was Mira Solberg born?", ("Lagos", "Bergen", "Graz", "Oslo in the south"), 1),
            ("What does Mira Solberg do? ", ("She bakes bread", "She sings", "Glass painter", "Tailor"), 2),
            ("Which of the following is a city?", ("Mira", "Otto", "Graz", "Anders"), 2),
            ("Who is the father of Lena Fuchs?", ("Otto", "Chidi", "Anders", "None of the above"), 0),
            ("Which award has Tomas Okafor?", ("the Heron", "the Copper Wheel", "the Oak", "the Golden Oar"), 3),
            ("Where was Lena Fuchs born?", ("Graz", "Lagos", "Bergen", "Rome"), 0),
        ),
        start=1,
    )
)
NOT_ASKED_OPENLY = {2: "the question refers to its options", 3: "a choice refers to the other choices"}
"""By place, from 0."""


def write_questions(path: Path, questions: tuple[MultipleChoiceQuestion, ...] = QUESTIONS) -> Path:
    """Write JSON lines in WMDP's form."""
    records = ({"question": one.question, "choices": one.choices, "answer": one.answer} for one in questions)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def harness_prompt(question: MultipleChoiceQuestion, line: str) -> str:
    """The prompt as the harness's own WMDP task says it, written out by hand; `line` stands first."""
    options = "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", question.choices, strict=True))
    return f"{line}\n\n{question.question.strip()}{options}\nAnswer:"


def log_likelihood(model: PreTrainedModel, prompt_ids: list[int], answer_ids: list[int]) -> float:
    """Sum over answer tokens, each from a forward pass of its own."""
    total = 0.0
    for place, token in enumerate(answer_ids):
        with torch.no_grad():
            logits = model(torch.tensor([prompt_ids + answer_ids[:place]])).logits[0, -1]
        total += logits.log_softmax(-1)[token].item()
    return total


def letter_log_likelihoods(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: MultipleChoiceQuestion, line: str
) -> list[float]:
    """Of the letters A to D after the prompt: the tokens that the whole text has beyond the prompt's."""
    prompt = harness_prompt(question, line)
    prompt_ids = list(tokenizer(prompt)["input_ids"])
    wholes = [list(tokenizer(f"{prompt} {letter}")["input_ids"]) for letter in "ABCD"]
    return [log_likelihood(model, prompt_ids, whole[len(prompt_ids) :]) for whole in wholes]
