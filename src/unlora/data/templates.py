"""From an example to text: the plain template, TOFU's for Llama 2, or the tokenizer's chat template."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from unlora.data.chat_spans import find_span
from unlora.data.chat_template import ChatTemplate, Turn
from unlora.data.records import Example
from unlora.errors import InputError

TemplateName = Literal["chat", "plain", "llama2"]
AnswerTag = Literal["prompt", "completion"]
"""Whether the plain template's "Answer:" is given to the model, or is the beginning of what the model writes."""


@dataclass(frozen=True, slots=True)
class RenderedExample:
    """Text of an example, and what is left for the tokenizer to add."""

    prompt: str
    completion: str
    add_special_tokens: bool = True
    """Whether the tokenizer adds its own (BOS); a chat template writes them itself."""
    append_eos: bool = True
    """Whether the completion ends with the end-of-text token."""

    def beginning(self, length: int) -> "RenderedExample":
        """Return the first `length` characters of prompt and completion together."""
        completion = self.completion[: max(length - len(self.prompt), 0)]
        return dataclasses.replace(self, prompt=self.prompt[:length], completion=completion)


def render_turns(
    example: Example,
    template: TemplateName,
    chat: ChatTemplate,
    *,
    answer_tag: AnswerTag = "prompt",
) -> RenderedExample:
    """Render `example`; `template` decides for questions only, the other shapes say themselves what they are.

    "llama2" is what TOFU's Llama-2 models were trained on: "[INST] question [/INST]" and the answer, no space between.

    Args:
        example: the example.
        template: of questions.
        chat: the tokenizer's chat template, used where one is needed.
        answer_tag: of the plain template: to which side of the border "Answer:" belongs.

    Raises:
        InputError: chat turns for a tokenizer without a chat template, or what its template refuses, leaves out or
            rewrites.
    """
    if example.shape == "text":
        return RenderedExample("", example.completion, append_eos=False)
    if example.shape == "prompt_completion":
        return RenderedExample(example.prompt, example.completion)
    if example.shape == "messages":
        return _render_chat(example, list(example.messages), chat)
    if template == "chat":
        return _render_chat(example, [{"role": "user", "content": example.prompt}], chat)
    if template == "llama2":
        return RenderedExample(f"[INST] {example.prompt} [/INST]", example.completion)
    if answer_tag == "completion":
        return RenderedExample(f"Question: {example.prompt}\n", f"Answer: {example.completion}")
    return RenderedExample(f"Question: {example.prompt}\nAnswer:", f" {example.completion}")


def _render_chat(example: Example, turns: list[Turn], chat: ChatTemplate) -> RenderedExample:
    if not chat.exists:
        raise InputError(f"{example.source}: 'messages' needs a chat template, and this tokenizer has none.")
    span = find_span(example, turns, chat)
    return RenderedExample(span.prompt, span.completion, add_special_tokens=False, append_eos=not span.ends_turn)
