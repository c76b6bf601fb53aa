"""Ask a model in memory what a suite asks, without a run around it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from unlora.data.muse import MuseData
from unlora.data.records import ExampleSet
from unlora.data.tokenise import ExampleTokeniser
from unlora.models.wrapping import CausalModel
from unlora.suites.ask import ask_model
from unlora.suites.muse.suite import Muse
from unlora.suites.scores import ModelScores
from unlora.suites.suite import SuiteReader
from unlora.suites.tofu.ask import prepare_sets
from unlora.suites.tofu.protocols import PROTOCOLS, Protocol
from unlora.suites.tofu.suite import Tofu

TOFU = Tofu.from_mapping({"data": {"forget": "forget.jsonl"}})


def score_model(
    model: CausalModel,
    tokeniser: ExampleTokeniser,
    sets: Mapping[str, ExampleSet],
    *,
    protocol: Protocol = PROTOCOLS["unlora"],
    max_new_tokens: int | None = None,
    batch_size: int,
    **options: Any,
) -> ModelScores[Any]:
    """Ask about sets that are in memory already."""
    if max_new_tokens is not None:
        protocol = dataclasses.replace(protocol, max_new_tokens=max_new_tokens)
    suite = TOFU.model_copy(update={"batch_size": batch_size})
    return ask_model(suite, model, prepare_sets(sets, tokeniser, protocol), **options)


def score_muse(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, data: MuseData, *, batch_size: int, **options: Any
) -> ModelScores[Any]:
    """Ask about a corpus that is in memory already."""
    suite = Muse(corpus=data.corpus, batch_size=batch_size)
    return ask_model(suite, model, suite.prepare(data, SuiteReader.of(model, tokenizer)), **options)
