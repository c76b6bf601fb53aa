"""From examples to tokens, with the exact border between prompt and completion."""

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from unlora.data.records import Example
from unlora.data.templates import FROZEN_DATE_TEXT, AnswerTag, RenderedExample, TemplateName, render
from unlora.errors import InputError

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
    ) -> None:
        """Fix the template and the limit.

        Args:
            tokenizer: the model's own; never changed. Its `model_max_length`, the model's context, is the last limit.
            template: for questions; "auto" is the tokenizer's chat template, or "plain" where it has none.
            max_length: limit in tokens, prompt and completion together.
            on_long: what happens to a longer example: its completion loses its end, or an error names its line.
            answer_tag: of the plain template: whether "Answer:" stands in the prompt or is scored with the answer.

        Raises:
            InputError: "chat" for a tokenizer without a chat template, or a limit below 2 tokens.
        """
        if template == "chat" and not tokenizer.chat_template:
            raise InputError("template 'chat': this tokenizer has no chat template; use 'plain' or 'auto'.")
        if max_length < 2:
            raise InputError(f"max_length: must be at least 2 tokens (found {max_length}).")
        self.tokenizer = tokenizer
        automatic: TemplateName = "chat" if tokenizer.chat_template else "plain"
        self.template: TemplateName = automatic if template == "auto" else template
        self.max_length = min(max_length, int(tokenizer.model_max_length))
        self.on_long: Literal["truncate", "refuse"] = on_long
        self.answer_tag: AnswerTag = answer_tag

    @property
    def pad_token_id(self) -> int:
        """The tokenizer's pad token, else its end token, else 0: padding is masked, so any id will do."""
        candidates = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return next((token for token in candidates if isinstance(token, int)), 0)

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
        input_ids, prompt_length = self._tokenise(self._render(example))
        length = len(input_ids)
        if length <= prompt_length:
            raise InputError(f"{example.source}: the completion gives no token that can be scored.")
        if length > self.max_length:
            self._check_long(example.source, length, prompt_length)
        kept = tuple(input_ids[: self.max_length])
        return TokenisedExample(kept, prompt_length, length > self.max_length, example.source)

    def encode_set(self, examples: Iterable[Example]) -> list[TokenisedExample]:
        """Tokenise every example, in order."""
        return [self.encode(example) for example in examples]

    def prompt_ids(self, example: Example) -> tuple[int, ...]:
        """Return the tokens that a model is given before it writes the completion.

        The prompt is tokenised by itself: where prompt and completion share a token, its scored sequence begins with
        fewer, and what is missing would tell how the true completion begins. Plain text gives its first token.
        """
        alone = _tokenise_prompt(self.tokenizer, self._render(example))
        if alone:
            return tuple(alone)
        encoded = self.encode(example)
        return encoded.input_ids[: encoded.prompt_length]

    def describe(self) -> dict[str, Any]:
        """Everything that decides which tokens come out, for the record of a run."""
        rendered = self._render(_PROBE)
        probe = "\0".join((rendered.prompt, rendered.completion))
        return {
            "template": self.template,
            "rendered_probe_sha256": hashlib.sha256(probe.encode()).hexdigest(),
            "frozen_date": FROZEN_DATE_TEXT,
            "tokenizer": type(self.tokenizer).__name__,
            "eos_appended": self.tokenizer.eos_token if rendered.append_eos else None,
            "max_length": self.max_length,
            "on_long": self.on_long,
        }

    def _render(self, example: Example) -> RenderedExample:
        return render(example, self.template, self.tokenizer, answer_tag=self.answer_tag)

    def _tokenise(self, text: RenderedExample) -> tuple[list[int], int]:
        """Return token ids and prompt length, before any truncation."""
        split = _tokenise_whole if self.tokenizer.is_fast else _tokenise_parts
        input_ids, prompt_length = split(self.tokenizer, text)
        eos = self.tokenizer.eos_token_id
        has_completion = len(input_ids) > prompt_length
        if text.append_eos and has_completion and isinstance(eos, int) and input_ids[-1] != eos:
            input_ids = [*input_ids, eos]
        return input_ids, max(prompt_length, 1)

    def _check_long(self, source: str, length: int, prompt_length: int) -> None:
        if self.on_long == "refuse":
            advice = "shorten it, raise max_length as far as the model's context goes, or allow truncation"
            raise InputError(f"{source}: {length} tokens, and the limit is {self.max_length}; {advice}.")
        if prompt_length >= self.max_length:
            reason = f"the prompt alone takes {prompt_length} of at most {self.max_length} tokens"
            raise InputError(f"{source}: {reason}, which leaves none for the completion.")


def _tokenise_whole(tokenizer: PreTrainedTokenizerBase, text: RenderedExample) -> tuple[list[int], int]:
    """Tokenise once, as the model will see it. A token that straddles the border belongs to the completion."""
    encoding = tokenizer(
        text.prompt + text.completion,
        add_special_tokens=text.add_special_tokens,
        return_offsets_mapping=True,
        verbose=False,
    )
    ends = [end for _, end in encoding["offset_mapping"]]  # special tokens that the tokenizer adds end at 0
    prompt_length = next((place for place, end in enumerate(ends) if end > len(text.prompt)), len(ends))
    return list(encoding["input_ids"]), prompt_length


def _tokenise_parts(tokenizer: PreTrainedTokenizerBase, text: RenderedExample) -> tuple[list[int], int]:
    """Tokenise prompt and completion apart: a tokenizer written in Python does not say which characters a token has."""
    prompt_ids = _tokenise_prompt(tokenizer, text)
    completion_ids = tokenizer(text.completion, add_special_tokens=False, verbose=False)["input_ids"]
    return prompt_ids + list(completion_ids), len(prompt_ids)


def _tokenise_prompt(tokenizer: PreTrainedTokenizerBase, text: RenderedExample) -> list[int]:
    prompt_ids = list(tokenizer(text.prompt, add_special_tokens=text.add_special_tokens, verbose=False)["input_ids"])
    if prompt_ids and prompt_ids[-1] == tokenizer.eos_token_id:  # added by the tokenizer, but the text goes on
        prompt_ids.pop()
    return prompt_ids
