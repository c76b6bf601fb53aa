"""Measure models on WMDP side by side, and write the contract's evaluation.json."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from peft import PeftModel

from unlora.adapters.export import load_trained_adapter
from unlora.artifacts import file_sha256, write_json
from unlora.data.multiple_choice import questions_sha256, read_questions
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError
from unlora.evaluation.wmdp import wmdp_record
from unlora.evaluation.wmdp_scores import WmdpScores, check_comparable, load_wmdp_scores, save_wmdp_scores
from unlora.evaluation.wmdp_suite import score_wmdp, wmdp_protocol
from unlora.evaluation.wmdp_tasks import HarnessTask, load_hub_tasks, make_local_task
from unlora.models.load import fingerprint, load_model, load_tokenizer
from unlora.models.wrapping import CausalModel
from unlora.recipes.loading import load
from unlora.recipes.reporter import SILENT, Reporter
from unlora.recipes.run_folder import RunFolder
from unlora.recipes.wmdp_settings import WmdpSettings


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
    adapter = Path(settings.adapter) if settings.adapter is not None else None
    if adapter is not None and not (adapter / "adapter_config.json").is_file():
        raise InputError(f"{adapter}: no adapter_config.json; not an adapter folder.")
    if settings.retain_only is not None and Path(settings.retain_only).suffix != ".jsonl":
        load_tokenizer(settings.retain_only, base=settings.retain_only_base)  # needed last, so looked for first
    reporter.say("Loading the questions")
    tasks = _load_tasks(settings)
    reporter.say(f"Loading {settings.model.name}")
    target = load(settings.model)
    # No limit but the model's context: what does not fit it is counted, not cut.
    tokeniser = ExampleTokeniser(target.tokenizer, template=settings.template, max_length=sys.maxsize)
    protocol = _protocol(settings, tokeniser, tasks)
    _refuse_other_reference(settings, tasks, protocol)
    model = target.model if adapter is None else load_trained_adapter(target.model, adapter)
    run.start(
        model={**vars(target.source), "fingerprint": fingerprint(target.model)},
        adapter=file_sha256(adapter / "adapter_model.safetensors") if adapter is not None else None,
        data={f"{task.name}_sha256": questions_sha256(task.all_questions) for task in tasks},
    )
    with run.stage("evaluation"):
        models = _score_models(settings, run, model, tokeniser, tasks, reporter)
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


def _score_models(
    settings: WmdpSettings,
    run: RunFolder,
    model: CausalModel,
    tokeniser: ExampleTokeniser,
    tasks: Sequence[HarnessTask],
    reporter: Reporter,
) -> dict[str, WmdpScores]:
    models: dict[str, WmdpScores] = {}
    for role in ("target", "unlearned") if isinstance(model, PeftModel) else ("target",):
        with model.disable_adapter() if isinstance(model, PeftModel) and role == "target" else nullcontext():
            models[role] = _score(settings, run, model, tokeniser, tasks, role, reporter)
    if settings.retain_only is None:
        return models
    saved, own = Path(settings.retain_only), run.scores / "retain_only.jsonl"
    if saved.suffix == ".jsonl" or own.is_file():
        models["retain_only"] = load_wmdp_scores(own if own.is_file() else saved)
        return models
    reporter.say(f"Loading the retain-only model {settings.retain_only}")
    base = settings.retain_only_base
    loaded = load_model(settings.retain_only, base=base, dtype=model.dtype, device=model.device)
    models["retain_only"] = _score(settings, run, loaded.model, tokeniser, tasks, "retain_only", reporter)
    return models


def _score(
    settings: WmdpSettings,
    run: RunFolder,
    model: CausalModel,
    tokeniser: ExampleTokeniser,
    tasks: Sequence[HarnessTask],
    role: str,
    reporter: Reporter,
) -> WmdpScores:
    """Score one model, or read the scores that an interrupted evaluation has written already."""
    file = run.scores / f"{role}.jsonl"
    if file.is_file():
        return load_wmdp_scores(file)
    with reporter.task(f"WMDP: {role}", 1) as task:
        scores = score_wmdp(
            model,
            tokeniser,
            tasks,
            open_ended=settings.open_ended,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
            progress=task.update,
        )
    save_wmdp_scores(file, scores)
    return scores
