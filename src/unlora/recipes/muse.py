"""Measure models on MUSE side by side, and write the contract's evaluation.json."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from unlora.adapters.export import load_trained_adapter
from unlora.artifacts import file_sha256, write_json
from unlora.data.muse import MuseData, load_muse_data
from unlora.errors import InputError
from unlora.evaluation.muse import muse_record
from unlora.evaluation.muse_scores import MuseScores, load_muse_scores, save_muse_scores
from unlora.evaluation.muse_suite import score_muse
from unlora.models.load import fingerprint, load_model, load_tokenizer
from unlora.models.wrapping import CausalModel
from unlora.recipes.loading import load
from unlora.recipes.muse_settings import MuseSettings
from unlora.recipes.reporter import SILENT, Reporter
from unlora.recipes.run_folder import RunFolder


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
    adapter = Path(settings.adapter) if settings.adapter is not None else None
    if adapter is not None and not (adapter / "adapter_config.json").is_file():
        raise InputError(f"{adapter}: no adapter_config.json; not an adapter folder.")
    _refuse_missing_reference(settings)
    reporter.say(f"Loading {settings.model.name}")
    target = load(settings.model)
    model = target.model if adapter is None else load_trained_adapter(target.model, adapter)
    run.start(
        model={**vars(target.source), "fingerprint": fingerprint(target.model)},
        adapter=file_sha256(adapter / "adapter_model.safetensors") if adapter is not None else None,
        data={"corpus": data.corpus, "sha256": data.sha256()},
    )
    with run.stage("evaluation"):
        models = _score_models(settings, run, model, target.tokenizer, data, reporter)
        record = muse_record(models, {**models["target"].protocol, "max_examples": settings.max_examples})
        write_json(run.evaluation, record)
    run.finish()
    return record


def _refuse_missing_reference(settings: MuseSettings) -> None:
    """It is needed only after the other models were scored, so it is looked for before."""
    if settings.retain_only is None:
        return
    if Path(settings.retain_only).suffix == ".jsonl":
        load_muse_scores(Path(settings.retain_only))
    else:
        load_tokenizer(settings.retain_only, base=settings.retain_only_base)


def _score_models(
    settings: MuseSettings,
    run: RunFolder,
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    data: MuseData,
    reporter: Reporter,
) -> dict[str, MuseScores]:
    models: dict[str, MuseScores] = {}
    for role in ("target", "unlearned") if isinstance(model, PeftModel) else ("target",):
        with model.disable_adapter() if isinstance(model, PeftModel) and role == "target" else nullcontext():
            models[role] = _score(settings, run, model, tokenizer, data, role, reporter)
    if settings.retain_only is None:
        return models
    saved, own = Path(settings.retain_only), run.scores / "retain_only.jsonl"
    if saved.suffix == ".jsonl" or own.is_file():
        models["retain_only"] = load_muse_scores(own if own.is_file() else saved)
        return models
    reporter.say(f"Loading the retain-only model {settings.retain_only}")
    base = settings.retain_only_base
    loaded = load_model(settings.retain_only, base=base, dtype=model.dtype, device=model.device)
    models["retain_only"] = _score(settings, run, loaded.model, tokenizer, data, "retain_only", reporter)
    return models


def _score(
    settings: MuseSettings,
    run: RunFolder,
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    data: MuseData,
    role: str,
    reporter: Reporter,
) -> MuseScores:
    """Score one model, or read the scores that an interrupted evaluation has written already."""
    file = run.scores / f"{role}.jsonl"
    if file.is_file():
        return load_muse_scores(file)
    with reporter.task(f"MUSE {data.corpus}: {role}", 1) as task:
        scores = score_muse(model, tokenizer, data, batch_size=settings.batch_size, progress=task.update)
    save_muse_scores(file, scores)
    return scores
