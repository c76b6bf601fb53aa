"""Score models side by side on the same questions, and write the contract's evaluation.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from unlora import processes
from unlora.artifacts import write_json
from unlora.data.long_text import document_count, in_pieces
from unlora.data.records import ExampleSet
from unlora.data.sources import load_examples
from unlora.data.tofu import companion, perturbed_version
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError
from unlora.evaluation.cache import ScoreCache, adapter_sha256
from unlora.evaluation.external_logs import read_external_log
from unlora.evaluation.open_unlearning import write_open_unlearning
from unlora.evaluation.protocols import Protocol, protocol_in_force, tokeniser_for
from unlora.evaluation.record import evaluation_record
from unlora.evaluation.scores import ModelScores, load_scores, save_scores
from unlora.evaluation.suite import score_model
from unlora.locks import alone_in_output
from unlora.models.embedded import cache_folder
from unlora.models.fingerprint import fingerprint
from unlora.models.vocabulary import embedding_count
from unlora.recipes.loading import join_processes
from unlora.recipes.reporter import SILENT, Reporter
from unlora.recipes.roles import find_adapter, load_measured, refuse_missing_reference, score_roles
from unlora.recipes.run_folder import RunFolder
from unlora.recipes.sets import make_tokeniser
from unlora.recipes.settings import DataSettings, EvaluateSettings, EvaluationSettings

SAVED_SCORES = {".jsonl": load_scores, ".json": read_external_log}
"""What may stand for a retain-only model: its scores as this program saves them, or another program's log."""


def chosen_protocol(settings: EvaluationSettings) -> Protocol:
    """The protocol that the settings name, with what they change of it."""
    return protocol_in_force(
        settings.protocol, max_examples=settings.max_examples, max_new_tokens=settings.max_new_tokens
    )


def evaluation_sets(settings: EvaluationSettings, data: DataSettings) -> dict[str, ExampleSet]:
    """Load what will be evaluated.

    TOFU's splits are swapped for their versions with perturbed answers. In the protocols of TOFU and OpenUnlearning,
    the other sets of model utility are taken from where a TOFU forget set is, as far as they are there.

    Raises:
        InputError: a set is not there, or the retain-only model is not, or its scores are of another protocol or number
            of forget examples: they are needed only after hours of work.
    """
    if not settings.skip:
        refuse_missing_reference(settings.retain_only, settings.retain_only_base, SAVED_SCORES)
    forget = settings.forget or perturbed_version(data.forget)
    retain = settings.retain or (perturbed_version(data.retain) if data.retain is not None else None)
    sources = {
        "forget": forget,
        "retain": retain or _beside(settings, forget, "retain_perturbed"),
        "real_authors": settings.real_authors or _beside(settings, forget, "real_authors_perturbed"),
        "world_facts": settings.world_facts or _beside(settings, forget, "world_facts_perturbed"),
    }
    sets = {name: load_examples(source) for name, source in sources.items() if source is not None}
    count = chosen_protocol(settings).max_examples
    sets = {name: examples if count is None else examples.select(count) for name, examples in sets.items()}
    if settings.retain_only is not None and not settings.skip:
        refuse_other_reference(settings.retain_only, sets["forget"], settings.protocol)
    return sets


def scored_roles(settings: EvaluationSettings) -> list[str]:
    """The models of an unlearning run that are asked: a retain-only one only where its scores are not given."""
    reference = settings.retain_only
    given = reference is None or Path(reference).suffix in SAVED_SCORES
    return ["target", "unlearned"] if given else ["target", "unlearned", "retain_only"]


def _beside(settings: EvaluationSettings, forget: str, split: str) -> str | None:
    return None if settings.protocol == "unlora" else companion(forget, split)


def refuse_other_reference(retain_only: str, forget_set: ExampleSet, protocol: str) -> None:
    """Refuse scores of a retain-only model by another protocol, or on another number of forget examples.

    Raises:
        InputError: with both protocols or numbers.
    """
    read = SAVED_SCORES.get(Path(retain_only).suffix)
    if read is None:
        return
    scores = read(Path(retain_only))
    other = scores.protocol.get("name", protocol)
    if other != protocol:
        advice = f"set evaluation.protocol={other}, or score that model again"
        raise InputError(f"{retain_only}: scores by protocol {other}, and here it is {protocol}; {advice}.")
    count = document_count(one.source for one in scores.sets.get("forget", ()))
    if count != len(forget_set):
        advice = "give scores on the same forget set, or set evaluation.max_examples as there"
        raise InputError(f"{retain_only}: scores of {count} forget examples, and here are {len(forget_set)}; {advice}.")


def refuse_unaskable(settings: EvaluationSettings, tokeniser: ExampleTokeniser, sets: Mapping[str, ExampleSet]) -> None:
    """Refuse what cannot be asked by the protocol, before any work.

    Raises:
        InputError: naming the example.
    """
    tokeniser = tokeniser_for(chosen_protocol(settings), tokeniser)
    for examples in sets.values():
        tokeniser.encode_set(in_pieces(examples, tokeniser))


