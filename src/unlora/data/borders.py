"""From text to token ids, with the exact border between prompt and completion, for every kind of tokenizer."""

from collections.abc import Mapping
from functools import cached_property
from itertools import takewhile
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from unlora.data.templates import RenderedExample
from unlora.errors import InputError


class Divided(NamedTuple):
    """Token ids; those from `prompt_length` on are the completion's."""

    input_ids: list[int]
    prompt_length: int


class Borders:
    """Divides texts with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def divide(self, text: RenderedExample) -> Divided:
        """Tokenise prompt and completion. A token that straddles the border belongs to the completion."""
        divided = self._divide_whole(text) if self._tokenizer.is_fast else self._divide_parts(text)
        doubled = self._doubled(divided.input_ids, text)
        return Divided(divided.input_ids[doubled:], max(divided.prompt_length - doubled, 0))

    def prompt(self, text: RenderedExample) -> list[int]:
        """Tokenise the prompt alone, as a model is given it."""
        ids = self._prompt(text)
        return ids[self._doubled(ids, text) :]

    @cached_property
    def _added(self) -> tuple[list[int], list[int]]:
        """What the tokenizer adds by itself in front of a text, and behind it."""
        bare, dressed = self._ids("a", add_special_tokens=False), self._ids("a", add_special_tokens=True)
        places = range(len(dressed) - len(bare) + 1)
        start = next((place for place in places if dressed[place : place + len(bare)] == bare), 0)
        return dressed[:start], dressed[start + len(bare) :]

    @cached_property
    def _atoms(self) -> set[int]:
        """Tokens that may swallow the white space beside them."""
        return set(self._tokenizer.added_tokens_decoder)

    def _divide_whole(self, text: RenderedExample) -> Divided:
        """Tokenise once, as the model will see it."""
        whole, border = text.prompt + text.completion, len(text.prompt)
        encoding = self._read(whole, add_special_tokens=text.add_special_tokens, return_offsets_mapping=True)
        ids = list(encoding["input_ids"])
        for place, (start, end) in enumerate(encoding["offset_mapping"]):  # of tokens that the tokenizer adds: 0, 0
            swallows = start < border and ids[place] in self._atoms and not whole[border:end].strip()
            if end > border and not swallows:
                return Divided(ids, place)
        return Divided(ids, len(ids))

    def _divide_parts(self, text: RenderedExample) -> Divided:
        """Tokenise prompt and completion apart: a tokenizer written in Python does not say where a token stands.

        Where the parts together would read otherwise (a blank before each), the whole is taken, as the model will see
        it, and its beginning that the prompt alone begins with too is prompt.
        """
        prompt = self._prompt(text)
        parts = prompt + self._ids(text.completion, add_special_tokens=False)
        added = len(self._added[0]) if text.add_special_tokens else 0
        if self._tokenizer.decode(parts[added:], clean_up_tokenization_spaces=False) == text.prompt + text.completion:
            return Divided(parts, len(prompt))
        whole = self._ids(text.prompt + text.completion, add_special_tokens=text.add_special_tokens)
        shared = takewhile(lambda pair: pair[0] == pair[1], zip(prompt, whole, strict=False))
        return Divided(whole, sum(1 for _ in shared))

    def _prompt(self, text: RenderedExample) -> list[int]:
        ids = self._ids(text.prompt, add_special_tokens=text.add_special_tokens)
        behind = self._added[1] if text.add_special_tokens else []
        # What the tokenizer adds behind a text does not stand here: the text goes on.
        return ids[: -len(behind)] if behind and ids[-len(behind) :] == behind else ids

    def _doubled(self, ids: list[int], text: RenderedExample) -> int:
        """How many tokens in front the tokenizer added although the text, rendered before, begins with them itself."""
        added = self._added[0] if text.add_special_tokens else []
        return len(added) if ids[len(added) : 2 * len(added)] == added else 0

    def _ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return list(self._read(text, add_special_tokens=add_special_tokens)["input_ids"])

    def _read(self, text: str, **options: Any) -> Mapping[str, Any]:
        try:
            return self._tokenizer(text, verbose=False, **options)
        except Exception as error:  # tokenizers raises plain Exception, for a vocabulary without its unknown token say
            reason = " ".join(str(error).split()).rstrip(".")
            raise InputError(
                f"the model's tokenizer cannot read a text ({reason}); its files do not fit together."
            ) from None
