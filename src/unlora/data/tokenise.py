"""From examples to tokens, with the exact border between prompt and completion."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from unlora.data.borders import Borders
from unlora.data.chat_template import ChatTemplate
from unlora.data.embedded_tokens import padding, refuse_no_embedding
from unlora.data.frozen_date import FROZEN_DATE_TEXT
from unlora.data.records import Example
from unlora.data.templates import AnswerTag, RenderedExample, TemplateName, render_turns
from unlora.errors import InputError

LONGEST_TEXT = 100_000
"""Characters that are always tokenised whole; a tokenizer takes hundreds of bytes for each."""
MARGIN = 64
"""Tokens beyond the limit that a shortened text must have: near its cut it is tokenised otherwise than the whole."""

_PROBE = Example("question_answer", "Where was the probe born?", "The probe was born in Paris.", "template probe")


@dataclass(frozen=True, slots=True)
class TokenisedExample:
    """Token ids; those from `prompt_length` on are the completion, which is scored."""

    input_ids: tuple[int, ...]
    prompt_length: int
    """At least 1: nothing predicts the first token, so it is never scored."""
    truncated: bool
    """Whether the completion lost its end to the length limit."""
    source: str
    lost_count: int = 0
    """Tokens that it lost; of a very long text at least so many."""


class ExampleTokeniser:
    """Turns examples into tokens, always in the same way; `describe` says which."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: TemplateName | Literal["auto"] = "auto",
        max_length: int,
        on_long: Literal["truncate", "refuse"] = "truncate",
        answer_tag: AnswerTag = "prompt",
        chat_template: str | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        embedding_count: int | None = None,
    ) -> None:
        """Fix the template and the limit.

        Args:
            tokenizer: the model's own; never changed. Its `model_max_length`, the model's context, is the last limit.
            template: for questions; "auto" is the tokenizer's chat template, or "plain" where it has none.
            max_length: limit in tokens, prompt and completion together.
            on_long: what happens to a longer example: its completion loses its end, or an error names its line.
            answer_tag: of the plain template: whether "Answer:" stands in the prompt or is scored with the answer.
            chat_template: name of one of the tokenizer's chat templates, where it has several.
            template_arguments: further variables of the chat template, such as {"enable_thinking": False}.
            embedding_count: tokens that the model has an embedding for; others are refused. None checks nothing.

        Raises:
            InputError: "chat" for a tokenizer without a chat template, or a choice or an argument that the template
                does not know; a limit below 2 tokens.
        """
        if template == "chat" and not tokenizer.chat_template:
            raise InputError("template 'chat': this tokenizer has no chat template; use 'plain' or 'auto'.")
        context = tokenizer.model_max_length
        if not isinstance(context, int | float) or not context >= 2:
            raise InputError(f"the tokenizer's model_max_length is {context}; correct it in tokenizer_config.json.")
        if max_length < 2:
            raise InputError(f"max_length: must be at least 2 tokens (found {max_length}).")
        self.tokenizer = tokenizer
        automatic: TemplateName = "chat" if tokenizer.chat_template else "plain"
        self.template: TemplateName = automatic if template == "auto" else template
        self.max_length = min(max_length, int(tokenizer.model_max_length))
        self.on_long: Literal["truncate", "refuse"] = on_long
        self.answer_tag: AnswerTag = answer_tag
        self.embedding_count = embedding_count
        self.chat = ChatTemplate(tokenizer, name=chat_template, arguments=template_arguments)
        self._borders = Borders(tokenizer)
        self._refuse_choices()

    @property
    def pad_token_id(self) -> int:
        """What fills short rows: see `padding`."""
        return padding(self.tokenizer, self.embedding_count)

    def encode(
        self, example: Example, *, completion: str | None = None, question: str | None = None
    ) -> TokenisedExample:
        """Tokenise one example.

        Args:
            example: the example.
            completion: another answer in place of the example's (a paraphrase, a wrong answer).
            question: another question or prompt in place of the example's; not for chat turns.

        Raises:
            InputError: too long and to be refused, or no completion token left to score; names the line.
        """
        if question is not None and example.shape == "messages":
            raise InputError(f"{example.source}: another question cannot stand in for chat turns.")
        example = dataclasses.replace(
            example,
            prompt=example.prompt if question is None else question,
            completion=example.completion if completion is None else completion,
        )
        input_ids, prompt_length, cut = self._tokenise(self.render(example))
        length = len(input_ids)
        if length <= prompt_length and not cut:
            raise InputError(f"{example.source}: the completion gives no token that can be scored.")
        if length > self.max_length:
            self._check_long(example.source, f"{'more than ' if cut else ''}{length}", prompt_length)
        kept = tuple(input_ids[: self.max_length])
        self._refuse_unknown(kept, example.source)
        return TokenisedExample(kept, prompt_length, length > self.max_length, example.source, length - len(kept))

    def encode_set(self, examples: Iterable[Example]) -> list[TokenisedExample]:
        """Tokenise every example, in order."""
        return [self.encode(example) for example in examples]

    def prompt_ids(self, example: Example) -> tuple[int, ...]:
        """Return the tokens that a model is given before it writes the completion.

        The prompt is tokenised by itself: where prompt and completion share a token, its scored sequence begins with
        fewer, and what is missing would tell how the true completion begins. Plain text gives its first token.
        """
        alone = tuple(self._borders.prompt(self.render(example)))
        if alone:
            self._refuse_unknown(alone, example.source)
            return alone
        encoded = self.encode(example)
        return encoded.input_ids[: encoded.prompt_length]

    def begun(self, example: Example, beginning: str) -> tuple[tuple[int, ...], TokenisedExample]:
        """Tokenise an example whose answer is begun for the model.

        Args:
            example: the example; its completion follows on `beginning`.
            beginning: of the answer, behind all that the template writes before it.

        Returns:
            What the model is given before it writes, and the whole with the completion, which has no end token of ours.

        Raises:
            InputError: as `encode`; there is no limit to the length.
        """
        rendered = self.render(example)
        text = dataclasses.replace(rendered, prompt=rendered.prompt + beginning, completion=example.completion)
        given, (whole, start) = tuple(self._borders.prompt(text)), self._borders.divide(text)
        for ids in (given, whole):
            self._refuse_unknown(ids, example.source)
        return given, TokenisedExample(tuple(whole), max(start, 1), False, example.source)

    def describe(self) -> dict[str, Any]:
        """Everything that decides which tokens come out, for the record of a run."""
        rendered = self.render(_PROBE)
        probe = "\0".join((rendered.prompt, rendered.completion))
        return {
            "template": self.template,
            "chat_template": self.chat.name,
            "template_arguments": self.chat.arguments,
            "rendered_probe_sha256": hashlib.sha256(probe.encode()).hexdigest(),
            "frozen_date": FROZEN_DATE_TEXT,
            "tokenizer": type(self.tokenizer).__name__,
            "eos_appended": self.tokenizer.eos_token if rendered.append_eos else None,
            "max_length": self.max_length,
            "on_long": self.on_long,
        }

    def render(self, example: Example) -> RenderedExample:
        """Turn one example into text.

        Raises:
            InputError: what the chat template refuses, leaves out or rewrites; names the line.
        """
        return render_turns(example, self.template, self.chat, answer_tag=self.answer_tag)

    def _refuse_choices(self) -> None:
        """Find out now, and not at the first example, whether the chat template is there and knows its arguments."""
        if self.template == "chat":
            self.chat.check()
            return
        for key, value in (("chat_template", self.chat.name), ("template_arguments", self.chat.arguments)):
            if value:
                raise InputError(
                    f"{key}: is of the chat template, and template '{self.template}' is none; leave it out."
                )

    def changed(self, **options: Any) -> "ExampleTokeniser":
        """Return a tokeniser with other options, as in `__init__`; those not named stay."""
        same = {
            "template": self.template,
            "chat_template": self.chat.name,
            "template_arguments": self.chat.arguments,
            "max_length": self.max_length,
            "on_long": self.on_long,
            "answer_tag": self.answer_tag,
            "embedding_count": self.embedding_count,
        }
        return ExampleTokeniser(self.tokenizer, **(same | options))

    def of_other_model(
        self, tokenizer: PreTrainedTokenizerBase, embedding_count: int | None = None
    ) -> "ExampleTokeniser":
        """Return a tokeniser of another model that asks alike, as far as its chat template is the same."""
        template, same = self.template, tokenizer.chat_template == self.tokenizer.chat_template
        return ExampleTokeniser(
            tokenizer,
            template="auto" if template == "chat" else template,
            chat_template=self.chat.name if same else None,
            template_arguments=self.chat.arguments if same else None,
            max_length=self.max_length,
            embedding_count=embedding_count,
        )

    def _refuse_unknown(self, input_ids: Sequence[int], source: str) -> None:
        refuse_no_embedding(input_ids, source, self.tokenizer, self.embedding_count)

    def _tokenise(self, text: RenderedExample) -> tuple[list[int], int, bool]:
        """Return token ids and prompt length before any truncation, and whether a part of the text was left aside.

        Of a very long text only the beginning is tokenised: enough for more tokens than will be kept.
        """
        completion, end = text.completion.rstrip(), str(self.tokenizer.eos_token or "")
        if text.append_eos and end and completion.endswith(end):  # rendered before: a template ends the line behind it
            text = dataclasses.replace(text, completion=completion)
        length, window = len(text.prompt) + len(text.completion), max(LONGEST_TEXT, 32 * self.max_length)
        divided = self._borders.divide(text.beginning(window))
        while window < length and len(divided.input_ids) < self.max_length + MARGIN:
            window *= 4
            divided = self._borders.divide(text.beginning(window))
        input_ids, prompt_length = divided
        eos = self.tokenizer.eos_token_id
        has_completion = len(input_ids) > prompt_length
        if text.append_eos and has_completion and isinstance(eos, int) and input_ids[-1] != eos:
            input_ids = [*input_ids, eos]
        elif text.append_eos and input_ids[-2:] == [eos, eos]:  # the text's own, and one that the tokenizer adds
            input_ids = input_ids[:-1]
        return input_ids, max(prompt_length, 1), window < length

    def _check_long(self, source: str, length: str, prompt_length: int) -> None:
        if self.on_long == "refuse":
            advice = "shorten it, raise max_length as far as the model's context goes, or allow truncation"
            raise InputError(f"{source}: {length} tokens, and the limit is {self.max_length}; {advice}.")
        if prompt_length >= self.max_length:
            reason = f"the prompt alone takes {prompt_length} of at most {self.max_length} tokens"
            raise InputError(f"{source}: {reason}, which leaves none for the completion.")
