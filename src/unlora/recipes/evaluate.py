"""Measure a model, with an adapter or without, by the suites that the settings name."""

import functools
from pathlib import Path
from typing import Any

from pydantic import create_model

from unlora.errors import InputError
from unlora.locks import alone_in_output
from unlora.run.folder import RunFolder
from unlora.run.loading import join_processes
from unlora.run.reporter import SILENT, Reporter
from unlora.run.roles import find_adapter, load_scored_model
from unlora.run.settings import CheckpointSettings, EvaluateSettings
from unlora.run.suites import SuiteRun, evaluate_suites, make_suites
from unlora.suites.suite import Suite, SuiteReader
from unlora.suites.tofu.suite import Tofu


@alone_in_output
def evaluate_checkpoint(settings: CheckpointSettings, output: Path, *, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Measure a model as it is ("target"), and with an unlearning adapter on top ("unlearned") where one is given.

    Writes evaluation.json, scores/ROLE.jsonl, config.yaml and record.json. Started again with the same settings, models
    that were scored before are not scored again.

    Args:
        settings: `EvaluateSettings`, or those of one suite that brings its own data, from `settings_of_one`.
        output: folder.
        reporter: where words and progress go.

    Returns:
        The content of evaluation.json.

    Raises:
        InputError: wrong settings, data, model or adapter, or an output folder in use; nothing was written.
    """
    join_processes(settings.model)
    run = RunFolder(output, settings)
    if isinstance(settings, Suite):
        suites = [SuiteRun(settings, settings.name)]
    elif isinstance(settings, EvaluateSettings):
        suites = make_suites(settings.evaluation, settings.data)
    else:
        raise InputError("settings: name no suite.")
    for one in suites:
        if not isinstance(one.suite, Tofu):
            reporter.say(f"Loading the questions of {one.label}")
        one.load()
    scored, made_of = load_scored_model(settings.model, find_adapter(settings.adapter), reporter)
    for one in suites:
        one.prepare(SuiteReader.of(scored.model, scored.tokenizer))
    run.start(**made_of, data={key: value for one in suites for key, value in one.hashes().items()})
    with run.stage("evaluation"):
        record = evaluate_suites(suites, run.evaluation, run.scores, scored, reporter)
    run.finish()
    return record


@functools.cache
def settings_of_one(kind: type[Suite]) -> type[CheckpointSettings]:
    """Settings of an evaluation by one suite that brings its own data: model, adapter, and the suite's own fields."""
    both: Any = (kind, CheckpointSettings)
    made: Any = create_model(f"{kind.__name__}Settings", __base__=both)
    return made
