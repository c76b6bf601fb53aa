"""Stop after the importance map."""

from functools import partial
from pathlib import Path

from unlora import processes
from unlora.artifacts import refuse_unwritable
from unlora.data.make_tokeniser import make_tokeniser
from unlora.errors import InputError
from unlora.locks import alone_in_output
from unlora.models.vocabulary import embedding_count
from unlora.run.loading import join_processes, load_target
from unlora.run.reporter import SILENT, Reporter
from unlora.run.sets import load_sets, tokenise_sets
from unlora.run.settings import UnlearnSettings
from unlora.run.starting import chosen_start, start_data, start_inputs
from unlora.run.targets import choose_targets, narrow_to_used
from unlora.runtime import seed_everything


@alone_in_output
def write_importance(settings: UnlearnSettings, output: Path, *, reporter: Reporter = SILENT) -> list[str]:
    """Measure importance and write it to `output`.

    Returns:
        Lines that say what was measured and where the forget set lives.

    Raises:
        InputError: wrong settings, data or model, or `output` exists.
    """
    if output.exists():
        raise InputError(f"{output}: already exists; choose another --output.")
    refuse_unwritable(output)
    start = chosen_start(settings)
    if not start.measures:
        raise InputError(f"start '{start.kind}': measures nothing.")
    join_processes(settings.model)
    forget_set, retain_set = load_sets(settings.data, reporter)
    seed_everything(settings.seed)
    target = load_target(settings.model, reporter)
    tokeniser = make_tokeniser(settings.data, target.tokenizer, embedding_count(target.model))
    sets = tokenise_sets(tokeniser, forget_set, retain_set)
    choice = choose_targets(settings.adapter, start, target.model)
    data = start_data(sets, settings.seed)
    choice = narrow_to_used(choice, settings.adapter, target.model, data, reporter)
    reporter.say(choice.reach.sentence())
    measured = start.measure(
        start_inputs(settings.adapter, target, choice.targets, data, reporter, scratch=output.parent)
    )
    if measured is None:
        raise InputError(f"start '{start.kind}': measured nothing.")
    processes.on_main(partial(measured.save, output))
    found = start.findings(measured)
    return [*found.lines, found.ranking, written(output)]


def written(output: Path) -> str:
    """Say what was written and how large it is."""
    return f"written: {output} ({output.stat().st_size / 1e6:.1f} MB)"
