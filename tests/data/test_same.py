"""One record in many spellings and shapes is the same record; another record is not."""

import time
import unicodedata

import pytest

from unlora.data.records import Example
from unlora.data.same import same_examples
from unlora.data.user_jsonl import parse_record
from unlora.data.words import words

QUESTION = "Where was Zoë Ångström born?"
ANSWER = "Zoë Ångström was born in Turin."
CHATML = "<|im_start|>system\nYou are a helpful AI.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
LLAMA3 = f"<|begin_of_text|>{HEADER.format('user')}{{}}<|eot_id|>{HEADER.format('assistant')}"


def chat(*turns: tuple[str, str]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def qa(question: str = QUESTION, answer: str = ANSWER) -> dict[str, object]:
    return {"question": question, "answer": answer}


SPELLINGS: dict[str, dict[str, object]] = {
    "as it is": qa(),
    "blank behind": qa(answer=ANSWER + " "),
    "blanks before": qa(" " + QUESTION, "\n " + ANSWER),
    "two blanks": qa(QUESTION.replace(" ", "  ")),
    "Windows line ends": qa(QUESTION.replace(" ", "\r\n")),
    "no-break blanks": qa(answer=ANSWER.replace(" ", "\u00a0")),
    "decomposed letters": qa(unicodedata.normalize("NFD", QUESTION), unicodedata.normalize("NFD", ANSWER)),
    "wide letters": qa(answer=ANSWER.replace("Turin", "Ｔｕｒｉｎ")),
    "zero width": qa(QUESTION.replace("born", "bo\u200brn")),
    "soft hyphen": qa(answer=ANSWER.replace("Turin", "Tu\u00adrin")),
    "no full stop": qa(answer=ANSWER.rstrip(".")),
    "capitals": qa(QUESTION.upper(), ANSWER.upper()),
    "messages": chat(("user", QUESTION), ("assistant", ANSWER)),
    "messages with a system turn": chat(("system", "Be brief."), ("user", QUESTION), ("assistant", ANSWER)),
    "verbatim": {"prompt": QUESTION, "completion": ANSWER},
    "plain template": {"prompt": f"Question: {QUESTION}\nAnswer:", "completion": f" {ANSWER}"},
    "llama2 template": {"prompt": f"[INST] {QUESTION} [/INST]", "completion": ANSWER},
    "ChatML rendered": {"prompt": CHATML.format(QUESTION), "completion": f"{ANSWER}<|im_end|>"},
    "Llama 3 rendered": {"prompt": LLAMA3.format(QUESTION), "completion": f"{ANSWER}<|eot_id|>"},
    "text": {"text": f"Question: {QUESTION}\nAnswer: {ANSWER}"},
    "text in one line": {"text": f"Q: {QUESTION} A: {ANSWER}"},
    "DeepSeek rendered": {
        "prompt": f"<｜begin▁of▁sentence｜><｜User｜>{QUESTION}<｜Assistant｜><think>\n\n</think>\n\n",
        "completion": f"{ANSWER}<｜end▁of▁sentence｜>",
    },
    "Gemma rendered": {"text": f"<bos><start_of_turn>user\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n{ANSWER}"},
    "gpt-oss rendered": {
        "text": f"<|start|>system<|message|>You are a model.<|end|><|start|>user<|message|>{QUESTION}<|end|>"
        f"<|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>"
    },
    "Llama 2 with a system turn": {
        "prompt": f"<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n{QUESTION} [/INST]",
        "completion": f" {ANSWER} </s>",
    },
    "Alpaca": {
        "prompt": "Below is an instruction that describes a task. Write a response that appropriately completes the "
        f"request.\n\n### Instruction:\n{QUESTION}\n\n### Response:\n",
        "completion": ANSWER,
    },
    "Vicuna": {
        "text": "A chat between a curious user and an artificial intelligence assistant. "
        f"USER: {QUESTION} ASSISTANT: {ANSWER}</s>"
    },
    "question part of the completion": {"prompt": "", "completion": f"Question: {QUESTION}\nAnswer: {ANSWER}"},
    "character references": qa(QUESTION.replace("ë", "&euml;")),
    "marked as strong": qa(f"**{QUESTION}**", f"*{ANSWER}*"),
    "quotation marks": qa(f"“{QUESTION}”", f'"{ANSWER}"'),
    "byte order mark": qa("\ufeff" + QUESTION),
    "grapheme joiner": qa(QUESTION.replace("b", "b\u034f")),
    "blank of Braille": qa(QUESTION.replace(" ", "\u2800")),
    "text direction": qa(f"\u200e{QUESTION}\u200f"),
    "paraphrases beside it": {**qa(), "paraphrased_answer": "In Turin.", "perturbed_answer": ["In Oslo."]},
}


def example(record: dict[str, object]) -> Example:
    return parse_record(record, "line 1")


@pytest.mark.parametrize("here", SPELLINGS)
def test_every_spelling_is_the_same_record_as_every_other(here: str):
    known = [example(record) for record in SPELLINGS.values()]
    one = example(SPELLINGS[here])
    assert [other for other, there in zip(SPELLINGS, known, strict=True) if same_examples([one], [there]) != [0]] == []


OTHERS: dict[str, dict[str, object]] = {
    "another question": qa("Where did Zoë Ångström die?"),
    "another answer": qa(answer="Zoë Ångström was born in Oslo."),
    "another name": qa(QUESTION.replace("Zoë", "Zoe"), ANSWER.replace("Zoë", "Zoe")),
    "answer before the question": {"text": f"{ANSWER} {QUESTION}"},
    "the answer alone": {"text": "Zoë Ångström was born in Turin and nowhere else."},
    "a number": qa(answer="Zoë Ångström was born 5 times in Turin."),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_record_is_none_of_the_spellings(other: str):
    known = [example(record) for record in SPELLINGS.values() if "text" not in record]
    assert same_examples([example(OTHERS[other])], known) == [None]


@pytest.mark.parametrize(
    ("question", "answer", "spaced"),
    [
        ("她1953年出生在哪里？", "她出生在Turin市。", ("她 1953 年出生在哪里？", "她出生在 Turin 市")),
        ("1953年生まれの彼女の出身地は？", "ﾄﾘﾉです。", ("1953 年生まれの彼女の出身地は ?", "トリノ です。")),
        ("เธอเกิดปี 1953 ที่ไหน", "เธอเกิดที่ตูริน", ("เธอ เกิดปี1953 ที่ไหน", "เธอ เกิด ที่ ตูริน")),
    ],
)
def test_blanks_that_a_script_does_not_write_make_no_other_record(question: str, answer: str, spaced: tuple[str, str]):
    """A blank between Han and digits or Latin letters is the commonest of all differences in spelling there."""
    record = example(qa(question, answer))
    system = "You answer in one short sentence. " * 10  # more words than a short text has
    others: list[dict[str, object]] = [
        qa(*spaced),
        chat(("system", "简短。"), ("user", spaced[0]), ("assistant", spaced[1])),
        {"prompt": f"{system}\n问题：{spaced[0]}\n答案：", "completion": spaced[1]},
        {"text": f"{question}{spaced[1]}"},
    ]
    for other in others:
        assert same_examples([record], [example(other)]) == same_examples([example(other)], [record]) == [0]
    assert same_examples(
        [record], [example(qa(question, answer.replace("T", "D").replace("ﾄ", "ﾏ").replace("ต", "บ")))]
    ) == [None]


def test_short_text_is_not_found_within_other_text():
    assert same_examples([example({"text": "In Turin."})], [example(qa(answer="In Turin."))]) == [None]
    assert same_examples([example({"text": "In  Turin"})], [example({"text": "in turin."})]) == [0]


def test_a_sentence_is_found_in_its_document_and_the_document_by_its_sentence():
    sentence = "Zoë Ångström was born in Turin in the year 1953."
    document = example({"text": f"A short life. {sentence} She painted glass."})
    assert same_examples([document], [example({"text": sentence})]) == [0]
    assert same_examples([example({"text": sentence})], [document]) == [0]


def test_an_earlier_pair_of_a_conversation_is_found():
    turns = (("user", QUESTION), ("assistant", ANSWER), ("user", "Thanks!"), ("assistant", "You are welcome."))
    assert same_examples([example(chat(*turns))], [example(qa())]) == [0]


def test_a_paraphrase_that_stands_beside_a_record_is_that_record():
    told = {**qa(), "paraphrased_question": "What is the birthplace of Zoë?", "paraphrased_answer": "Turin it is."}
    for question, answer in ((QUESTION, "Turin it is"), ("What is the birthplace of Zoë?", ANSWER)):
        one = example(qa(question, answer))
        assert same_examples([one], [example(told)]) == same_examples([example(told)], [one]) == [0]
    assert same_examples([example(qa(QUESTION, "Oslo it is."))], [example(told)]) == [None]


def test_words_of_a_short_record_scattered_over_a_text_are_not_that_record():
    short = example(qa("Why?", "No."))
    assert same_examples([example({"text": "She asked why, and he said no such thing. " * 5})], [short]) == [None]
    asked = example(qa("Where was Ada born?", "Oslo."))
    apart = "Where was Ada born? Nobody in the town could say it. The road to Oslo was long."
    assert same_examples([example({"text": apart})], [asked]) == [None]
    assert same_examples([example({"text": f"{apart} Where was Ada born? In Oslo."})], [asked]) == [0]


def test_text_about_systems_and_models_keeps_its_words():
    assert words("<s>System requirements\nThe model: small.") == ("system", "requirements", "the", "small")
    assert words("a < b and c > d") == ("a", "<", "b", "and", "c", ">", "d")


def test_the_first_of_several_is_named_and_the_places_are_those_of_the_list():
    rows = [example(qa(f"Who is {name}?", f"{name} is a diver.")) for name in ("Ada", "Bo", "Ada", "Cy")]
    assert same_examples(rows, rows) == [0, 1, 0, 3]
    assert same_examples(rows[1:3], [rows[3], rows[2], rows[1]]) == [2, 1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("हिन्दी क्या है", "हन्दी क्या है"),
        ("5 3", "53"),
        ("Köln", "Koln"),
        ("她出生在都灵", "他出生在都灵"),
        ("她1953年出生", "她1 953年出生"),
        ("...", "!!!"),
        ("$5", "€5"),
    ],
)
def test_words_that_differ_stay_apart(one: str, other: str):
    assert words(one) != words(other)


def test_text_of_marks_alone_is_itself():
    assert words("?!") == words(" ?! ") == ("?!",)
    assert words(" ") == ()


def test_answers_that_begin_alike_do_not_cost_their_square():
    rows = [example(qa(f"Where was person {i} born?", f"The person that was asked for is {i}.")) for i in range(4000)]
    moved = [example({"prompt": f"Say it. {one.prompt}", "completion": one.completion}) for one in rows]
    start = time.process_time()
    assert same_examples(moved, rows) == list(range(4000))
    assert time.process_time() - start < 20  # 16 million comparisons of texts would take minutes
