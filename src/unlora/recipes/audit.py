"""Attack a finished run and say in one sentence how far the knowledge is really gone."""

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unlora.artifacts import nan_to_null, read_json_object, write_json, write_text
from unlora.audit.attack import Attack, AttackResult
from unlora.audit.attacks import make_attack
from unlora.audit.bench import Workbench
from unlora.audit.cost import Speed, measure_speed
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject
from unlora.audit.verdict import SCOPE, verdict
from unlora.data.long_text import in_pieces
from unlora.data.make_tokeniser import make_tokeniser
from unlora.data.records import ExampleSet
from unlora.data.sources import load_examples
from unlora.errors import InputError
from unlora.locks import alone_in_output
from unlora.models.embedded import cache_folder
from unlora.models.fingerprint import adapter_sha256, fingerprint
from unlora.models.vocabulary import embedding_count
from unlora.report import write_audit_page, write_report
from unlora.run.finished import refuse_leading_out, refuse_other_model, run_settings
from unlora.run.fitting import put_on
from unlora.run.folder import RunFolder
from unlora.run.loading import load
from unlora.run.reporter import SILENT, Reporter
from unlora.run.roles import load_retain_only
from unlora.run.settings import UnlearnSettings
from unlora.run.suites import evaluation_sets
from unlora.runtime import seed_everything

SCHEMA = 1


