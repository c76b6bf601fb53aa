"""Suites in a job: made from its settings, loaded before the model, then asked of each model side by side."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from unlora import processes
from unlora.artifacts import write_json
from unlora.data.records import ExampleSet
from unlora.data.settings import DataSettings
from unlora.models.embedded import cache_folder
from unlora.models.fingerprint import fingerprint
from unlora.models.generate import writing
from unlora.models.load import load_tokenizer
from unlora.models.wrapping import CausalModel
from unlora.run.reporter import Reporter
from unlora.run.roles import ScoredModel, load_retain_only, once
from unlora.run.settings import EvaluationSettings
from unlora.suites.ask import ask_model
from unlora.suites.cache import ScoreCache
from unlora.suites.record import evaluation_record
from unlora.suites.scores import ModelScores
from unlora.suites.suite import Asked, Suite, SuiteReader
from unlora.suites.table import NamedSuite, read_suites

SHARED = ("retain_only", "retain_only_base", "max_examples")
"""What of the section `evaluation` holds for suites that bring their own data too."""
TEMPLATE = ("template", "chat_template", "template_arguments")
"""The same of the section `data`."""


class SuiteRun:
    """One suite in one job: loaded before the model, tried with its tokenizer, then asked of each model in turn."""

    def __init__(self, suite: Suite, label: str, folder: str = "") -> None:
        """Load nothing yet.

        Args:
            suite: with its settings.
            label: its name in the record.
            folder: of its scores, in the job's folder of scores; empty for the first suite.
        """
        self.suite, self.label, self.folder = suite, label, folder
        self.loaded: Any = None
        self._reference: ModelScores[Any] | None = None

    def load(self, *, reference: bool = True) -> Any:
        """Load what is asked, and refuse a retain-only model that is not there, or scores of one that do not fit.

        Args:
            reference: whether it will be needed; after hours of work is too late to miss it.

        Raises:
            InputError: naming what is missing or wrong.
        """
        name = self.suite.retain_only
        if reference and name is not None:
            self._reference = self.suite.saved_reference()
            if self._reference is None:
                load_tokenizer(name, base=self.suite.retain_only_base)
        self.loaded = self.suite.load()
        if self._reference is not None:
            self.suite.refuse_reference(self.loaded, self._reference)
        return self.loaded

    def hashes(self) -> dict[str, str]:
        """Say what was loaded."""
        prefix = f"{self.label}: " if self.folder else ""
        return {prefix + key: value for key, value in self.suite.hashes(self.loaded).items()}

    def prepare(self, reader: SuiteReader) -> Asked:
        """Turn what was loaded into tokens, and refuse a reference that was asked something else, before any work.

        Raises:
            InputError: saying what cannot be asked or compared.
        """
        asked = self.suite.prepare(self.loaded, reader)
        if self._reference is not None:
            self.suite.check_comparable(asked, self._reference)
        return asked

    def roles(self) -> list[str]:
        """The models of an unlearning run that are asked: a retain-only one only where its scores are not given."""
        name = self.suite.retain_only
        given = name is None or Path(name).suffix in self.suite.readers()
        return ["target", "unlearned"] if given else ["target", "unlearned", "retain_only"]

    def files(self) -> list[str]:
        """What a finished unlearning run has of it."""
        return [(Path("scores") / self.folder / f"{role}.jsonl").as_posix() for role in self.roles()]

    def score(self, scored: ScoredModel, scores: Path, reporter: Reporter) -> dict[str, ModelScores[Any]]:
        """Score every role, or read what an interrupted evaluation has written already.

        Args:
            scored: a model with an adapter is scored with it off ("target") and on ("unlearned").
            scores: folder for ROLE.jsonl.
            reporter: told what is loaded, and how far it is.

        Raises:
            InputError: a file of scores in the folder is damaged.
        """
        model, tokenizer, weights, adapter = scored
        asked = self.prepare(SuiteReader.of(model, tokenizer))
        models: dict[str, ModelScores[Any]] = {}

        def one(role: str, ask: Callable[[], ModelScores[Any]], switched_on: str | None = None) -> None:
            models[role] = once(scores / f"{role}.jsonl", self.suite.score_file, ask, adapter=switched_on)

        def ask_it(role: str, cache: ScoreCache | None) -> ModelScores[Any]:
            return self.ask(model, asked, role, reporter, cache)

        def ask_reference(name: str) -> ModelScores[Any]:
            reporter.say(f"Loading the retain-only model {name}")
            reference = load_retain_only(name, self.suite.retain_only_base, model, tokenizer)
            own = self.suite.prepare(self.loaded, SuiteReader.of(reference, tokenizer))
            cache = self.cache(reference, tokenizer, fingerprint(reference))
            return self.ask(reference, own, "retain_only", reporter, cache)

        model.eval()
        if isinstance(model, PeftModel):
            with model.disable_adapter():
                one("target", lambda: ask_it("target", self.cache(model, tokenizer, weights)))
            known = self.cache(model, tokenizer, weights, adapter) if adapter is not None else None
            one("unlearned", lambda: ask_it("unlearned", known), adapter)
        else:
            one("target", lambda: ask_it("target", self.cache(model, tokenizer, weights)))
        name = self.suite.retain_only
        if self._reference is not None:
            for note in self._reference.protocol.get("notes", ()):
                reporter.say(f"{name}: {note}")
            models["retain_only"] = self._reference
        elif name is not None:
            one("retain_only", lambda: ask_reference(name))
        return models

    def ask(
        self, model: CausalModel, asked: Asked, title: str, reporter: Reporter, cache: ScoreCache | None = None
    ) -> ModelScores[Any]:
        """Ask one model, with a progress bar."""
        with reporter.task(self.suite.title(title), 1) as task:
            return ask_model(self.suite, model, asked, cache=cache, progress=task.update)

    def cache(
        self, model: CausalModel, tokenizer: PreTrainedTokenizerBase, base_fingerprint: str, adapter: str | None = None
    ) -> ScoreCache:
        """Where scores of a model are found again by content."""
        return ScoreCache(
            cache_folder() / "scores",
            self.suite.score_file,
            fingerprint=base_fingerprint,
            adapter=adapter,
            writes=writing(model, tokenizer),
        )


def make_suites(evaluation: EvaluationSettings, data: DataSettings | None) -> list[SuiteRun]:
    """The suites that the settings name.

    Raises:
        InputError: a setting that a suite does not have, or a value that it does not take.
    """
    made = []
    for number, named in enumerate(read_suites(evaluation.suites)):
        suite = make_suite(named, evaluation, data, where=f"evaluation.suites.{number}")
        made.append(SuiteRun(suite, named.label, named.folder if number else ""))
    return made


def make_suite(named: NamedSuite, evaluation: EvaluationSettings, data: DataSettings | None, *, where: str) -> Suite:
    """Make a suite; what it does not say itself is as in the sections of the job.

    Raises:
        InputError: a setting that it does not have, or a value that it does not take.
    """
    kind = named.find_class()
    if named.brings_data:
        of_data = {key: getattr(data, key) for key in TEMPLATE} if data is not None else {}
        given = {key: getattr(evaluation, key) for key in SHARED} | of_data
    else:
        given = {**evaluation.model_dump(), "data": data}
    shared = {key: value for key, value in given.items() if key in kind.model_fields}
    return kind.from_mapping(shared | named.settings, where=f"suite '{named.label}'", section=where)


def tofu_of(evaluation: EvaluationSettings, data: DataSettings) -> SuiteRun:
    """What TOFU asks about the sets of a run, whatever suites it names."""
    (named,) = read_suites(["tofu"])
    return SuiteRun(make_suite(named, evaluation, data, where="evaluation"), named.label)


def evaluation_sets(evaluation: EvaluationSettings, data: DataSettings) -> dict[str, ExampleSet]:
    """The sets of a run as they are evaluated.

    Raises:
        InputError: a set is not there, or the retain-only model is not, or its scores do not fit.
    """
    return tofu_of(evaluation, data).load(reference=not evaluation.skip)


def evaluate_suites(
    suites: Sequence[SuiteRun], output: Path, scores: Path, scored: ScoredModel, reporter: Reporter
) -> dict[str, Any]:
    """Score the target (adapter off), the unlearned (adapter on) and, where given, the retain-only model.

    Args:
        suites: loaded.
        output: evaluation.json: what the first suite measured, and under "others" what each further one did.
        scores: folder for ROLE.jsonl of the first, and for a folder of each further one.
        scored: the model.
        reporter: told how far it is.
    """
    records = {}
    for one in suites:
        models = one.score(scored, scores / one.folder, reporter)
        records[one.label] = evaluation_record(one.suite, models)
        processes.on_main(functools.partial(one.suite.write_more, output.parent, models))
    (_, record), *others = records.items()
    record = record | ({"others": dict(others)} if others else {})
    processes.on_main(functools.partial(write_json, output, record))
    return record
