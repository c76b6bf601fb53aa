"""The whole story on a small scale: teach fictitious people, forget two of them, look at the answers, teach again."""

from pathlib import Path
from typing import Any, NamedTuple

from unlora.audit.settings import AuditSettings
from unlora.data.people import generate_people
from unlora.data.records import ExampleSet
from unlora.data.user_jsonl import to_jsonl
from unlora.locks import alone_in_output
from unlora.recipes.audit import audit
from unlora.recipes.fine_tune import fine_tune
from unlora.recipes.unlearn import unlearn
from unlora.run.presets import DEFAULT_PRESET, resolve_settings
from unlora.run.reporter import SILENT, Reporter
from unlora.run.settings import FineTuneSettings, ModelSettings
from unlora.suites.tofu.scores import TOFU_FILE

PEOPLE = 12
FORGOTTEN = 2
QUESTIONS_PER_PERSON = 6
SHOWN = 3
"""Questions shown of each set."""
AUDIT = {"attacks": ["relearning"], "relearning": {"attackers": ["lora_5e-4_few"], "fraction": 0.25}}
"""One attacker of many: three of the twelve forgotten questions are taught again."""


class Answer(NamedTuple):
    """One question, with what two models say."""

    question: str
    truth: str
    before: str
    after: str


class DemoResult(NamedTuple):
    """What the demo made."""

    evaluation: dict[str, Any]
    verdict: str
    """Of an audit that tries one attacker."""
    forgotten: list[Answer]
    kept: list[Answer]
    files: dict[str, Path]


@alone_in_output
def run_demo(output: Path, *, reporter: Reporter = SILENT) -> DemoResult:
    """Make data, a target and a retain-only model, then unlearn; what an earlier demo finished is used again.

    Raises:
        InputError: the embedded model is not installed, or `output` holds something else.
    """
    people = generate_people(PEOPLE, questions_per_person=QUESTIONS_PER_PERSON)
    names = list(dict.fromkeys(example.person for example in people if example.person is not None))
    forgotten = set(names[-FORGOTTEN:])
    reporter.say(
        f"{PEOPLE} fictitious people, {len(people)} questions; to be forgotten: {', '.join(names[-FORGOTTEN:])}"
    )
    forget_file = write_part(people, output / "data" / "forget.jsonl", forgotten)
    retain_file = write_part(people, output / "data" / "retain.jsonl", set(names) - forgotten)

    teach(output / "target", [forget_file, retain_file], "the target model learns all of them", reporter)
    teach(output / "retain_only", [retain_file], "the retain-only model never sees the forgotten ones", reporter)

    run = output / "run"
    settings = resolve_settings(
        preset_name=DEFAULT_PRESET,
        config_file=None,
        flags={
            "model.name": str(output / "target"),
            "model.base": "embedded",
            "data.forget": str(forget_file),
            "data.retain": str(retain_file),
            "data.template": "plain",
            "evaluation.retain_only": str(output / "retain_only"),
            "evaluation.retain_only_base": "embedded",
            "evaluation.max_new_tokens": 32,
            "evaluation.max_examples": 12,
            "training.batch_size": 4,
            "training.epochs": 8,
        },
        overrides=[],
    )
    evaluation = unlearn(settings, run, reporter=reporter)
    reporter.say("audit: some of the forgotten questions are taught again, to see whether the others come back")
    audited = audit(run, AuditSettings.from_mapping(AUDIT), run / "audit", reporter=reporter)
    return DemoResult(
        evaluation,
        audited["verdict"],
        answers(run, "forget"),
        answers(run, "retain"),
        {"adapter": run / "adapter", "evaluation": run / "evaluation.json", "record": run / "record.json"},
    )


def write_part(people: ExampleSet, file: Path, names: set[str]) -> Path:
    """Write the examples of some people."""
    part = tuple(example for example in people if example.person in names)
    to_jsonl(ExampleSet(file.stem, part), file)
    return file


def teach(folder: Path, data: list[Path], why: str, reporter: Reporter) -> None:
    """Fine-tune the embedded model, unless it was done before."""
    reporter.say(f"{folder.name}: {why}")
    if (folder / "adapter_config.json").is_file():
        return
    settings = FineTuneSettings(
        model=ModelSettings(name="embedded"), data=[str(file) for file in data], template="plain", epochs=8
    )
    fine_tune(settings, folder, reporter=reporter)


def answers(run: Path, set_name: str) -> list[Answer]:
    """The first questions of a set with the answers of the target and the unlearned model."""
    before = TOFU_FILE.load(run / "scores" / "target.jsonl").sets[set_name]
    after = TOFU_FILE.load(run / "scores" / "unlearned.jsonl").sets[set_name]
    return [
        Answer(first.question, first.answer, first.generated or "", second.generated or "")
        for first, second in list(zip(before, after, strict=True))[:SHOWN]
    ]
