"""Score models side by side on the same questions, and write the contract's evaluation.json."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from unlora.adapters.export import load_trained_adapter
from unlora.artifacts import file_sha256, write_json
from unlora.data.records import ExampleSet
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError
from unlora.evaluation.record import evaluation_record
from unlora.evaluation.scores import ModelScores, load_scores, save_scores
from unlora.evaluation.suite import score_model
from unlora.models.load import fingerprint, load_model, load_tokenizer
from unlora.recipes.loading import load
from unlora.recipes.reporter import SILENT, Reporter
from unlora.recipes.run_folder import RunFolder
from unlora.recipes.settings import DataSettings, EvaluateSettings, EvaluationSettings


def evaluation_sets(settings: EvaluationSettings, data: DataSettings) -> dict[str, ExampleSet]:
    """Load what will be evaluated; TOFU's splits are swapped for their versions with perturbed answers.

    Raises:
        InputError: a set is not there, or the retain-only model is not: it is needed only after hours of work.
    """
    if settings.retain_only is not None and not settings.skip:
        refuse_missing_reference(settings.retain_only, settings.retain_only_base)
    sources = {
        "forget": settings.forget or _perturbed(data.forget),
        "retain": settings.retain or (_perturbed(data.retain) if data.retain is not None else None),
        "real_authors": settings.real_authors,
        "world_facts": settings.world_facts,
    }
    return {
        name: load_examples(source).select(settings.max_examples)
        for name, source in sources.items()
        if source is not None
    }


def refuse_missing_reference(retain_only: str, base: str | None) -> None:
    """Refuse a retain-only model, or a file of its scores, that is not there.

    Raises:
        InputError: naming it.
    """
    if Path(retain_only).suffix == ".jsonl":
        load_scores(Path(retain_only))
    else:
        load_tokenizer(retain_only, base=base)


def _perturbed(source: str) -> str:
    kind, _, rest = source.partition(":")
    if kind != "tofu" or "perturbed" in rest:
        return source
    split, at, folder = rest.partition("@")
    name = "retain_perturbed" if split.startswith("retain") else f"{split}_perturbed"
    return f"tofu:{name}{at}{folder}"


def score(
    settings: EvaluationSettings,
    model: PreTrainedModel | PeftModel,
    tokeniser: ExampleTokeniser,
    sets: Mapping[str, ExampleSet],
    file: Path,
    title: str,
    reporter: Reporter,
) -> ModelScores:
    """Score one model, or read the scores that an interrupted run has written already."""
    if file.is_file():
        return load_scores(file)
    with reporter.task(f"Evaluating {title}", 1) as task:
        scores = score_model(
            model,
            tokeniser,
            sets,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
            progress=task.update,
        )
    save_scores(file, scores)
    return scores


def evaluate_models(
    settings: EvaluationSettings,
    output: Path,
    scores_folder: Path,
    model: PreTrainedModel | PeftModel,
    tokeniser: ExampleTokeniser,
    sets: Mapping[str, ExampleSet],
    reporter: Reporter,
) -> dict[str, Any]:
    """Score the target (adapter off), the unlearned (adapter on) and, where given, the retain-only model."""
    models: dict[str, ModelScores] = {}
    model.eval()
    roles = ("target", "unlearned") if isinstance(model, PeftModel) else ("target",)
    for name in roles:
        with model.disable_adapter() if isinstance(model, PeftModel) and name == "target" else nullcontext():
            models[name] = score(settings, model, tokeniser, sets, scores_folder / f"{name}.jsonl", name, reporter)
    retain_only = retain_only_scores(settings, model, tokeniser, sets, scores_folder, reporter)
    if retain_only is not None:
        models["retain_only"] = retain_only
    record = evaluation_record(models, protocol_of(settings, tokeniser))
    write_json(output, record)
    return record


def evaluate_checkpoint(settings: EvaluateSettings, output: Path, *, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Measure a model as it is ("target"), and with an unlearning adapter on top ("unlearned") where one is given.

    Started again with the same settings, models that were scored before are not scored again.

    Raises:
        InputError: wrong settings, data, model or adapter, or an output folder in use; nothing was written.
    """
    run = RunFolder(output, settings)
    sets = evaluation_sets(settings.evaluation, settings.data)
    adapter = Path(settings.adapter) if settings.adapter is not None else None
    if adapter is not None and not (adapter / "adapter_config.json").is_file():
        raise InputError(f"{adapter}: no adapter_config.json; not an adapter folder.")
    reporter.say(f"Loading {settings.model.name}")
    target = load(settings.model)
    tokeniser = ExampleTokeniser(target.tokenizer, template=settings.data.template, max_length=settings.data.max_length)
    for examples in sets.values():
        tokeniser.encode_set(examples)  # What cannot be asked is refused before anything is written.
    model = target.model if adapter is None else load_trained_adapter(target.model, adapter)
    run.start(
        model={**vars(target.source), "fingerprint": fingerprint(target.model)},
        adapter=file_sha256(adapter / "adapter_model.safetensors") if adapter is not None else None,
        data={f"{name}_sha256": examples.sha256() for name, examples in sets.items()},
    )
    with run.stage("evaluation"):
        record = evaluate_models(settings.evaluation, run.evaluation, run.scores, model, tokeniser, sets, reporter)
    run.finish()
    return record


def retain_only_scores(
    settings: EvaluationSettings,
    like: PreTrainedModel | PeftModel,
    tokeniser: ExampleTokeniser,
    sets: Mapping[str, ExampleSet],
    scores_folder: Path,
    reporter: Reporter,
) -> ModelScores | None:
    """Scores of the model that never saw the forget set: from its saved scores, or by running it."""
    if settings.retain_only is None:
        return None
    saved = Path(settings.retain_only)
    if saved.suffix == ".jsonl":
        return load_scores(saved)
    file = scores_folder / "retain_only.jsonl"
    if file.is_file():
        return load_scores(file)
    reporter.say(f"Loading the retain-only model {settings.retain_only}")
    loaded = load_model(settings.retain_only, base=settings.retain_only_base, dtype=like.dtype, device=like.device)
    return score(settings, loaded.model, tokeniser, sets, file, "retain_only", reporter)


def protocol_of(settings: EvaluationSettings, tokeniser: ExampleTokeniser) -> dict[str, Any]:
    """What decides the numbers beside the models and the data."""
    return {
        "max_examples": settings.max_examples,
        "max_new_tokens": settings.max_new_tokens,
        "decoding": "greedy",
        "likelihood": "mean over completion tokens, end of text included",
        "template": tokeniser.describe(),
    }