def score(
    settings: EvaluationSettings,
    model: PreTrainedModel | PeftModel,
    tokeniser: ExampleTokeniser,
    sets: Mapping[str, ExampleSet],
    title: str,
    reporter: Reporter,
    *,
    cache: ScoreCache | None = None,
) -> ModelScores:
    """Score one model.

    Args:
        settings: the protocol and the batch size.
        model: as it is to be scored.
        tokeniser: of the run.
        sets: from `evaluation_sets`.
        title: of the progress bar.
        reporter: told how far it is.
        cache: of exactly this model; without one every set is asked.
    """
    with reporter.task(f"Evaluating {title}", 1) as task:
        return score_model(
            model,
            tokeniser,
            sets,
            protocol=chosen_protocol(settings),
            batch_size=settings.batch_size,
            cache=cache,
            progress=task.update,
        )


def evaluate_models(
    settings: EvaluationSettings,
    output: Path,
    scores_folder: Path,
    model: PreTrainedModel | PeftModel,
    tokeniser: ExampleTokeniser,
    sets: Mapping[str, ExampleSet],
    reporter: Reporter,
    *,
    base_fingerprint: str | None = None,
    adapter: Path | None = None,
) -> dict[str, Any]:
    """Score the target (adapter off), the unlearned (adapter on) and, where given, the retain-only model.

    Args:
        settings: protocol, reference and batch size.
        output: evaluation.json; what OpenUnlearning reads goes beside it, in its protocol.
        scores_folder: for ROLE.jsonl.
        model: plain, or with the unlearning adapter.
        tokeniser: of the run.
        sets: from `evaluation_sets`.
        reporter: told how far it is.
        base_fingerprint: of the plain model, where it is known already.
        adapter: folder that holds the model's adapter as it is now; without it the unlearned model's scores are not
            found again by content.
    """
    weights = base_fingerprint or fingerprint(model)
    switched_on = adapter_sha256(adapter) if adapter is not None else None

    def ask(asked: PreTrainedModel | PeftModel, role: str) -> ModelScores:
        cache = _cache(weights)
        if role == "unlearned":
            cache = _cache(weights, switched_on) if switched_on is not None else None
        elif role == "retain_only":
            cache = _cache(fingerprint(asked))
        return score(settings, asked, tokeniser, sets, role, reporter, cache=cache)

    def read_log(path: Path) -> ModelScores:
        scores = read_external_log(path)
        for note in scores.protocol.get("notes", ()):
            reporter.say(f"{path}: {note}")
        return scores

    models = score_roles(
        model,
        scores_folder,
        retain_only=settings.retain_only,
        retain_only_base=settings.retain_only_base,
        tokenizer=tokeniser.tokenizer,
        score=ask,
        save=save_scores,
        load=load_scores,
        saved_kinds=SAVED_SCORES | {".json": read_log},
        reporter=reporter,
        adapter=switched_on,
    )
    record = evaluation_record(models, protocol_of(settings, tokeniser))

    def write() -> None:
        write_json(output, record)
        if settings.protocol == "open_unlearning":
            for name, scores in models.items():
                write_open_unlearning(output.parent / "open_unlearning" / name, scores, models.get("retain_only"))

    processes.on_main(write)
    return record


def _cache(base_fingerprint: str, adapter: str | None = None) -> ScoreCache:
    return ScoreCache(cache_folder() / "scores", fingerprint=base_fingerprint, adapter=adapter)


@alone_in_output
def evaluate_checkpoint(settings: EvaluateSettings, output: Path, *, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Measure a model as it is ("target"), and with an unlearning adapter on top ("unlearned") where one is given.

    Started again with the same settings, models that were scored before are not scored again.

    Raises:
        InputError: wrong settings, data, model or adapter, or an output folder in use; nothing was written.
    """
    join_processes(settings.model)
    run = RunFolder(output, settings)
    sets = evaluation_sets(settings.evaluation, settings.data)
    adapter = find_adapter(settings.adapter)
    measured = load_measured(settings.model, adapter, reporter)
    tokeniser = make_tokeniser(settings.data, measured.target.tokenizer, embedding_count(measured.target.model))
    refuse_unaskable(settings.evaluation, tokeniser, sets)
    run.start(**measured.made_of(), data={f"{name}_sha256": examples.sha256() for name, examples in sets.items()})
    with run.stage("evaluation"):
        record = evaluate_models(
            settings.evaluation,
            run.evaluation,
            run.scores,
            measured.model,
            tokeniser,
            sets,
            reporter,
            base_fingerprint=measured.fingerprint,
            adapter=adapter,
        )
    run.finish()
    return record


def protocol_of(settings: EvaluationSettings, tokeniser: ExampleTokeniser) -> dict[str, Any]:
    """What decides the numbers beside the models and the data."""
    protocol = chosen_protocol(settings)
    return {
        **protocol.to_json(),
        "decoding": "greedy",
        "likelihood": "mean over completion tokens, end of text included",
        "template": tokeniser_for(protocol, tokeniser).describe(),
    }
