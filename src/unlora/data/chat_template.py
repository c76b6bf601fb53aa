"""A tokenizer's chat template as it is applied here: chosen by name, with arguments, on a frozen date, in one line."""

import inspect
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
from transformers import PreTrainedTokenizerBase

from unlora.data.frozen_date import FROZEN_DATE_TEXT, FrozenClock
from unlora.data.template_limits import limited
from unlora.errors import InputError, kind_in_words, nearest

Turn = Mapping[str, str]

LONGEST_SCAFFOLD = 1_000_000
"""Characters that a template may write around a few words."""
SHOWN = 200
"""Characters of another program's message."""

_MARK = "Zq{number:04d}xB &<>\"'\\é Yw"
"""Stands in for the text of a turn. Escaping, quoting, folding case and printing a list all change it."""


class Layout(NamedTuple):
    """What a chat template makes of turns with certain roles, whatever their text is."""

    in_parts: tuple[bool, ...]
    """Of each turn: whether the template finds its text only in a list of parts, [{"type": "text", "text": ...}]."""
    between: str
    """What stands between the text of the last turn and that of the answer."""


class ChatTemplate:
    """Renders turns to text."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Nothing is read before it is needed: a tokenizer without a chat template has no use for one.

        Args:
            tokenizer: whose template it is.
            name: of one of its templates, where it has several; None is the one called "default".
            arguments: further variables of the template, such as {"enable_thinking": False}.
        """
        self.name = name
        self.arguments = dict(arguments or {})
        self._tokenizer = tokenizer
        self._clock = FrozenClock()
        self._layouts: dict[tuple[str, ...], Layout] = {}

    @property
    def exists(self) -> bool:
        """Whether the tokenizer has a chat template at all."""
        return bool(self._tokenizer.chat_template)

    def check(self) -> None:
        """Find out whether there is such a template, and whether it knows the arguments.

        Raises:
            InputError: as `source`.
        """
        _ = self.source

    @cached_property
    def source(self) -> str:
        """The template itself.

        Raises:
            InputError: no template of that name, or none chosen of several; an argument that it never reads; a power.
        """
        source = _choose(self._tokenizer, self.name)
        _refuse_powers(source)
        _check_arguments(self.arguments, source, self._tokenizer)
        return source

    @cached_property
    def special_token(self) -> re.Pattern[str]:
        """Finds the tokens that the tokenizer never takes apart, but those of white space."""
        tokens = {str(token) for token in self._tokenizer.added_tokens_decoder.values()}
        tokens = {token for token in tokens | set(self._tokenizer.all_special_tokens) if token.strip() == token != ""}
        longest_first = sorted(tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def layout(self, roles: Sequence[str], where: str) -> Layout:
        """Find out how turns with these roles are handed over so that the text of each comes out as it is.

        Args:
            roles: of all turns, the answer's last.
            where: names the example in messages.

        Raises:
            InputError: the template refuses such turns, leaves one out, rewrites its text, or runs away.
        """
        key = tuple(roles)
        if key not in self._layouts:
            self._layouts[key] = self._find_layout(key, where)
        return self._layouts[key]

    def render(self, turns: Sequence[Turn], in_parts: Sequence[bool], where: str, *, generation: bool = False) -> str:
        """Render `turns`; with `generation`, and the beginning of an answer.

        Raises:
            InputError: the template refuses the turns or fails on them.
        """
        source = self.source
        messages = [_hand_over(turn, parts) for turn, parts in zip(turns, in_parts, strict=False)]
        while True:
            try:
                return self._apply(source, messages, generation)
            except jinja2.TemplateError as error:
                if not self._clock.learns(error):
                    raise InputError(f"{where}: the chat template refuses these turns ({_one_line(error)}).") from None
            except Exception as error:  # A template is a program of somebody else's: it can fail in every way.
                what = f"{kind_in_words(error)}: {_one_line(error)}".removesuffix(": ")
                raise InputError(f"{where}: the chat template fails on these turns ({what}).") from None

    def _apply(self, source: str, messages: list[dict[str, Any]], generation: bool) -> str:
        variables: dict[str, Any] = {"date_string": FROZEN_DATE_TEXT} | self.arguments | dict(self._clock.variables)
        rendered = self._tokenizer.apply_chat_template(
            messages,
            chat_template=self._clock.prefix + source,
            add_generation_prompt=generation,
            tokenize=False,
            **variables,
        )
        return str(rendered)

    def _find_layout(self, roles: tuple[str, ...], where: str) -> Layout:
        marks = [_MARK.format(number=number) for number in range(len(roles))]
        turns = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
        as_text, refusal = (False,) * len(roles), None
        missing = set(range(len(roles)))
        for in_parts in (as_text, None, (True,) * len(roles)):
            if in_parts is None:  # only those turns whose text got lost
                in_parts = tuple(number in missing for number in range(len(roles)))
            try:
                with limited():
                    text = self.render(turns, in_parts, where)
            except InputError as error:
                if isinstance(error.__context__, TimeoutError | MemoryError):
                    raise  # a template that runs away does so however its turns are handed over
                refusal = refusal or (error if in_parts == as_text else None)
                continue
            if len(text) - sum(map(len, marks)) > LONGEST_SCAFFOLD:
                raise InputError(f"{where}: the chat template writes {len(text):,} characters around a few words.")
            lost = {number for number, mark in enumerate(marks) if mark not in text}
            if not lost:
                return Layout(in_parts, _between(text, *marks[-2:]))
            if in_parts == as_text:
                missing = lost
        if refusal is not None:
            raise refusal
        raise leaves_out(where, roles[min(missing)], is_answer=min(missing) == len(roles) - 1)


def leaves_out(where: str, role: str, *, is_answer: bool = False) -> InputError:
    """The refusal of a template that does not write a turn as it is."""
    what = "answer" if is_answer else f"text of a turn of role '{role}'"
    advice = "use template 'plain', or write prompt and completion"
    return InputError(f"{where}: the chat template leaves out or rewrites the {what}; {advice}.")


def _choose(tokenizer: PreTrainedTokenizerBase, name: str | None) -> str:
    templates: Any = tokenizer.chat_template
    if isinstance(templates, dict):
        names = ", ".join(map(repr, sorted(templates)))
        if name is None and "default" not in templates and len(templates) != 1:
            raise InputError(
                f"chat_template: the tokenizer has several chat templates, {names}, and none called 'default'; "
                "choose one, as in --set data.chat_template=NAME."
            )
        chosen = name or ("default" if "default" in templates else next(iter(templates)))
        if chosen not in templates:
            hint = nearest(chosen, sorted(templates))
            raise InputError(f"chat_template: the tokenizer has no chat template '{chosen}', but {names}.{hint}")
        templates = templates[chosen]
    elif name is not None:
        raise InputError(f"chat_template '{name}': the tokenizer has one chat template only; leave the name out.")
    if not isinstance(templates, str):
        raise InputError(f"the tokenizer's chat template is no text but {type(templates).__name__}.")
    return templates


class _Generation(jinja2.ext.Extension):
    """The tag that marks what a model writes: its inside is read as if the tag were not there."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _parsed(source: str) -> jinja2.nodes.Template | None:
    """A template's syntax tree; None for one that has none, which is said when the first example is rendered."""
    try:
        return jinja2.Environment(extensions=[_Generation, jinja2.ext.loopcontrols]).parse(source)
    except (jinja2.TemplateError, RecursionError):
        return None


def _refuse_powers(source: str) -> None:
    """Refuse `**`: a number of a billion digits is computed in one step of the machine, which no limit stops."""
    tree = _parsed(source)
    power = next(iter(tree.find_all(jinja2.nodes.Pow)), None) if tree is not None else None
    if power is not None:
        raise InputError(
            f"the tokenizer's chat template, line {power.lineno}: raises to a power, which is not computed; write the "
            "number, or use template 'plain'."
        )


def _check_arguments(arguments: Mapping[str, Any], source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if not arguments:
        return
    own = set(inspect.signature(tokenizer.apply_chat_template).parameters) - {"tools", "documents"}
    own |= {"messages", "strftime_now", *tokenizer.special_tokens_map}
    if taken := sorted(own & set(arguments)):
        raise InputError(f"template_arguments: '{taken[0]}' is set by unlora itself; leave it out.")
    tree = _parsed(source)
    if tree is None:
        return
    read = jinja2.meta.find_undeclared_variables(tree)
    readable = sorted(read - own - set(jinja2.Environment().globals) - {"raise_exception"})
    for argument in arguments:
        if argument not in read:
            known = f"it reads {', '.join(readable)}" if readable else "it reads none"
            raise InputError(f"template_arguments: the chat template never reads '{argument}'; {known}.")


def _hand_over(turn: Turn, in_parts: bool) -> dict[str, Any]:
    return {**turn, "content": [{"type": "text", "text": turn["content"]}]} if in_parts else dict(turn)


def _between(text: str, first: str, second: str) -> str:
    """What stands between two marks; empty where the template puts them in another order."""
    start, end = text.rfind(first) + len(first), text.rfind(second)
    return text[start:end] if start <= end else ""


def _one_line(error: Exception) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return " ".join(text.split())[:SHOWN].rstrip(".")
