"""From an example to text: the plain template, TOFU's for Llama 2, and the chat template with its date frozen."""

import datetime
from dataclasses import dataclass
from typing import Literal

import jinja2
from transformers import PreTrainedTokenizerBase

from unlora.data.records import Example
from unlora.errors import InputError

TemplateName = Literal["chat", "plain", "llama2"]
AnswerTag = Literal["prompt", "completion"]
"""Whether the plain template's "Answer:" is given to the model, or is the beginning of what the model writes."""

FROZEN_DATE = datetime.date(2024, 7, 26)
"""Stands in for today in templates that inject the date, so that a score does not change over night."""
FROZEN_DATE_TEXT = FROZEN_DATE.strftime("%d %b %Y")

# transformers gives templates a `strftime_now` that reads the clock and accepts no other function; a macro shadows it.
_FROZEN_CLOCK = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('%{code}', '{FROZEN_DATE.strftime('%' + code)}')" for code in "aAbBdHIjmMpSyY")
    + " }}{%- endmacro -%}"
)


@dataclass(frozen=True, slots=True)
class RenderedExample:
    """Text of an example, and what is left for the tokenizer to add."""

    prompt: str
    completion: str
    add_special_tokens: bool = True
    """Whether the tokenizer adds its own (BOS); a chat template writes them itself."""
    append_eos: bool = True
    """Whether the completion ends with the end-of-text token."""


def render(
    example: Example,
    template: TemplateName,
    tokenizer: PreTrainedTokenizerBase,
    *,
    answer_tag: AnswerTag = "prompt",
) -> RenderedExample:
    """Render `example`; `template` decides for questions only, the other shapes say themselves what they are.

    "llama2" is what TOFU's Llama-2 models were trained on: "[INST] question [/INST]" and the answer, no space between.

    Args:
        example: the example.
        template: of questions.
        tokenizer: whose chat template "chat" is.
        answer_tag: of the plain template: to which side of the border "Answer:" belongs.

    Raises:
        InputError: chat turns for a tokenizer without a chat template, or turns that the template refuses.
    """
    if example.shape == "text":
        return RenderedExample("", example.completion, append_eos=False)
    if example.shape == "prompt_completion":
        return RenderedExample(example.prompt, example.completion)
    if example.shape == "messages":
        return _render_chat(example, list(example.messages), tokenizer)
    if template == "chat":
        return _render_chat(example, [{"role": "user", "content": example.prompt}], tokenizer)
    if template == "llama2":
        return RenderedExample(f"[INST] {example.prompt} [/INST]", example.completion)
    if answer_tag == "completion":
        return RenderedExample(f"Question: {example.prompt}\n", f"Answer: {example.completion}")
    return RenderedExample(f"Question: {example.prompt}\nAnswer:", f" {example.completion}")


def _render_chat(example: Example, turns: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> RenderedExample:
    if not tokenizer.chat_template:
        raise InputError(f"{example.source}: 'messages' needs a chat template, and this tokenizer has none.")
    answer = {"role": "assistant", "content": example.completion}
    try:
        prompt = _apply(tokenizer, turns, add_generation_prompt=True)
        full = _apply(tokenizer, [*turns, answer], add_generation_prompt=False)
    except jinja2.TemplateError as error:
        raise InputError(f"{example.source}: the chat template refuses these turns ({error}).") from None
    if not full.startswith(prompt):
        advice = "use template 'plain', or write prompt and completion"
        raise InputError(f"{example.source}: the chat template renders the prompt differently once answered; {advice}.")
    # The completion ends with the end-of-turn token; the newline that templates write after it is never generated.
    completion = full.removeprefix(prompt).rstrip()
    template_ends_turn = not completion.endswith(example.completion.rstrip())
    return RenderedExample(prompt, completion, add_special_tokens=False, append_eos=not template_ends_turn)


def _apply(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
    text = tokenizer.apply_chat_template(
        turns,
        chat_template=_FROZEN_CLOCK + tokenizer.get_chat_template(),
        add_generation_prompt=add_generation_prompt,
        tokenize=False,
        date_string=FROZEN_DATE_TEXT,
    )
    return str(text)
