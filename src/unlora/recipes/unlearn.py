"""The main path: from two sets of text to a portable adapter that has forgotten. Read it top to bottom."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from unlora import processes
from unlora.adapters import check_output_unmoved
from unlora.adapters.export import load_trained_adapter, restore_adapter, save_trained_adapter
from unlora.cards.papers import papers
from unlora.data.make_tokeniser import make_tokeniser
from unlora.errors import FunctionMovedError
from unlora.locks import alone_in_output
from unlora.models.fingerprint import adapter_sha256, fingerprint
from unlora.models.named_class import auto_class
from unlora.models.vocabulary import embedding_count
from unlora.report import read_evaluation, write_report
from unlora.run.job import Run
from unlora.run.level import AtLevel, find_level, level_source, settle
from unlora.run.loading import join_processes, load, load_target
from unlora.run.reporter import SILENT, Reporter
from unlora.run.roles import ScoredModel
from unlora.run.sets import describe_sets, load_sets, probe_batch, tokenise_sets
from unlora.run.settings import EvaluationSettings, UnlearnSettings
from unlora.run.starting import StartRun, chosen_start, start_data
from unlora.run.suites import SuiteRun, evaluate_suites, make_suites
from unlora.run.targets import choose_targets, narrow_to_used
from unlora.run.trackers import refuse_trackers
from unlora.run.training import Lesson, data_hashes, refuse_engine, train
from unlora.runtime import seed_everything
from unlora.starts.start import Start
from unlora.suites.suite import SuiteReader


@alone_in_output
def unlearn(settings: UnlearnSettings, output: Path, *, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Run, or go on with, one unlearning run in the folder `output`.

    Started again with the same settings, finished stages are not repeated and training resumes at the last
    checkpoint; on a CPU the adapter is then the same, bit for bit.

    Returns:
        The content of evaluation.json, or an empty mapping where evaluation was skipped.

    Raises:
        InputError: anything wrong with the settings, the data, the model or the folder; nothing was written.
        UnloraError: the work failed; the folder can be resumed.
    """
    # ---- 1. The job and its folder: refused before anything is loaded ----------------------------------------
    join_processes(settings.model)
    start = StartRun(chosen_start(settings), settings.adapter)
    suites = make_suites(settings.evaluation, settings.data)
    results = results_of(start.start, suites, settings.evaluation)
    run = Run(output, settings, results=results, reporter=reporter, seed=settings.seed)
    refuse_engine(settings.model)
    refuse_trackers(settings.training.report_to)
    level_source(settings)
    lesson = Lesson(settings.objective, settings.training.trainer)
    seed_everything(run.seed)

    # ---- 2. What is read: the two sets, refusals, questions, an earlier measurement --------------------------
    forget_set, retain_set = load_sets(settings.data, reporter)
    lesson.load()
    for one in suites:
        one.load(reference=not settings.evaluation.skip)
    start.load()

    # ---- 3. The target model and its target modules; what does not fit is refused now, not after training ----
    target = load_target(settings.model, reporter)
    tokeniser = make_tokeniser(settings.data, target.tokenizer, embedding_count(target.model))
    sets = tokenise_sets(tokeniser, forget_set, retain_set)
    for one in suites:
        one.prepare(SuiteReader.of(target.model, target.tokenizer))
    lesson.refuse_unless_fits(target.model)
    lesson.answer(sets, run.seed)
    run.say(describe_sets(sets))
    choice = choose_targets(settings.adapter, start.start, target.model, settings.objective)
    choice = narrow_to_used(choice, settings.adapter, target.model, start_data(sets, run.seed), reporter)
    start.prepare(run, target, choice, sets)
    run.start(
        model={**vars(target.source), "fingerprint": target.fingerprint},
        data=data_hashes(forget_set, retain_set, lesson.refusals),
        evaluation_data={key: value for one in suites for key, value in one.hashes().items()},
    )
    if run.finished:
        return found_finished(run, settings.evaluation)
    run.say(choice.reach.sentence())
    run.record["checks"] |= target.checks
    run.write_record(
        start=start.start.model_dump(mode="json"),
        objective=lesson.objective.describe(),
        template=sets.tokeniser.describe(),
        seed=run.seed,
    )

    # ---- 4. What the start is decided by, measured on the intact model ---------------------------------------
    start.measure(run)
    choice = start.narrow(choice)
    run.write_record(reach=choice.reach.to_json(), auto_class=auto_class(target.model.config).__name__)

    # ---- 5. The adapter: it starts in chosen directions and does not move the model --------------------------
    with run.stage("initialise"):
        model, initialisation, penalty = start.attach()
        shift = check_output_unmoved(model, probe_batch(sets))
    if missed := initialisation.get("experts_not_reached"):
        run.say(f"{missed} matrices of experts, which no token of the forget set reaches, stay as they are")
    run.record["checks"]["output_at_step_0"] = shift._asdict()
    run.write_record(initialisation=initialisation)
    run.say(f"Step 0: largest logit change {shift.largest_difference:.1e} (allowed {shift.tolerance:.0e})")

    # ---- 6. Unlearn ------------------------------------------------------------------------------------------
    if run.adapter.is_dir():
        restore_adapter(model, run.adapter)
        run.say("Training was finished before; its adapter is loaded")
    else:
        run.discard_results()
        level = find_level(settings, target, sets, reporter)
        at_level = AtLevel(model, level, sets) if level is not None else None
        lesson.over_level = at_level if settings.level.stop else None
        lesson.exactly = settings.level.stop == "exactly"
        with run.stage("training"):
            stopped = train(run, settings.training, model, lesson, sets, penalty)
        if fingerprint(model) != target.fingerprint:
            raise FunctionMovedError("the base weights changed during training; the adapter is not saved.")
        run.record["checks"]["base_weights_unchanged"] = True
        settle(run, at_level, most=settings.level.most, stopped=stopped)
        run.write_record()
        save_trained_adapter(model, run.adapter, **papers(settings, run, target))
    run.write_record(adapter_sha256=adapter_sha256(run.adapter))

    # ---- 7. Evaluate: target (adapter off), unlearned (adapter on), retain-only where there is one -----------
    evaluation = {}
    if not settings.evaluation.skip:
        with run.stage("evaluation"):
            if processes.is_sharded(model):  # A model once cut into pieces stays cut: what was saved is read.
                model = load_trained_adapter(load(settings.model).model, run.adapter)
            evaluation = evaluate(run, suites, model, target.tokenizer)

    run.finish()
    processes.on_main(partial(write_report, run.path))
    return evaluation


def results_of(start: Start, suites: Sequence[SuiteRun], evaluation: EvaluationSettings) -> list[str]:
    """Files and folders that a finished run with these settings has."""
    names = ["adapter"]
    if start.measures:
        names.append("importance.safetensors")
    if not evaluation.skip:
        names += ["evaluation.json", *(file for one in suites for file in one.files())]
    return names


def found_finished(run: Run, evaluation: EvaluationSettings) -> dict[str, Any]:
    """Repeat nothing of a run that was finished before; its page is written anew."""
    run.say("This run was finished before; nothing is repeated")
    found = {} if evaluation.skip else read_evaluation(run.evaluation, run.record)
    processes.on_main(partial(write_report, run.path))
    return found


def evaluate(
    run: Run, suites: Sequence[SuiteRun], model: PeftModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Evaluate with what the run knows already: scores are found again by the hashes of base and adapter."""
    scored = ScoredModel(model, tokenizer, run.record["model"]["fingerprint"], run.record["adapter_sha256"])
    return evaluate_suites(suites, run.evaluation, run.scores, scored, run.reporter)
