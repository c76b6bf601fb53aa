"""A sweep: many runs of `unlora unlearn`, each start with as many, chosen on half of the questions, told on the rest.

FOLDER/config.yaml          what is swept, and the resolved settings that every trial starts from
FOLDER/trials.journal       Optuna's memory: a study for each start
FOLDER/trials/START/N/      the run of a trial
FOLDER/sweep.json, sweep.md the table
FOLDER/pareto.png           what is kept over the distance from the level
FOLDER/best.yaml            the best trial, for `unlora unlearn`
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unlora.artifacts import advised, refuse_unwritable, write_json, write_text
from unlora.config import read_yaml
from unlora.errors import InputError, UnloraError
from unlora.locks import alone_in_output
from unlora.recipes.sweep.picture import draw_front
from unlora.recipes.sweep.proposals import Proposals, Told, open_storage
from unlora.recipes.sweep.settings import SweepSettings, SweptStart, as_trial, swept_starts, with_parameters
from unlora.recipes.sweep.table import best_of, budgets, finished, page, trial_rows, warning
from unlora.recipes.sweep.trial import SweepTrial, run_trial
from unlora.run.output import refuse_strangers
from unlora.run.reporter import SILENT, Reporter, Task
from unlora.run.settings import UnlearnSettings
from unlora.run.side_by_side import side_by_side
from unlora.run.suites import evaluation_sets
from unlora.runtime import versions

OWN_FILES = re.compile(r"\.?(config\.yaml|trials\.journal|sweep\.(json|md)|pareto\.png|best\.yaml)(\..*)?")
"""What the folder of a sweep may hold without config.yaml: files that a kill has left half written, and no trial."""
FEWEST = 4
"""Documents of a set that can be cut in two parts of more than one."""


@alone_in_output
def sweep(settings: SweepSettings, output: Path, *, jobs: int = 1, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Run, or go on with, a sweep in the folder `output`.

    Killed and started again with the same settings, it ends as if nothing had happened; with more `trials` it goes on.

    Args:
        settings: of the sweep.
        output: its folder.
        jobs: trials at a time, each in a process.
        reporter: where words and progress go.

    Returns:
        The content of sweep.json: {"settings", "starts", "trials", "best": {"start", "trial"}, "warning", "versions"}.

    Raises:
        InputError: anything wrong with the settings, the data or the folder; nothing was written.
        UnloraError: no trial worked, or a process was killed; the folder can be gone on with.
    """
    starts = swept_starts(settings)
    _refuse_few(starts[0].base)
    _claim(output, settings, starts)
    found = _run_all(settings, starts, output, jobs, reporter)
    rows = trial_rows(found)
    best = best_of(rows)
    if best is None:
        raise UnloraError(f"no trial worked, the last: {rows[-1]['failed']}")
    bases = {start.label: start.base for start in starts}
    chosen = with_parameters(bases[best["start"]], best["parameters"], where="best")
    told = warning(rows, best)
    record = {
        "settings": settings.model_dump(mode="json"),
        "starts": budgets(rows),
        "trials": rows,
        "best": {"start": best["start"], "trial": best["trial"]},
        "warning": told,
        "versions": versions(),
    }
    title = f"# Trial {best['trial']} of start {best['start']}, the best of {len(rows)}.\n# {told}\n"
    write_text(output / "best.yaml", title + chosen.to_yaml())
    draw_front(finished(rows), best, output / "pareto.png")
    write_text(output / "sweep.md", page(rows, best))
    write_json(output / "sweep.json", record)
    return record


def _refuse_few(base: UnlearnSettings) -> None:
    """Refuse sets that leave nothing to choose by beside what is reported."""
    sets = evaluation_sets(base.evaluation, base.data)
    for name in ("forget", "retain"):
        if name not in sets or len(sets[name]) < FEWEST:
            raise InputError(
                f"evaluation.{name}: a sweep chooses on half of the {name} questions and reports on the other half, "
                f"and needs {FEWEST} or more (found {len(sets[name]) if name in sets else 'none'})."
            )


def _claim(folder: Path, settings: SweepSettings, starts: list[SweptStart]) -> None:
    """Make the folder of a sweep, or find out that it is the same one.

    Raises:
        InputError: it holds another sweep or something else, or cannot be written.
    """
    kept = folder / "config.yaml"
    if not kept.is_file():
        refuse_strangers(folder, OWN_FILES, kind="sweep")
    refuse_unwritable(folder)
    resolved = {start.label: start.base.model_dump(mode="json") for start in starts}
    described = {"sweep": settings.model_dump(mode="json"), "starts": resolved}
    if kept.is_file():
        with advised(f"put it back, remove {folder} or choose another --output"):
            before = read_yaml(kept)
        if _but_trials(before) != _but_trials(described):
            raise InputError(
                f"{folder}: holds another sweep (its config.yaml differs in more than 'trials'); choose another "
                "--output or remove it."
            )
    write_text(kept, yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=120))


def _but_trials(described: Mapping[str, Any]) -> dict[str, Any]:
    swept = described.get("sweep")
    return {**described, "sweep": {**swept, "trials": None} if isinstance(swept, Mapping) else swept}


def _run_all(
    settings: SweepSettings, starts: list[SweptStart], output: Path, jobs: int, reporter: Reporter
) -> dict[str, Any]:
    """Run round after round of all starts; returns the trials of each by its label."""
    storage = open_storage(output / "trials.journal")
    proposals = {start.label: Proposals(storage, start.label, settings) for start in starts}
    done = sum(min(len(one.finished), settings.trials) for one in proposals.values())
    if done:
        reporter.say(f"{done} of {settings.trials * len(starts)} trials are done")
    with reporter.task("Sweep, trials", settings.trials * len(starts)) as task:
        task.advance(done)
        while trials := _next_trials(proposals, starts, output):
            told = _run_round(trials, jobs, task)
            for label, one in proposals.items():
                one.tell([told[trial.start, trial.number] for trial in trials if trial.start == label])
    return {label: one.finished[: settings.trials] for label, one in proposals.items()}


def _next_trials(proposals: Mapping[str, Proposals], starts: list[SweptStart], output: Path) -> list[SweepTrial]:
    return [
        SweepTrial(
            start.label,
            proposal.number,
            as_trial(with_parameters(start.base, proposal.parameters, where=f"trial {proposal.number}")),
            output / "trials" / start.label / f"{proposal.number:03d}",
        )
        for start in starts
        for proposal in proposals[start.label].next_round()
    ]


def _run_round(trials: list[SweepTrial], jobs: int, task: Task) -> dict[tuple[str, int], Told]:
    """Run the trials of a round.

    Raises:
        InputError: all of them were refused: more likely something else is wrong than the settings of each.
    """
    told: dict[tuple[str, int], Told] = {}
    for start, number, found in side_by_side(run_trial, [(trial,) for trial in trials], jobs, what="sweep"):
        told[start, number] = found
        note = "failed" if found.values is None else f"distance {found.values[0]:.3f} kept {found.values[1]:.3f}"
        task.advance(1, f"{start} {number}: {note}")
    if all("refused" in one.user_attrs for one in told.values()):
        first = told[trials[0].start, trials[0].number]
        raise InputError(f"every trial of the round was refused; the first: {first.user_attrs['failed']}")
    return told
