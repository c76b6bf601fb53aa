"""MUSE (Shi et al. 2024, arXiv 2407.06460) on one of its two corpora."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from unlora.data.muse import Corpus, MuseData, load_muse_data
from unlora.errors import InputError
from unlora.models.wrapping import CausalModel
from unlora.results import Measurement
from unlora.suites.muse.ask import ANSWER_TOKENS, CONTINUATION_TOKENS, Asker, Prompt, WholeText, few_shot_prefix
from unlora.suites.muse.metrics import UNITS, MuseScores, measure_muse
from unlora.suites.muse.open_unlearning import NAME, read_muse_log, write_open_unlearning_muse
from unlora.suites.muse.scores import KINDS, MUSE_FILE, AnswerScore, TextScore
from unlora.suites.scores import REMEDY, AskedSets, ModelScores, ScoreFile
from unlora.suites.suite import Asked, Progress, Suite, SuiteReader


class Muse(Suite):
    """What of one corpus is known word for word, in substance, and by its traces."""

    name: ClassVar[str] = "muse"
    score_file: ClassVar[ScoreFile[Any]] = MUSE_FILE
    compared: ClassVar[Mapping[str, str]] = {key: key for key in ("corpus", "demonstrations", "limits")}
    unit: ClassVar[str] = "items"

    corpus: Corpus
    """Which of MUSE's two corpora."""
    folder: str | None = None
    """Holds news/ and books/ as MUSE's load_data.py writes them, or is the folder of one; None loads from the hub."""
    retain_only: str | None = None
    """A model that never saw the forget texts, its saved scores (.jsonl), or OpenUnlearning's log of it
    (MUSE_EVAL.json): what PrivLeak is relative to. None takes MUSE's published number for its own 7B model, which means
    little for another."""
    batch_size: int = Field(default=8, ge=1)
    """Sequences per forward pass; whole texts are scored, so that logits are large."""

    def load(self) -> MuseData:
        """Load the first items of each part; demonstrations all stay.

        Raises:
            InputError: no such folder or file, hub not reachable, or a bad entry, named by file and number.
        """
        data = load_muse_data(self.corpus, Path(self.folder) if self.folder is not None else None)
        return data.select(self.max_examples)

    def hashes(self, loaded: MuseData) -> dict[str, str]:
        """Of the whole corpus."""
        return {"corpus": loaded.corpus, "sha256": loaded.sha256()}

    def prepare(self, loaded: MuseData, reader: SuiteReader) -> Asked:
        """Turn every part into tokens; what exceeds the model's context is cut, and counted.

        Raises:
            InputError: a token that the model has no embedding for.
        """
        asker = Asker(reader, self.batch_size)
        forget, retain = map(few_shot_prefix, (loaded.forget_demonstrations, loaded.retain_demonstrations))
        sets: dict[str, list[Prompt] | list[WholeText]] = {
            "verbatim": asker.prompts(loaded.verbatim, "", CONTINUATION_TOKENS),
            "forget_questions": asker.prompts(loaded.forget_questions, forget, ANSWER_TOKENS),
            "retain_questions": asker.prompts(loaded.retain_questions, retain, ANSWER_TOKENS),
            "forget_texts": asker.texts(loaded.forget_texts),
            "holdout_texts": asker.texts(loaded.holdout_texts),
        }
        how = {
            "limits": {"continuation_tokens": CONTINUATION_TOKENS, "answer_tokens": ANSWER_TOKENS},
            "decoding": "greedy",
            "tokenizer": type(reader.tokenizer).__name__,
            "context": reader.context,
        }
        demonstrations = {"forget_questions": forget, "retain_questions": retain}
        return Asked(sets, {"corpus": loaded.corpus, "demonstrations": demonstrations, **how}, how, asker)

    def ask(
        self, model: CausalModel, asked: Asked, name: str, questions: Sequence[Any], progress: Progress | None
    ) -> Sequence[AnswerScore] | Sequence[TextScore]:
        """Let a model continue prompts or answer questions, or score whole texts."""
        asker: Asker = asked.means
        if KINDS[name] is TextScore:
            return asker.score(model, questions, progress)
        return asker.ask(model, questions, CONTINUATION_TOKENS if name == "verbatim" else ANSWER_TOKENS, progress)

    def measure(self, scores: MuseScores, retain_only: MuseScores | None) -> dict[str, Measurement]:
        """Compute MUSE's metrics for one model."""
        return measure_muse(scores, retain_only=retain_only)

    def readers(self) -> dict[str, Callable[[Path], ModelScores[Any]]]:
        """Scores as this program saves them, or OpenUnlearning's log."""
        return {".jsonl": MUSE_FILE.load, ".json": read_muse_log}

    def check_comparable(self, scores: AskedSets, reference: AskedSets) -> None:
        """Refuse to set two models side by side that were not asked the same thing in the same way.

        Of OpenUnlearning's log, which does not hold the texts, only their numbers are compared.
        """
        if reference.protocol.get("name") != NAME:
            super().check_comparable(scores, reference)
            return
        for part in [name for name in scores.sets if name in reference.sets]:
            counts = [len(one.sets[part]) for one in (scores, reference)]
            if counts[0] != counts[1]:
                raise InputError(f"scores: {part} has {counts[0]} items, and {counts[1]} in the log; {REMEDY}.")

    def write_more(self, folder: Path, models: Mapping[str, MuseScores]) -> None:
        """Write what OpenUnlearning reads."""
        for role, scores in models.items():
            write_open_unlearning_muse(folder / "open_unlearning" / role, scores, models.get("retain_only"))

    def title(self, role: str) -> str:
        """What stands beside the progress bar."""
        return f"MUSE {self.corpus}: {role}"

    def recorded(self, protocol: Mapping[str, Any]) -> dict[str, Any]:
        """The protocol, and the units of the metrics."""
        return super().recorded(protocol) | {"units": UNITS}
