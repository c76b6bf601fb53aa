"""The tokeniser that settings ask for, whichever settings they are."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from transformers import PreTrainedTokenizerBase

from unlora.data.settings import DataSettings
from unlora.data.templates import TemplateName
from unlora.data.tokenise import ExampleTokeniser


class ChoosesTemplate(Protocol):
    """Settings that say how questions become text."""

    @property
    def template(self) -> TemplateName | Literal["auto"]: ...
    @property
    def chat_template(self) -> str | None: ...
    @property
    def template_arguments(self) -> Mapping[str, Any]: ...


def templated(
    chosen: ChoosesTemplate,
    tokenizer: PreTrainedTokenizerBase,
    embedding_count: int | None,
    *,
    max_length: int,
    on_long: Literal["truncate", "refuse"] = "truncate",
) -> ExampleTokeniser:
    """The tokeniser with the template that any settings choose, of a model with so many embeddings.

    Raises:
        InputError: the tokenizer has no such template, or the template no such argument.
    """
    return ExampleTokeniser(
        tokenizer,
        template=chosen.template,
        max_length=max_length,
        on_long=on_long,
        chat_template=chosen.chat_template,
        template_arguments=chosen.template_arguments,
        embedding_count=embedding_count,
    )


def make_tokeniser(
    data: DataSettings, tokenizer: PreTrainedTokenizerBase, embedding_count: int | None
) -> ExampleTokeniser:
    """The tokeniser that the settings of a run's data ask for.

    Raises:
        InputError: as `templated`.
    """
    return templated(data, tokenizer, embedding_count, max_length=data.max_length, on_long=data.on_long)
