"""Stop after the importance map."""

from functools import partial
from pathlib import Path

from unlora import processes
from unlora.artifacts import refuse_unwritable
from unlora.errors import InputError
from unlora.importance.ratio import module_score
from unlora.locks import alone_in_output
from unlora.models.vocabulary import embedding_count
from unlora.recipes.diagnostics import contrast_line, diagnose_as_measured, diagnostic_lines
from unlora.recipes.loading import join_processes, load
from unlora.recipes.reporter import SILENT, Reporter
from unlora.recipes.sets import load_sets, make_tokeniser, tokenise_sets
from unlora.recipes.settings import CONTRAST, WEIGHTED, UnlearnSettings
from unlora.recipes.starting import measure_contrast, measure_importance
from unlora.recipes.targets import choose_targets
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
    if settings.importance.initialisation not in WEIGHTED + CONTRAST:
        raise InputError(f"importance.initialisation '{settings.importance.initialisation}': measures nothing.")
    join_processes(settings.model)
    forget_set, retain_set = load_sets(settings.data, reporter)
    seed_everything(settings.seed)
    reporter.say(f"Loading the target model {settings.model.name}")
    target = load(settings.model)
    tokeniser = make_tokeniser(settings.data, target.tokenizer, embedding_count(target.model))
    sets = tokenise_sets(tokeniser, forget_set, retain_set)
    choice = choose_targets(settings, target.model)
    reporter.say(choice.reach.sentence())
    names = list(choice.targets)
    if settings.importance.initialisation in CONTRAST:
        contrast = measure_contrast(settings, target, sets, names, reporter)
        processes.on_main(partial(contrast.save, output))
        ranked = sorted(contrast, key=lambda name: float(contrast[name].input_eigenvalues[0]), reverse=True)
        return [contrast_line(contrast), "stands out most in: " + ", ".join(ranked[:5]), written(output)]
    importance = measure_importance(settings, target, sets, names, reporter, scratch=output.parent)
    processes.on_main(partial(importance.save, output))

    ranked = sorted(importance, key=lambda name: module_score(importance[name]), reverse=True)
    return [
        *diagnostic_lines(importance.metadata, diagnose_as_measured(importance)),
        "most of the forget set's share: " + ", ".join(ranked[:5]),
        written(output),
    ]


def written(output: Path) -> str:
    """Say what was written and how large it is."""
    return f"written: {output} ({output.stat().st_size / 1e6:.1f} MB)"
