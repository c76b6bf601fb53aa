"""Who is measured: the target (adapter off), the unlearned model (adapter on) and the retain-only model, each once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlora import processes
from unlora.adapters.export import load_trained_adapter
from unlora.artifacts import file_sha256
from unlora.errors import InputError
from unlora.models.load import LoadedModel, fingerprint, load_model, load_tokenizer
from unlora.models.quantised import quantisation_of
from unlora.models.wrapping import CausalModel
from unlora.recipes.loading import load
from unlora.recipes.reporter import Reporter
from unlora.recipes.settings import ModelSettings

Scores = TypeVar("Scores")

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

    def made_of(self) -> dict[str, Any]:
        """For `RunFolder.start`: an evaluation can be resumed with the same weights only."""
        return {
            "model": {**vars(self.target.source), "fingerprint": self.fingerprint},
            "adapter": self.adapter_sha256,
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
        InputError: no such model, or an adapter that does not fit it.
    """
    reporter.say(f"Loading {settings.name}")
    target = load(settings)
    weights = fingerprint(target.model)
    if adapter is None:
        return Measured(target, target.model, weights, None)
    model = load_trained_adapter(target.model, adapter).eval()
    return Measured(target, model, weights, file_sha256(adapter / "adapter_model.safetensors"))


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
    """
    models: dict[str, Scores] = {}

    def one(asked: CausalModel, role: str) -> None:
        file = folder / f"{role}.jsonl"
        if not processes.from_main(file.is_file):
            scores = score(asked, role)
            processes.on_main(lambda: save(file, scores))
        models[role] = load(file)

    model.eval()
    if isinstance(model, PeftModel):
        with model.disable_adapter():
            one(model, "target")
        one(model, "unlearned")
    else:
        one(model, "target")
    if retain_only is None:
        return models
    read = saved_kinds.get(Path(retain_only).suffix)
    if read is not None:
        models["retain_only"] = read(Path(retain_only))
    elif processes.from_main((folder / "retain_only.jsonl").is_file):
        models["retain_only"] = load(folder / "retain_only.jsonl")
    else:
        reporter.say(f"Loading the retain-only model {retain_only}")
        one(load_retain_only(retain_only, retain_only_base, model, tokenizer), "retain_only")
    return models
