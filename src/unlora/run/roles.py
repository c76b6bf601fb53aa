"""Who is measured: the target (adapter off), the unlearned model (adapter on) and the retain-only model, each once."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlora import processes
from unlora.adapters.export import refuse_no_adapter
from unlora.artifacts import START_AGAIN, advised
from unlora.errors import InputError
from unlora.models.fingerprint import adapter_sha256
from unlora.models.load import load_model
from unlora.models.quantised import quantisation_of
from unlora.models.wrapping import CausalModel
from unlora.run.fitting import put_on
from unlora.run.loading import load
from unlora.run.reporter import Reporter
from unlora.run.settings import ModelSettings
from unlora.suites.scores import ModelScores, ScoreFile

ADAPTER = "adapter_sha256"
"""Key in the protocol of a score file in a run folder: the adapter that was switched on, None for none."""

PROBE_TEXT = "Question: Where was Zoë born, in 1931 or 2045?\nAnswer: In Malmö."
"""Tokenizers that cut this alike are taken for one."""


class ScoredModel(NamedTuple):
    """A model to score: plain, or with the unlearning adapter on it."""

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    """Of the plain model's weights."""
    adapter_sha256: str | None
    """Of the adapter as it is; None without one, or where scores are not to be found again by content."""


def find_adapter(adapter: str | None) -> Path | None:
    """The folder of an adapter, before anything is loaded.

    Raises:
        InputError: it is not there, or holds none.
    """
    if adapter is None:
        return None
    folder = Path(adapter)
    refuse_no_adapter(folder)
    return folder


def load_scored_model(
    settings: ModelSettings, adapter: Path | None, reporter: Reporter
) -> tuple[ScoredModel, dict[str, Any]]:
    """Load a model, with an adapter on top where one is given.

    Returns:
        The model, and what it is made of, for `RunFolder.start`: an evaluation can be resumed with the same only.

    Raises:
        InputError: no such model, or an adapter that does not fit it or was made for another.
    """
    reporter.say(f"Loading {settings.name}")
    target = load(settings)
    for note in target.notes:
        reporter.say(note)
    weights = target.fingerprint
    made_of: dict[str, Any] = {"model": {**vars(target.source), "fingerprint": weights}, "adapter": None}
    if adapter is None:
        return ScoredModel(target.model, target.tokenizer, weights, None), made_of
    model, known = put_on(target, adapter, settings, reporter)
    scored = ScoredModel(model.eval(), target.tokenizer, weights, adapter_sha256(adapter))
    return scored, made_of | {"adapter": scored.adapter_sha256, "adapter_made_for": known}


def load_retain_only(
    name: str, base: str | None, like: CausalModel, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """Load the model that never saw the forget set, as `load_beside` does."""
    return load_beside(name, base, like, tokenizer, role="retain_only")


def load_beside(
    name: str, base: str | None, like: CausalModel, tokenizer: PreTrainedTokenizerBase, *, role: str
) -> PreTrainedModel:
    """Load a second model, in the number format (rounded alike) and on the device of `like`.

    Args:
        name: of the model.
        base: of an adapter.
        like: the first model.
        tokenizer: of the first model.
        role: what a message calls the second one.

    Raises:
        InputError: no such model, or one that reads text in other tokens: its numbers would mean something else.
    """
    loaded = load_model(name, base=base, dtype=like.dtype, device=like.device, quantisation=quantisation_of(like))
    if loaded.tokenizer(PROBE_TEXT)["input_ids"] != tokenizer(PROBE_TEXT)["input_ids"]:
        raise InputError(f"{role} '{name}': its tokenizer is not the target model's; give a model of the same kind.")
    return loaded.model


def once(file: Path, score_file: ScoreFile[Any], score: Callable[[], ModelScores[Any]], *, adapter: str | None) -> Any:
    """Read the scores that a run has written of a model already, or ask it now and write them.

    What was written with another adapter, or by a version that did not say with which, is written anew.

    Args:
        file: where they are.
        score_file: their kind.
        score: asks the model.
        adapter: hash of the adapter that is switched on; None for none.

    Returns:
        The scores, as `ModelScores`.

    Raises:
        InputError: the file is damaged.
    """
    written = None
    if processes.from_main(file.is_file):
        with advised(START_AGAIN):
            written = score_file.load(file)
    if written is None or written.protocol.get(ADAPTER, "") != adapter:
        scores = score()
        scores = dataclasses.replace(scores, protocol={**scores.protocol, ADAPTER: adapter})
        processes.on_main(lambda: score_file.save(file, scores))
        written = score_file.load(file)
    protocol = {key: value for key, value in written.protocol.items() if key != ADAPTER}
    return dataclasses.replace(written, protocol=protocol)
