"""Named ways to ask a model: how many examples, how they are cut, how long an answer may be, what is left out.

TOFU's own is that of its released code (Maini et al. 2024, arXiv 2401.06121), OpenUnlearning's that of its (Dorna et
al. 2025, arXiv 2506.12618). What differs still:

- TOFU counts the padding of a batch in the length of a generated answer, here only the prompt counts. It never scores
  a token that prompt and answer share ("]" and a quotation mark, after Llama 2's prompt); here it is the answer's.
- OpenUnlearning's plain template ends its prompt with a space, which costs an answer its first scored token. Its chat
  template has a system turn and another date. An extraction strength of 0 is 1/tokens there.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from unlora.data.templates import AnswerTag
from unlora.data.tokenise import ExampleTokeniser
from unlora.suites.tofu.settings import ProtocolName


@dataclass(frozen=True)
class Protocol:
    """How a model is asked. At least one of the two limits of generated answers is set."""

    name: ProtocolName
    max_examples: int | None
    """First examples of each set that are asked; None takes all."""
    max_length: int | None
    """Limit in tokens of prompt and answer together, beyond which an answer loses its end; None takes the run's own."""
    max_new_tokens: int | None
    """Longest generated answer, in tokens."""
    total_generation_length: int | None
    """Longest prompt and generated answer together, in tokens."""
    end_token_in_memorisation: bool
    """Whether exact memorisation and extraction strength count the token that ends an answer."""
    answer_tag: AnswerTag
    """Of the plain template: whether the model is given "Answer:", or must write it, and is scored on it, itself."""
    words: Literal["any script", "ascii"]
    """Of ROUGE: those of any script, or what the published code takes for words (`rouge_l_recall_ascii`)."""
    overridden: tuple[str, ...] = ()
    """Fields that a setting changed: with any, this is no longer the protocol of that name."""

    def generation_limit(self, prompt_length: int) -> int:
        """Return how many tokens may be generated after a prompt of `prompt_length` tokens, at least 1."""
        limits = [self.max_new_tokens]
        if self.total_generation_length is not None:
            limits.append(self.total_generation_length - prompt_length)
        return max(1, min(limit for limit in limits if limit is not None))

    def to_json(self) -> dict[str, Any]:
        """Everything in force, for records."""
        return {**dataclasses.asdict(self), "overridden": list(self.overridden)}


PROTOCOLS: Mapping[ProtocolName, Protocol] = MappingProxyType(
    {
        "unlora": Protocol(
            name="unlora",
            max_examples=300,
            max_length=None,
            max_new_tokens=128,
            total_generation_length=None,
            end_token_in_memorisation=True,
            answer_tag="prompt",
            words="any script",
        ),
        "tofu": Protocol(
            name="tofu",
            max_examples=300,
            max_length=200,
            max_new_tokens=None,
            total_generation_length=200,
            end_token_in_memorisation=True,
            answer_tag="completion",
            words="ascii",
        ),
        "open_unlearning": Protocol(
            name="open_unlearning",
            max_examples=None,
            max_length=512,
            max_new_tokens=200,
            total_generation_length=None,
            end_token_in_memorisation=False,
            answer_tag="prompt",
            words="ascii",
        ),
    }
)


def protocol_in_force(
    name: ProtocolName, *, max_examples: int | None = None, max_new_tokens: int | None = None
) -> Protocol:
    """Return the protocol `name`; what is given takes the place of its own value and is listed as overridden."""
    given = {"max_examples": max_examples, "max_new_tokens": max_new_tokens}
    published = PROTOCOLS[name]
    changed = {key: value for key, value in given.items() if value is not None and value != getattr(published, key)}
    return dataclasses.replace(published, **changed, overridden=tuple(changed))


def tokeniser_for(protocol: Protocol, tokeniser: ExampleTokeniser) -> ExampleTokeniser:
    """Return a tokeniser that cuts and divides examples as `protocol` says; the template stays `tokeniser`'s."""
    own_length = protocol.max_length is None
    return tokeniser.changed(
        max_length=tokeniser.max_length if protocol.max_length is None else protocol.max_length,
        on_long=tokeniser.on_long if own_length else "truncate",
        answer_tag=protocol.answer_tag,
    )
