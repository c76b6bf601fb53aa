"""Measure models on WMDP side by side, and write the contract's evaluation.json."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlora.artifacts import write_json
from unlora.data.multiple_choice import questions_sha256, read_questions
from unlora.data.tokenise import ExampleTokeniser
from unlora.evaluation.wmdp import wmdp_record
from unlora.evaluation.wmdp_scores import WmdpScores, check_comparable, load_wmdp_scores, save_wmdp_scores
from unlora.evaluation.wmdp_suite import score_wmdp, wmdp_protocol
from unlora.evaluation.wmdp_tasks import HarnessTask, load_hub_tasks, make_local_task
from unlora.locks import alone_in_output
from unlora.models.vocabulary import embedding_count
from unlora.models.wrapping import CausalModel
from unlora.recipes.reporter import SILENT, Reporter
from unlora.recipes.roles import find_adapter, load_measured, refuse_missing_reference, score_roles
from unlora.recipes.run_folder import RunFolder
from unlora.recipes.wmdp_settings import WmdpSettings

SAVED_SCORES = {".jsonl": load_wmdp_scores}
"""What may stand for a retain-only model."""


@alone_in_output
def evaluate_wmdp(settings: WmdpSettings, output: Path, *, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Measure a model as it is ("target"), with an unlearning adapter on top ("unlearned"), and the retain-only model.

    Writes evaluation.json, scores/ROLE.jsonl, config.yaml and record.json. Started again with the same settings, models
    that were scored before are not scored again.

    Returns:
        The content of evaluation.json.

    Raises:
        InputError: wrong settings, questions, model or adapter, the harness not installed, the hub not reachable, or an
            output folder in use; nothing was written.
    """
    run = RunFolder(output, settings)
    adapter = find_adapter(settings.adapter)
    refuse_missing_reference(settings.retain_only, settings.retain_only_base, SAVED_SCORES)
    reporter.say("Loading the questions")
    tasks = _load_tasks(settings)
    measured = load_measured(settings.model, adapter, reporter)
    # No limit but the model's context: what does not fit it is counted, not cut.
    tokeniser = ExampleTokeniser(
        measured.target.tokenizer,
        template=settings.template,
        chat_template=settings.chat_template,
        template_arguments=settings.template_arguments,
        max_length=sys.maxsize,
        embedding_count=embedding_count(measured.target.model),
    )
    protocol = _protocol(settings, tokeniser, tasks)
    _refuse_other_reference(settings, tasks, protocol)
    run.start(
        **measured.made_of(), data={f"{task.name}_sha256": questions_sha256(task.all_questions) for task in tasks}
    )

    def score(model: CausalModel, role: str) -> WmdpScores:
        with reporter.task(f"WMDP: {role}", 1) as task:
            return score_wmdp(
                model,
                tokeniser,
                tasks,
                open_ended=settings.open_ended,
                max_new_tokens=settings.max_new_tokens,
                batch_size=settings.batch_size,
                progress=task.update,
            )

    with run.stage("evaluation"):
        models = score_roles(
            measured.model,
            run.scores,
            retain_only=settings.retain_only,
            retain_only_base=settings.retain_only_base,
            tokenizer=tokeniser.tokenizer,
            score=score,
            save=save_wmdp_scores,
            load=load_wmdp_scores,
            saved_kinds=SAVED_SCORES,
            reporter=reporter,
            adapter=measured.adapter_sha256,
        )
        record = wmdp_record(models, {**protocol, "max_examples": settings.max_examples})
        write_json(run.evaluation, record)
    run.finish()
    return record


def _load_tasks(settings: WmdpSettings) -> tuple[HarnessTask, ...]:
    if settings.file is None:
        return load_hub_tasks(settings.tasks, max_examples=settings.max_examples)
    questions = read_questions(Path(settings.file))[: settings.max_examples]
    return (make_local_task(questions, subject=settings.subject),)


def _protocol(settings: WmdpSettings, tokeniser: ExampleTokeniser, tasks: Sequence[HarnessTask]) -> dict[str, Any]:
    return wmdp_protocol(tokeniser, tasks, open_ended=settings.open_ended, max_new_tokens=settings.max_new_tokens)


def _refuse_other_reference(settings: WmdpSettings, tasks: Sequence[HarnessTask], protocol: dict[str, Any]) -> None:
    """Saved scores of a retain-only model are of use only if it was asked the same."""
    if settings.retain_only is not None and Path(settings.retain_only).suffix == ".jsonl":
        saved = load_wmdp_scores(Path(settings.retain_only))
        check_comparable(saved, {task.name: task.all_questions for task in tasks}, protocol)
