"""Forward passes that compute no more than is asked for: logits only where they are needed, nothing read twice."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from unlora.shapes import TokenIds


def completion_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Float[Tensor, "batch kept vocab"]:
    """Logits of the last positions of a right-padded batch, from the first that predicts a label to the end.

    The head is a large part of a small model, and prompts need no logits. Models whose forward has no
    `logits_to_keep` give all positions.

    Args:
        model: a causal language model, with or without PEFT around it.
        batch: input_ids, attention_mask and labels, each (batch, token).
    """
    return completion_output(model, batch).logits


def completion_output(model: nn.Module, batch: Mapping[str, Tensor], **options: bool) -> Any:
    """Return everything that the forward pass of `completion_logits` gives.

    Args:
        model: as there.
        batch: as there.
        options: further arguments of the forward pass, such as output_hidden_states.
    """
    labels = batch["labels"]
    first_label = int((labels != -100).any(dim=0).long().argmax())
    kept = labels.shape[1] - max(first_label - 1, 0)
    inputs: dict[str, Any] = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    inputs |= {"use_cache": False, **options}
    if takes(model, "logits_to_keep"):
        inputs["logits_to_keep"] = last_positions(kept, labels.shape[1], batch["input_ids"].device)
    return model(**inputs, **token_kinds(model, batch["input_ids"]))


def token_kinds(model: nn.Module, input_ids: TokenIds) -> dict[str, Tensor]:
    """Argument of a forward pass that says which tokens are of an image: none. Molmo2 asks for it in training."""
    return {"mm_token_type_ids": torch.zeros_like(input_ids)} if takes(model, "mm_token_type_ids") else {}


def last_positions(count: int, length: int, device: torch.device) -> Int[Tensor, " kept"]:
    """Where the last positions of a sequence stand, for `logits_to_keep`.

    Given their number, transformers takes a slice of the hidden states, whose rows do not lie behind one another, and
    the head is multiplied example by example. Given their places it takes a copy and one product does: the same bits on
    the CPU that was tried, one and a half times as fast in float32 and five times in bfloat16 (docs/performance.md).
    """
    return torch.arange(length - count, length, device=device)


class Reader:
    """Rows of tokens that a model reads piece by piece; what it has read is remembered in the cache it makes itself.

    Only the common contract of transformers' forward is used, as `generate` does it: input_ids, attention_mask,
    position_ids, past_key_values. Where a model's memory cannot be continued, the rows are read again from their
    start: the same result, only later. There nothing forces padding before a row's tokens, and it is taken out: not
    every such model looks past it (the convolution of RecurrentGemma in transformers 5.23 does not).
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Start with nothing read."""
        self._model = model
        self._accepted = inspect.signature(model.forward).parameters
        self._first_place = first_place(model)
        self._input_ids = self._mask = torch.empty(0, 0, dtype=torch.long, device=model.device)
        self._cache: Cache | None = None
        self._from_start = False
        """Whether the model has shown that its memory cannot be continued."""

    def read(
        self, input_ids: TokenIds, attention_mask: TokenIds, *, keep: int, more: bool
    ) -> Float[Tensor, "batch kept vocab"]:
        """Read the next tokens of every row.

        Args:
            input_ids: (batch, token); the same rows every time.
            attention_mask: (batch, token), 0 on padding, which may stand anywhere.
            keep: how many of the last positions need logits, at least 1.
            more: whether the rows will be read on.

        Returns:
            Logits of the last `keep` positions.
        """
        first = self._mask.shape[1] == 0
        self._input_ids = input_ids if first else torch.cat([self._input_ids, input_ids], dim=1)
        self._mask = attention_mask if first else torch.cat([self._mask, attention_mask], dim=1)
        if self._from_start:
            return self._read_without_gaps(keep)
        unread = input_ids.shape[1] if _can_continue(self._cache, input_ids.shape[1]) else self._mask.shape[1]
        output = self._forward(self._input_ids, self._mask, unread, keep, more)
        cache = output.get("past_key_values") if more else None
        self._cache = cache if isinstance(cache, Cache) else None
        self._from_start = more and not _can_continue(self._cache, 1)
        if self._from_start and not self._mask[:, 0].all():
            return self._read_without_gaps(keep)
        return output.logits[:, -keep:]

    def held(self) -> int:
        """Bytes of the keys and values that it remembers; 0 where the rows are read again from their start."""
        layers = self._cache.layers if self._cache is not None and not self._from_start else []
        tensors = [tensor for layer in layers for tensor in vars(layer).values() if isinstance(tensor, Tensor)]
        return sum(tensor.nbytes for tensor in tensors)

    def _forward(self, input_ids: TokenIds, mask: TokenIds, unread: int, keep: int, more: bool) -> Any:
        """Read the last `unread` tokens of the rows; `keep` and `more` as in `read`."""
        inputs: dict[str, Any] = {
            "input_ids": input_ids[:, -unread:],
            "attention_mask": mask,
            "use_cache": more and "past_key_values" in self._accepted,
        }
        if unread < mask.shape[1]:
            inputs |= {"past_key_values": self._cache, "use_cache": True}
        if "position_ids" in self._accepted:  # Others count positions by the mask themselves, or have none.
            inputs["position_ids"] = self._first_place + _places(mask)[:, -unread:].contiguous()
        if "logits_to_keep" in self._accepted:
            inputs["logits_to_keep"] = last_positions(keep, unread, input_ids.device)
        return self._model(**inputs)

    def _read_without_gaps(self, keep: int) -> Float[Tensor, "batch kept vocab"]:
        """Read the rows from their start with all padding at their ends, where no token sees it."""
        length = int(self._mask.sum(dim=1).max())
        order = self._mask.argsort(dim=1, descending=True, stable=True)[:, :length]
        input_ids, mask = self._input_ids.gather(1, order), self._mask.gather(1, order)
        wanted = _places(self._mask)[:, -keep:]
        first = int(wanted.min())
        logits = self._forward(input_ids, mask, length, length - first, more=False).logits[:, first - length :]
        return logits.take_along_dim((wanted - first)[:, :, None], dim=1)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may come more than once."""
        index = torch.tensor(rows, device=self._mask.device)
        self._input_ids, self._mask = self._input_ids[index], self._mask[index]
        if self._cache is not None:
            self._cache.reorder_cache(index)  # pyright: ignore[reportArgumentType]  an int64 tensor is meant


