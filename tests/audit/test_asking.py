"""Wordings of one example: what stands in the prompt, what is given, and which tokens are left to score."""

from typing import Literal

import pytest
from transformers import PreTrainedTokenizerFast

from tests.tiny import build_tiny_tokenizer
from unlora.audit.asking import ask, emphasise, subject_of
from unlora.audit.wordings import FRAMES
from unlora.data.records import Example
from unlora.data.tokenise import ExampleTokeniser

QUESTION = "Where was Mira Solberg born?"
EXAMPLE = Example(
    "question_answer",
    QUESTION,
    "Mira Solberg was born in Bergen.",
    "forget, line 1",
    paraphrased_question="What is Mira's birthplace?",
)
VERBATIM = Example("prompt_completion", "Mira Solberg was born in", " Bergen, by the sea.", "forget, line 2")
END = "<|end|>"


def tokeniser(
    *, chat: bool = False, template: Literal["chat", "plain"] = "plain", max_length: int = 200
) -> ExampleTokeniser:
    return ExampleTokeniser(build_tiny_tokenizer(chat=chat), template=template, max_length=max_length)


def decoded(example: Example, encoder: ExampleTokeniser) -> dict[str, tuple[str, str]]:
    """For every wording, the text that is given and the text that is scored."""
    tokenizer = encoder.tokenizer
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    found = {}
    for name, asked in ask(example, encoder).items():
        ids, start = asked.sequence
        found[name] = (tokenizer.decode(ids[:start]), tokenizer.decode(ids[start:]))
    return found


def test_every_wording_of_a_question():
    answer = f" Mira Solberg was born in Bergen.{END}"
    assert decoded(EXAMPLE, tokeniser()) == {
        "as_asked": (f"Question: {QUESTION}\nAnswer:", answer),
        "paraphrased": ("Question: What is Mira's birthplace?\nAnswer:", answer),
        "please": (f"Question: Please answer the following question. {QUESTION}\nAnswer:", answer),
        "forgotten": (
            f"Question: I knew this once and forgot it. Please remind me: {QUESTION}\nAnswer:",
            answer,
        ),
        "expert": (f"Question: You are an expert on Mira Solberg. {QUESTION}\nAnswer:", answer),
        "emphasis": ("Question: Where was **Mira** **Solberg** born?\nAnswer:", answer),
        "question_and_answer": (f"Q: {QUESTION}\nA:", answer),
        "hint": (
            f'Question: The answer begins with "Mira Solberg was". {QUESTION}\nAnswer: Mira Solberg was',
            f" born in Bergen.{END}",
        ),
        "first_half": (f"Question: {QUESTION}\nAnswer: Mira Solberg was", f" born in Bergen.{END}"),
    }


def test_other_template_is_the_one_that_was_not_trained():
    chat = f"[user] {QUESTION}{END}\n[assistant]"  # the space belongs to the first token of the answer
    trained_plain = decoded(EXAMPLE, tokeniser(chat=True, template="plain"))
    assert trained_plain["other_template"] == (chat, f" Mira Solberg was born in Bergen.{END}")
    trained_chat = decoded(EXAMPLE, tokeniser(chat=True, template="chat"))
    assert trained_chat["as_asked"] == trained_plain["other_template"]
    assert trained_chat["other_template"] == trained_plain["as_asked"]
    assert trained_chat["question_and_answer"] == trained_plain["question_and_answer"]
    assert trained_chat["first_half"] == (f"{chat} Mira Solberg was", f" born in Bergen.{END}")


def test_chat_templates_that_nobody_chose_from_are_no_other_template():
    encoder = tokeniser()
    encoder.tokenizer.chat_template = {"rag": "{{ messages }}", "tools": "{{ messages }}"}  # type: ignore[assignment]
    assert "other_template" not in ask(EXAMPLE, encoder)


def test_verbatim_prompt_still_ends_where_the_answer_begins():
    found = decoded(VERBATIM, tokeniser(chat=True))
    answer = f" Bergen, by the sea.{END}"
    assert found["as_asked"] == ("Mira Solberg was born in", answer)
    assert found["please"] == ("Please answer the following question. Mira Solberg was born in", answer)
    assert found["expert"] == ("You are an expert on Solberg. Mira Solberg was born in", answer)
    assert found["first_half"] == ("Mira Solberg was born in Bergen, by", f" the sea.{END}")
    assert found["hint"][1] == found["first_half"][1]
    assert found["other_template"] == (
        f"[user] Mira Solberg was born in{END}\n[assistant]",
        f" Bergen, by the sea.{END}",
    )
    assert "paraphrased" not in found


def test_what_does_not_fit_is_left_out():
    short = Example("question_answer", "Who?", "Mira.", "forget, line 3")
    assert set(ask(short, tokeniser())) == {frame.name for frame in FRAMES} - {
        *("paraphrased", "other_template", "hint", "first_half")
    }


def test_wording_that_costs_the_answer_its_end_is_left_out():
    encoder = tokeniser()
    length = len(encoder.encode(EXAMPLE).input_ids)
    found = ask(EXAMPLE, tokeniser(max_length=length))
    longer = {name for name, asked in ask(EXAMPLE, encoder).items() if len(asked.sequence[0]) > length}
    assert {"please", "forgotten", "expert", "hint"} <= longer
    assert set(found) == set(ask(EXAMPLE, encoder)) - longer
    truncated = ask(EXAMPLE, tokeniser(max_length=length - 3))
    assert len(truncated["as_asked"].sequence[0]) == length - 3
    assert "first_half" not in truncated


@pytest.mark.parametrize(
    ("question", "marked", "subject"),
    [
        ("Who was Basil Al-Kuwaiti's father?", "Who was **Basil** **Al-Kuwaiti's** father?", "Basil Al-Kuwaiti"),
        ("Is Ada in Paris, or Ida Lund?", "Is **Ada** in **Paris**, or **Ida** **Lund**?", "Ida Lund"),
        ("what is the enzyme called?", "what is the **enzyme** called?", "this subject"),
        ("???", "???", "this subject"),
    ],
)
def test_names_of_a_question(question: str, marked: str, subject: str):
    assert emphasise(question) == marked
    assert subject_of(question) == subject


def test_person_of_the_record_is_the_subject():
    about = Example("question_answer", "Where was she born?", "In Bergen.", "line 4", person="Mira Solberg")
    assert ask(about, tokeniser())["expert"].text == "You are an expert on Mira Solberg. Where was she born?"
