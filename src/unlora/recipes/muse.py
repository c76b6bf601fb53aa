"""Measure models on MUSE side by side, and write the contract's evaluation.json."""

from pathlib import Path
from typing import Any

from unlora.artifacts import write_json
from unlora.data.muse import load_muse_data
from unlora.evaluation.muse import muse_record
from unlora.evaluation.muse_scores import MuseScores, load_muse_scores, save_muse_scores
from unlora.evaluation.muse_suite import score_muse
from unlora.locks import alone_in_output
from unlora.models.wrapping import CausalModel
from unlora.recipes.muse_settings import MuseSettings
from unlora.recipes.reporter import SILENT, Reporter
from unlora.recipes.roles import find_adapter, load_measured, refuse_missing_reference, score_roles
from unlora.recipes.run_folder import RunFolder

SAVED_SCORES = {".jsonl": load_muse_scores}
"""What may stand for a retain-only model."""


@alone_in_output
def evaluate_muse(settings: MuseSettings, output: Path, *, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Measure a model as it is ("target"), with an unlearning adapter on top ("unlearned"), and the retain-only model.

    Writes evaluation.json, scores/ROLE.jsonl, config.yaml and record.json. Started again with the same settings, models
    that were scored before are not scored again.

    Returns:
        The content of evaluation.json.

    Raises:
        InputError: wrong settings, data, model or adapter, or an output folder in use; nothing was written.
    """
    run = RunFolder(output, settings)
    data = load_muse_data(settings.corpus, Path(settings.folder) if settings.folder is not None else None)
    data = data.select(settings.max_examples)
    adapter = find_adapter(settings.adapter)
    refuse_missing_reference(settings.retain_only, settings.retain_only_base, SAVED_SCORES)
    measured = load_measured(settings.model, adapter, reporter)
    run.start(**measured.made_of(), data={"corpus": data.corpus, "sha256": data.sha256()})

    def score(model: CausalModel, role: str) -> MuseScores:
        with reporter.task(f"MUSE {data.corpus}: {role}", 1) as task:
            return score_muse(
                model, measured.target.tokenizer, data, batch_size=settings.batch_size, progress=task.update
            )

    with run.stage("evaluation"):
        models = score_roles(
            measured.model,
            run.scores,
            retain_only=settings.retain_only,
            retain_only_base=settings.retain_only_base,
            tokenizer=measured.target.tokenizer,
            score=score,
            save=save_muse_scores,
            load=load_muse_scores,
            saved_kinds=SAVED_SCORES,
            reporter=reporter,
            adapter=measured.adapter_sha256,
        )
        record = muse_record(models, {**models["target"].protocol, "max_examples": settings.max_examples})
        write_json(run.evaluation, record)
    run.finish()
    return record