def first_place(model: PreTrainedModel) -> int:
    """The position of a text's first token where the model counts them itself: 0, or the one after padding's.

    RoBERTa and those made from it count so. transformers' generate counts from 0 (findings/generate-positions.sh).
    """
    counting = (one for one in model.modules() if hasattr(one, "create_position_ids_from_input_ids"))
    return next((int(getattr(one, "padding_idx", -1)) + 1 for one in counting), 0)


def takes_past(model: PreTrainedModel) -> bool:
    """Whether the model's forward can take up what it has read before."""
    return "past_key_values" in inspect.signature(model.forward).parameters


def takes(model: nn.Module, argument: str) -> bool:
    """Whether the model's own forward has an argument of this name."""
    return argument in inspect.signature(innermost(model).forward).parameters


def innermost(model: nn.Module) -> PreTrainedModel:
    """The model below PEFT's and accelerate's wrappers."""
    while hasattr(model, "get_base_model") or hasattr(model, "module"):
        model = model.get_base_model() if hasattr(model, "get_base_model") else model.module  # type: ignore[operator, assignment]
    return model  # pyright: ignore[reportReturnType]


def _places(mask: TokenIds) -> TokenIds:
    """Which token of its row each is, counted from 0; padding goes by the token before it."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def _can_continue(cache: Cache | None, token_count: int) -> bool:
    """Every memory takes one more token, that of attention any number; recurrent states differ between models.

    A class of the model's own may keep states beside its layers that do not follow when rows are chosen (MiniMax's
    in transformers 5.23, findings/minimax-beam-search.sh).
    """
    if type(cache) is not DynamicCache:
        return False
    return token_count == 1 or all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
