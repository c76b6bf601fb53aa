"""Where the answer stands in what a chat template writes: everything before its own text is prompt."""

from typing import NamedTuple

from unlora.data.chat_template import ChatTemplate, Turn, leaves_out
from unlora.data.records import Example
from unlora.errors import InputError

ASSISTANT = "assistant"
_MARK = "Zq answer xB &<>\"'\\é Yw"
"""Stands in for the answer, to find the place where the template writes it."""


class Span(NamedTuple):
    """A conversation as text, divided where the answer begins."""

    prompt: str
    completion: str
    """The answer, and the end of its turn where the template writes one."""
    ends_turn: bool
    """Whether it does."""


class _Place(NamedTuple):
    before: str
    answer: str
    """As it is written: with or without the white space around it."""
    after: str


def find_span(example: Example, turns: list[Turn], chat: ChatTemplate) -> Span:
    """Render `turns` and the answer of `example`, and find the answer.

    The place is found by rendering the same turns with another answer. What the template writes between the turn before
    and the answer's own text (a header, an empty block for thoughts) belongs to the prompt; the first end of turn
    behind it to the completion; what follows to neither.

    Raises:
        InputError: the template refuses the turns, leaves one out or rewrites it, or the answer is not found.
    """
    where = example.source
    layout = chat.layout([*(turn["role"] for turn in turns), ASSISTANT], where)
    full = chat.render([*turns, {"role": ASSISTANT, "content": example.completion}], layout.in_parts, where)
    marked = chat.render([*turns, {"role": ASSISTANT, "content": _MARK}], layout.in_parts, where)
    before, mark, after = marked.partition(_MARK)
    if not mark or _MARK in after:
        raise leaves_out(where, ASSISTANT, is_answer=True)
    for turn in turns:
        if not _is_written(turn, before):
            raise leaves_out(where, turn["role"])
    asked = _end_of_question(before, layout.between, turns[-1])
    opening = chat.render(turns, layout.in_parts, where, generation=True)
    if not opening.startswith(before[:asked]):
        advice = "use template 'plain', or write prompt and completion"
        raise InputError(f"{where}: the chat template renders the prompt differently once answered; {advice}.")
    place = _find_answer(full, before, after, example.completion, asked)
    if place is None:
        raise leaves_out(where, ASSISTANT, is_answer=True)
    end = _end_of_turn(place, layout.between, chat)
    prompt, blanks = _part_from_blanks(place.before, opening)
    return Span(prompt, (blanks + place.answer + end).rstrip(), ends_turn=bool(end.strip()))


def _is_written(turn: Turn, before: str) -> bool:
    text = turn["content"].strip()
    if turn["role"] == ASSISTANT:  # the thoughts of an earlier answer are left out on purpose
        text = text.rpartition("</think>")[2].strip()
    return text in before


def _end_of_question(before: str, between: str, question: Turn) -> int:
    if before.endswith(between):
        return len(before) - len(between)
    text = question["content"].strip()  # what stands behind it depends on it
    return before.rindex(text) + len(text)


def _part_from_blanks(before: str, opening: str) -> tuple[str, str]:
    """Take blanks off the prompt that a model is not given where it writes its answer.

    Tokenizers write a blank in one token with the word behind it, so it is the answer that begins with it.
    """
    prompt = before if opening.startswith(before) else before.rstrip(" ")
    return prompt, before[len(prompt) :]


def _find_answer(full: str, before: str, after: str, answer: str, asked: int) -> _Place | None:
    middle = full[len(before) : len(full) - len(after)]
    if full == before + middle + after and middle in (answer, answer.strip(), answer.lstrip(), answer.rstrip()):
        return _Place(before, middle, after)
    # What stands around an answer may depend on it: thoughts of its own, an end of turn that it brings along.
    if not full.startswith(before[:asked]):
        return None
    for body, rest in ((full.removesuffix(after), after), (full.rstrip(), "")):
        for text in (answer, answer.strip()):
            if body.endswith(text) and len(body) - len(text) >= asked:
                return _Place(body.removesuffix(text), text, rest)
    return None


def _end_of_turn(place: _Place, between: str, chat: ChatTemplate) -> str:
    """What of `place.after` ends the turn: up to the first special token that also ends the turn before, or the first.

    Without a special token, all of it. Empty where the answer brings its end along.
    """
    found = list(chat.special_token.finditer(place.after))
    if not found:
        return place.after
    end = next((one for one in found if one.group() in between), found[0])
    brought = place.answer.rstrip().endswith(end.group()) and not place.after[: end.start()].strip()
    return "" if brought else place.after[: end.end()]
