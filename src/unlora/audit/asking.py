"""One example in every wording that fits it, as tokens."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from unlora.audit.sequences import ScoredSequence
from unlora.audit.wordings import AS_ASKED, FRAMES, Frame
from unlora.data.records import Example
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError

OPENING_WORDS = 3
"""Words of the answer in a hint; never more than half of them."""

_WORD = re.compile(r"\w[\w'’-]*")


@dataclass(frozen=True, slots=True)
class WordedExample:
    """An example in one wording."""

    text: str
    """What stands in the place of the question."""
    given: str
    """Beginning of the answer that the model is given; empty when it is given nothing."""
    sequence: ScoredSequence
    """Question and whole answer; scored from the first token after what is given."""


def ask(example: Example, tokeniser: ExampleTokeniser) -> dict[str, WordedExample]:
    """Put a question or a prompt in other words.

    A wording is left out where it does not fit: no paraphrase in the record, no other template, an answer of one word
    of which half cannot be given, or a text so long that the answer would lose its end.

    Returns:
        Wordings by name, in the order of `FRAMES`; "as_asked" is always there.

    Raises:
        InputError: the example cannot be tokenised as it is.
    """
    asked = {AS_ASKED.name: WordedExample(example.prompt, "", _sequence(example, tokeniser))}
    for frame in FRAMES:
        found = _in_frame(example, frame, tokeniser) if frame is not AS_ASKED else None
        if found is not None:
            asked[frame.name] = found
    return asked


def _in_frame(example: Example, frame: Frame, tokeniser: ExampleTokeniser) -> WordedExample | None:
    text = _fill(example, frame)
    try:
        encoder = _other(example, tokeniser) if frame.form == "other" else tokeniser
    except InputError:  # several chat templates, none of which was chosen
        return None
    if text is None or encoder is None:
        return None
    shaped = _shape(example, frame, text)
    given = _beginning(shaped.completion, frame)
    if given is None:
        return None
    try:
        whole = encoder.encode(shaped)
        start = whole.prompt_length
        if given:
            start = max(start, _shared_length(whole.input_ids, encoder.encode(shaped, completion=given).input_ids))
    except InputError:  # the frame makes it too long
        return None
    if whole.truncated or start >= len(whole.input_ids):
        return None
    return WordedExample(text, given, (whole.input_ids, start))


def _sequence(example: Example, tokeniser: ExampleTokeniser) -> ScoredSequence:
    encoded = tokeniser.encode(example)
    return encoded.input_ids, encoded.prompt_length


def _fill(example: Example, frame: Frame) -> str | None:
    opening = _first_words(example.completion, "opening")
    gaps = {
        "question": example.prompt,
        "paraphrase": example.paraphrased_question,
        "emphasised": emphasise(example.prompt),
        "subject": example.person or subject_of(example.prompt),
        "opening": opening.strip() if opening is not None else None,
    }
    if any(f"{{{gap}}}" in frame.text and value is None for gap, value in gaps.items()):
        return None
    return frame.text.format(**gaps)


def _shape(example: Example, frame: Frame, text: str) -> Example:
    """The example with its new question, in the shape that the frame wants."""
    if frame.form == "trained":
        return dataclasses.replace(example, prompt=text)
    answer = example.completion.strip()
    if frame.form == "verbatim":
        return dataclasses.replace(example, shape="prompt_completion", prompt=text, completion=f" {answer}")
    return dataclasses.replace(example, shape="question_answer", prompt=text, completion=answer)


def _other(example: Example, tokeniser: ExampleTokeniser) -> ExampleTokeniser | None:
    """A template that the example was not trained with: the tokenizer's own where it has one, or the plain one."""
    trained = tokeniser.template if example.shape == "question_answer" else None
    if tokeniser.tokenizer.chat_template and trained != "chat":
        return tokeniser.changed(template="chat", on_long="truncate")
    if trained != "plain":
        return tokeniser.changed(template="plain", chat_template=None, template_arguments=None, on_long="truncate")
    return None


def _beginning(completion: str, frame: Frame) -> str | None:
    """What is given of the answer; None where it is too short to give a part of it."""
    return "" if frame.given == "nothing" else _first_words(completion, frame.given)


def _first_words(completion: str, given: str) -> str | None:
    words = list(re.finditer(r"\S+", completion))
    half = len(words) // 2
    count = half if given == "half" else min(OPENING_WORDS, half)
    return completion[: words[count - 1].end()] if count else None


def _shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens that both begin with. A token that is only partly given differs, and is scored."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def emphasise(question: str) -> str:
    """Put the names in a question (capitalised words but the first), or else its longest word, between asterisks."""
    words = list(_WORD.finditer(question))
    marked = _names(question) or ([max(words, key=lambda word: len(word.group()))] if words else [])
    for word in reversed(marked):
        question = f"{question[: word.start()]}**{word.group()}**{question[word.end() :]}"
    return question


def subject_of(question: str) -> str:
    """The longest run of names in a question, or "this subject"."""
    return max(names_in(question), key=len, default="this subject")


def names_in(question: str) -> list[str]:
    """Names: runs of capitalised words, but for the question's first word, without "'s"."""
    runs: list[str] = []
    end = None
    for word in _names(question):
        follows = end is not None and question[end : word.start()] == " "
        runs = [*runs[:-1], f"{runs[-1]} {word.group()}"] if follows else [*runs, word.group()]
        end = word.end()
    return [run.removesuffix("'s") for run in runs]


def _names(question: str) -> list[re.Match[str]]:
    return [word for word in list(_WORD.finditer(question))[1:] if word.group()[0].isupper()]
