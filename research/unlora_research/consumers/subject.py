"""One finished run, exported as adapter and as model, with its answers and what they are worth here."""

from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from unlora.adapters.export import load_trained_adapter
from unlora.consumers.answers import Answers, LogProbs
from unlora.data.make_tokeniser import make_tokeniser
from unlora.models.load import LoadedModel, load_model
from unlora.models.save import save_model
from unlora.models.vocabulary import embedding_count
from unlora.recipes.export import export_adapter, export_merged, load_public_base, load_run_target
from unlora.run.finished import run_settings
from unlora.run.reporter import SILENT
from unlora.run.sets import load_sets, tokenise_sets


class Subject(NamedTuple):
    """What is handed to other programs, and what they should find."""

    base: Path
    """Model folder that the adapter belongs to, in float32."""
    adapter: Path
    """PEFT adapter, in plain factors."""
    merged: Path
    """Model folder, in float32."""
    tokenizer: PreTrainedTokenizerBase
    answers: Answers
    expected: list[LogProbs]
    """Of the answers in the target with the run's own adapter."""
    known: float
    """Probability of a forgotten answer in the target."""


def export_subject(run: Path, folder: Path, most: int | None) -> Subject:
    """Export a run both ways and score its answers with its own adapter.

    Args:
        run: a finished run in float32.
        folder: for the exports; must not hold any.
        most: answers of the forget set, and as many of the retain set; None takes all of the forget set.

    Raises:
        InputError: no finished run, or an export that is there.
    """
    settings = run_settings(run, trust_remote_code=False, reporter=SILENT)
    done = export_adapter(run, folder / "adapter")
    export_merged(run, folder / "merged")
    target, _ = load_run_target(run, settings.model, full=True, reporter=SILENT)
    base = load_public_base(settings.model) if done.public_base else target
    save_model(base.model, base.tokenizer, folder / "base")
    tokeniser = make_tokeniser(settings.data, target.tokenizer, embedding_count(target.model))
    sets = tokenise_sets(tokeniser, *load_sets(settings.data))
    count = len(sets.forget_tokens) if most is None else most
    kept = sets.retain_tokens or []
    chosen = (*sets.forget_tokens[:count], *kept[:: max(len(kept) // count, 1)][:count])
    sequences = [(list(one.input_ids), max(one.prompt_length, 1)) for one in chosen]
    answers = Answers(sequences, len(sets.forget_tokens[:count]), tokeniser.pad_token_id)
    before = answers.score(target.model)
    expected = answers.score(load_trained_adapter(target.model, run / "adapter"))
    known = sum(float(torch.tensor(one).mean().exp()) for one in before[: answers.forget_count])
    places = (folder / "base", folder / "adapter", folder / "merged")
    return Subject(*places, target.tokenizer, answers, expected, known / answers.forget_count)


def load_folder(folder: Path) -> LoadedModel:
    """Load an exported model in float32 on the processor."""
    return load_model(str(folder), dtype=torch.float32, device=torch.device("cpu"))
