"""TOFU (Maini et al. 2024, arXiv 2401.06121), and the sets of a run in the same way."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from unlora.data.long_text import document_count
from unlora.data.make_tokeniser import make_tokeniser
from unlora.data.records import ExampleSet
from unlora.data.settings import DataSettings
from unlora.data.sources import load_examples
from unlora.data.tofu import companion, perturbed_version
from unlora.errors import InputError
from unlora.models.wrapping import CausalModel
from unlora.results import Measurement
from unlora.suites.scores import AskedSets, ModelScores, ScoreFile
from unlora.suites.suite import Asked, Progress, Suite, SuiteReader
from unlora.suites.tofu.ask import SetQuestion, ask_set, prepare_sets
from unlora.suites.tofu.external_logs import read_external_log
from unlora.suites.tofu.metrics import measure_tofu
from unlora.suites.tofu.open_unlearning import write_open_unlearning
from unlora.suites.tofu.protocols import Protocol, protocol_in_force
from unlora.suites.tofu.scores import TOFU_FILE, ExampleScore, check_asked_alike
from unlora.suites.tofu.settings import TofuSettings

SCORE_READERS: dict[str, Callable[[Path], ModelScores[Any]]] = {".jsonl": TOFU_FILE.load, ".json": read_external_log}
"""Ending of a file of scores -> its reader."""


class AskedAsTofu(Suite):
    """Sets of questions, each of which is asked, scored and saved as TOFU's are."""

    score_file: ClassVar[ScoreFile[Any]] = TOFU_FILE

    def hashes(self, loaded: Mapping[str, ExampleSet]) -> dict[str, str]:
        """Of every set."""
        return {f"{name}_sha256": examples.sha256() for name, examples in loaded.items()}

    def ask(
        self, model: CausalModel, asked: Asked, name: str, questions: Sequence[SetQuestion], progress: Progress | None
    ) -> list[ExampleScore]:
        """Ask questions of one set."""
        return ask_set(model, asked.means, questions, self.batch_size, progress)

    def check_comparable(self, scores: AskedSets, reference: AskedSets) -> None:
        """Refuse to set two models side by side that were not asked the same thing in the same way."""
        check_asked_alike(scores, reference)


class Tofu(TofuSettings, AskedAsTofu):
    """How well the forget set is known, and the others."""

    name: ClassVar[str] = "tofu"

    data: DataSettings
    """The sets of the run, and how their text becomes tokens."""

    @property
    def in_force(self) -> Protocol:
        """The protocol, with what the settings change of it."""
        return protocol_in_force(self.protocol, max_examples=self.max_examples, max_new_tokens=self.max_new_tokens)

    def load(self) -> dict[str, ExampleSet]:
        """Load the sets by name: forget, retain, real_authors, world_facts; those there are.

        TOFU's splits are swapped for their versions with perturbed answers. In the protocols of TOFU and
        OpenUnlearning, the other sets of model utility are taken from where a TOFU forget set is, as far as they are
        there.

        Raises:
            InputError: a set is not there, or not what it should be.
        """
        forget = self.forget or perturbed_version(self.data.forget)
        retain = self.retain or (perturbed_version(self.data.retain) if self.data.retain is not None else None)
        sources = {
            "forget": forget,
            "retain": retain or self._beside(forget, "retain_perturbed"),
            "real_authors": self.real_authors or self._beside(forget, "real_authors_perturbed"),
            "world_facts": self.world_facts or self._beside(forget, "world_facts_perturbed"),
        }
        sets = {name: load_examples(source) for name, source in sources.items() if source is not None}
        count = self.in_force.max_examples
        return {name: examples if count is None else examples.select(count) for name, examples in sets.items()}

    def _beside(self, forget: str, split: str) -> str | None:
        return None if self.protocol == "unlora" else companion(forget, split)

    def prepare(self, loaded: Mapping[str, ExampleSet], reader: SuiteReader) -> Asked:
        """Turn the sets into questions, as the protocol cuts them.

        Raises:
            InputError: an example that cannot be tokenised, with its line, or a template that is not there.
        """
        return prepare_sets(loaded, make_tokeniser(self.data, reader.tokenizer, reader.embedding_count), self.in_force)

    def measure(
        self, scores: ModelScores[ExampleScore], retain_only: ModelScores[ExampleScore] | None
    ) -> dict[str, Measurement]:
        """Compute every metric of the suite for one model."""
        return measure_tofu(scores, retain_only=retain_only)

    def title(self, role: str) -> str:
        """What stands beside the progress bar."""
        return f"Evaluating {role}"

    def readers(self) -> dict[str, Callable[[Path], ModelScores[Any]]]:
        """Scores as this program saves them, or another program's log."""
        return SCORE_READERS

    def refuse_reference(self, loaded: Mapping[str, ExampleSet], reference: ModelScores[ExampleScore]) -> None:
        """Refuse scores of a retain-only model by another protocol, or on another number of forget examples.

        Raises:
            InputError: with both protocols or numbers.
        """
        other = reference.protocol.get("name", self.protocol)
        if other != self.protocol:
            advice = f"set evaluation.protocol={other}, or score that model again"
            raise InputError(
                f"{self.retain_only}: scores by protocol {other}, and here it is {self.protocol}; {advice}."
            )
        count = document_count(one.source for one in reference.sets.get("forget", ()))
        if count != len(loaded["forget"]):
            advice = "give scores on the same forget set, or set evaluation.max_examples as there"
            here = f"and here are {len(loaded['forget'])}"
            raise InputError(f"{self.retain_only}: scores of {count} forget examples, {here}; {advice}.")

    def recorded(self, protocol: Mapping[str, Any]) -> dict[str, Any]:
        """The protocol, and what a likelihood is the mean of."""
        kept = {key: value for key, value in protocol.items() if key not in ("batch_size", "dtype")}
        return kept | {"likelihood": "mean over completion tokens, end of text included"}

    def remarks(self, protocol: Mapping[str, Any]) -> dict[str, Any]:
        """Say in words what of the sets the length limit kept from being measured."""
        return {"notes": length_notes(protocol)}

    def write_more(self, folder: Path, models: Mapping[str, ModelScores[ExampleScore]]) -> None:
        """Write what OpenUnlearning reads, in its protocol."""
        if self.protocol == "open_unlearning":
            for role, scores in models.items():
                write_open_unlearning(folder / "open_unlearning" / role, scores, models.get("retain_only"))


def length_notes(protocol: Mapping[str, Any]) -> list[str]:
    """Say of each set how much of it the length limit cut off, or how many pieces long texts were measured in."""
    notes, limit = [], protocol.get("template", {}).get("max_length")
    for name, described in protocol.get("sets", {}).items():
        examples, truncated = described["example_count"], described["truncated_count"]
        documents = described.get("document_count", examples)
        if examples > documents:
            notes.append(f"{name}: {documents} examples were measured in {examples} pieces of at most {limit} tokens")
        if truncated:
            tokens = [described.get(key) for key in ("token_count", "used_token_count")]
            used = f": {tokens[0]:,} tokens, {tokens[1]:,} used" if all(tokens) else ""
            notes.append(f"{name}: {truncated} of {examples} examples were cut at {limit} tokens{used}")
    return notes
