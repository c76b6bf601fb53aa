"""Who is measured: the target (adapter off), the unlearned model (adapter on) and the retain-only model, each once."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlora import processes
from unlora.artifacts import START_AGAIN, advised
from unlora.errors import InputError
from unlora.evaluation.cache import adapter_sha256
from unlora.evaluation.muse_scores import MuseScores
from unlora.evaluation.scores import ModelScores
from unlora.evaluation.wmdp_scores import WmdpScores
from unlora.models.load import LoadedModel, load_model, load_tokenizer
from unlora.models.quantised import quantisation_of
from unlora.models.wrapping import CausalModel
from unlora.recipes.fitting import put_on
from unlora.recipes.loading import load
from unlora.recipes.reporter import Reporter
from unlora.recipes.settings import ModelSettings

Scores = TypeVar("Scores", ModelScores, MuseScores, WmdpScores)

ADAPTER = "adapter_sha256"
"""Key in the protocol of a score file in a run folder: the adapter that was switched on, None for none."""

PROBE_TEXT = "Question: Where was Zoë born, in 1931 or 2045?\nAnswer: In Malmö."
"""Tokenizers that cut this alike are taken for one."""


class Measured(NamedTuple):
    """The model to measure, with what a record says about it."""

    target: LoadedModel
    model: CausalModel
    """The target itself, or with the unlearning adapter on it."""
    fingerprint: str
    """Of the target's weights."""
    adapter_sha256: str | None
    made_for: str | None = None
    """How far it is known that the adapter was made for this model; None without one."""

    def made_of(self) -> dict[str, Any]:
        """For `RunFolder.start`: an evaluation can be resumed with the same weights only."""
        return {
            "model": {**vars(self.target.source), "fingerprint": self.fingerprint},
            "adapter": self.adapter_sha256,
            **({"adapter_made_for": self.made_for} if self.made_for is not None else {}),
        }


def find_adapter(adapter: str | None) -> Path | None:
    """The folder of an adapter, before anything is loaded.

    Raises:
        InputError: it holds none.
    """
    if adapter is None:
        return None
    folder = Path(adapter)
    if not (folder / "adapter_config.json").is_file():
        raise InputError(f"{folder}: no adapter_config.json; not an adapter folder.")
    return folder


def load_measured(settings: ModelSettings, adapter: Path | None, reporter: Reporter) -> Measured:
    """Load a model, with an adapter on top where one is given.

    Raises:
        InputError: no such model, or an adapter that does not fit it or was made for another.
    """
    reporter.say(f"Loading {settings.name}")
    target = load(settings)
    for note in target.notes:
        reporter.say(note)
    weights = target.fingerprint
    if adapter is None:
        return Measured(target, target.model, weights, None)
    model, known = put_on(target, adapter, settings, reporter)
    return Measured(target, model.eval(), weights, adapter_sha256(adapter), known)


def refuse_missing_reference(
    retain_only: str | None, base: str | None, saved_kinds: dict[str, Callable[[Path], Any]]
) -> None:
    """Refuse a retain-only model, or a file of its scores, that is not there: it is needed only after hours of work.

    Args:
        retain_only: a model, or a file of its scores; None for neither.
        base: of a model that is an adapter.
        saved_kinds: ending of such a file -> its reader.

    Raises:
        InputError: naming it.
    """
    if retain_only is None:
        return
    read = saved_kinds.get(Path(retain_only).suffix)
    if read is not None:
        read(Path(retain_only))
    else:
        load_tokenizer(retain_only, base=base)


def load_retain_only(
    name: str, base: str | None, like: CausalModel, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """Load the model that never saw the forget set, in the number format (rounded alike) and on the device of `like`.

    Raises:
        InputError: no such model, or one that reads text in other tokens: its numbers would mean something else.
    """
    loaded = load_model(name, base=base, dtype=like.dtype, device=like.device, quantisation=quantisation_of(like))
    if loaded.tokenizer(PROBE_TEXT)["input_ids"] != tokenizer(PROBE_TEXT)["input_ids"]:
        raise InputError(
            f"retain_only '{name}': its tokenizer is not the target model's; give a model of the same kind."
        )
    return loaded.model


def score_roles(
    model: CausalModel,
    folder: Path,
    *,
    retain_only: str | None,
    retain_only_base: str | None,
    tokenizer: PreTrainedTokenizerBase,
    score: Callable[[CausalModel, str], Scores],
    save: Callable[[Path, Scores], None],
    load: Callable[[Path], Scores],
    saved_kinds: dict[str, Callable[[Path], Scores]],
    reporter: Reporter,
    adapter: str | None,
) -> dict[str, Scores]:
    """Score every role, or read what an interrupted evaluation has written already.

    Args:
        model: plain, or with the unlearning adapter: then it is scored with it off ("target") and on ("unlearned").
        folder: for ROLE.jsonl.
        retain_only: a model that never saw the forget set, or a file of its scores; None for none.
        retain_only_base: its base when it is an adapter.
        tokenizer: of the model.
        score: asks a model in a role.
        save: writes what `score` gave.
        load: reads what `save` wrote.
        saved_kinds: ending of a file that may stand for the retain-only model -> its reader.
        reporter: told what is loaded.
        adapter: hash of the adapter, from `adapter_sha256`; scores of the unlearned model are of this one only.

    Raises:
        InputError: a file of scores in `folder` is damaged.
    """
    models: dict[str, Scores] = {}

    def one(asked: Callable[[], CausalModel], role: str) -> None:
        models[role] = once(
            folder / f"{role}.jsonl",
            lambda: score(asked(), role),
            save=save,
            load=load,
            adapter=adapter if role == "unlearned" else None,
        )

    model.eval()
    if isinstance(model, PeftModel):
        with model.disable_adapter():
            one(lambda: model, "target")
        one(lambda: model, "unlearned")
    else:
        one(lambda: model, "target")
    if retain_only is None:
        return models
    read = saved_kinds.get(Path(retain_only).suffix)
    if read is not None:
        models["retain_only"] = read(Path(retain_only))
        return models

    def reference() -> PreTrainedModel:
        reporter.say(f"Loading the retain-only model {retain_only}")
        return load_retain_only(retain_only, retain_only_base, model, tokenizer)

    one(reference, "retain_only")
    return models


def once(
    file: Path,
    score: Callable[[], Scores],
    *,
    save: Callable[[Path, Scores], None],
    load: Callable[[Path], Scores],
    adapter: str | None,
) -> Scores:
    """Read the scores that a run has written of a model already, or ask it now and write them.

    What was written with another adapter, or by a version that did not say with which, is written anew.

    Args:
        file: where they are.
        score: asks the model.
        save: writes what `score` gave.
        load: reads what `save` wrote.
        adapter: hash of the adapter that is switched on; None for none.

    Raises:
        InputError: the file is damaged.
    """
    written = None
    if processes.from_main(file.is_file):
        with advised(START_AGAIN):
            written = load(file)
    if written is None or written.protocol.get(ADAPTER, "") != adapter:
        scores = score()
        scores = dataclasses.replace(scores, protocol={**scores.protocol, ADAPTER: adapter})
        processes.on_main(lambda: save(file, scores))
        written = load(file)
    protocol = {key: value for key, value in written.protocol.items() if key != ADAPTER}
    return dataclasses.replace(written, protocol=protocol)