@alone_in_output
def audit(
    run: Path,
    settings: AuditSettings,
    output: Path,
    *,
    trust_remote_code: bool = False,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Run attacks on a finished run. Started again, it goes on where it stopped.

    Args:
        run: folder of a finished `unlora unlearn`.
        settings: which attacks, and how hard.
        output: folder for audit.json, audit.html and the records of every attack.
        trust_remote_code: whether Python code that comes with the target may run; the run's own settings, which may be
            somebody else's, cannot say so.
        reporter: where words and progress go.

    Returns:
        The content of audit.json.

    Raises:
        InputError: no finished run, a model or data set that is not there; nothing was written.
        UnloraError: an attack failed; what was finished before is kept.
    """
    made_with = run_settings(run, trust_remote_code=trust_remote_code, reporter=reporter)
    refuse_leading_out(run, output)
    settings = with_known_attackers(run, settings)
    attacks = {name: make_attack(name) for name in settings.attacks}
    folder = RunFolder(output, settings)
    seed_everything(settings.seed)
    subject = load_subject(run, made_with, settings, folder.path / "scratch", reporter)
    folder.start(weights=dict(subject.hashes), data=_data_hashes(subject))
    folder.write_record(run=str(run))  # where it lay, which is no part of what it is: a folder may be moved
    speed = measure_speed(subject, settings.batch_size)
    results: dict[str, AttackResult] = {}
    costs: dict[str, dict[str, float]] = {}
    report: dict[str, Any] = {}
    for name, attack in attacks.items():
        with folder.stage(name), scratch(subject.scratch):
            results[name], costs[name] = run_attack(attack, subject, settings, speed, reporter)
        write_records(output / "records" / f"{name.replace(':', '-')}.jsonl", results[name])
        report = audit_record(run, subject, settings, attacks, results, costs)
        write_json(output / "audit.json", report)
    folder.finish()
    write_audit_page(output)
    if output == run / "audit":
        write_report(run)
    return report


def with_known_attackers(run: Path, settings: AuditSettings) -> AuditSettings:
    """Add the attackers that the run's own record says its training or tuning has used."""
    recorded = read_json_object(run / "record.json").get("known_attackers") or []
    known = [*settings.known_attackers, *(name for name in recorded if name not in settings.known_attackers)]
    return AuditSettings.from_mapping(settings.model_dump() | {"known_attackers": known}, where="record.json")


def run_attack(
    attack: Attack, subject: AuditSubject, settings: AuditSettings, speed: Speed, reporter: Reporter
) -> tuple[AttackResult, dict[str, float]]:
    """Run one attack, or say what it lacks."""
    missing = attack.lacks(subject, settings)
    if missing is not None:
        reporter.say(f"{attack.name}: not tested, {missing}")
        return AttackResult("not tested", missing), {}
    expected = speed.seconds(attack.cost(subject, settings))
    reporter.say(f"{attack.name}: {attack.question} About {_duration(expected)}, less where results are cached")
    start = time.perf_counter()
    with reporter.task(f"Audit: {attack.name}", 1) as task:
        result = attack.run(Workbench(subject, settings, task.update, cache_folder() / "audit"))
    reporter.say(f"{attack.name}: {result.outcome}; {result.sentence}")
    return result, {"estimated_seconds": round(expected, 3), "seconds": round(time.perf_counter() - start, 3)}


def load_subject(
    run: Path, made_with: UnlearnSettings, settings: AuditSettings, scratch_folder: Path, reporter: Reporter
) -> AuditSubject:
    """Load the models and records of a run; what cannot be asked is refused here."""
    holdout = _optional(settings.holdout)
    same_person = _optional(settings.same_person)
    sets = evaluation_sets(made_with.evaluation, made_with.data)
    retain = load_examples(made_with.data.retain) if made_with.data.retain is not None else None
    reporter.say(f"Loading the target model {made_with.model.name}")
    target = load(made_with.model)
    target_fingerprint = target.fingerprint
    refuse_other_model(run, target_fingerprint)
    tokeniser = make_tokeniser(made_with.data, target.tokenizer, embedding_count(target.model))
    forget = in_pieces(sets["forget"].select(settings.max_examples), tokeniser)
    retain, holdout, same_person = (
        in_pieces(examples, tokeniser) if examples is not None else None for examples in (retain, holdout, same_person)
    )
    for examples in (forget, retain, holdout, same_person):
        tokeniser.encode_set(examples or ())
    model, _ = put_on(target, run / "adapter", made_with.model, reporter)
    hashes = {"target": target_fingerprint, "unlearned": f"{target_fingerprint}+{adapter_sha256(run / 'adapter')}"}
    name, base = control_of(made_with, settings)
    retain_only = None
    if name is not None:
        reporter.say(f"Loading the retain-only model {name}")
        retain_only = load_retain_only(name, base, target.model, target.tokenizer)
        hashes["retain_only"] = fingerprint(retain_only)
    reference = settings.membership.reference or target.source.base
    model.eval()
    return AuditSubject(
        model, retain_only, tokeniser, forget, retain, holdout, same_person, hashes, reference, scratch_folder
    )


def control_of(made_with: UnlearnSettings, settings: AuditSettings) -> tuple[str | None, str | None]:
    """Name and base of the retain-only model; a run that knows only its scores has no control to attack.

    Raises:
        InputError: the audit's own control is a file of scores.
    """
    if settings.retain_only is not None:
        if Path(settings.retain_only).is_file():
            raise InputError(f"retain_only '{settings.retain_only}': is a file; an audit attacks the model itself.")
        return settings.retain_only, settings.retain_only_base
    own = made_with.evaluation.retain_only
    if own is None or Path(own).is_file():
        return None, None
    return own, made_with.evaluation.retain_only_base


def audit_record(
    run: Path,
    subject: AuditSubject,
    settings: AuditSettings,
    attacks: Mapping[str, Attack],
    results: Mapping[str, AttackResult],
    costs: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """What was tested, on how many examples, with intervals, and one plain sentence."""
    return {
        "schema": SCHEMA,
        "run": run.resolve().name,
        "weights": dict(subject.hashes),
        "control": subject.retain_only is not None,
        "verdict": verdict(results),
        "scope": SCOPE,
        "attacks": {
            name: {
                "question": attacks[name].question,
                **nan_to_null({key: value for key, value in dataclasses.asdict(result).items() if key != "records"}),
                **costs[name],
            }
            for name, result in results.items()
        },
        "settings": settings.model_dump(mode="json"),
    }


def write_records(file: Path, result: AttackResult) -> None:
    """Example by example, one JSON line each; unscored becomes null."""
    lines = [json.dumps(nan_to_null(record), ensure_ascii=False, allow_nan=False) for record in result.records]
    write_text(file, "".join(f"{line}\n" for line in lines))


@contextmanager
def scratch(folder: Path):
    """Make the folder for what an attack must write, and remove it afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _optional(source: str | None) -> ExampleSet | None:
    return load_examples(source) if source is not None else None


def _data_hashes(subject: AuditSubject) -> dict[str, str]:
    sets = {"forget": subject.forget, "retain": subject.retain, "holdout": subject.holdout}
    return {f"{name}_sha256": examples.sha256() for name, examples in sets.items() if examples is not None}


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
