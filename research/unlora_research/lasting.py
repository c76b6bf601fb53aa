"""What a search for the best learning rate did not look at: how much of the forgotten comes back, what else is left.

    python -m unlora_research.lasting FOLDER [--utility DATA]

FOLDER is what `unlora study ablation --output FOLDER` left. The run that the study chose for each loss, start and seed
is attacked by relearning; --utility measures TOFU's model utility of those of the first seed instead, with DATA's
held_out_perturbed.jsonl, real_authors_perturbed.json and world_facts_perturbed.json. What was measured stays in the
runs' folders and is not measured again.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas

from unlora.adapters.export import load_trained_adapter
from unlora.artifacts import read_json
from unlora.audit.settings import AuditSettings
from unlora.cli.terminal import echo
from unlora.data.records import ExampleSet
from unlora.data.sources import load_examples
from unlora.errors import InputError
from unlora.models.fingerprint import adapter_sha256
from unlora.recipes.audit import audit
from unlora.run.finished import run_settings
from unlora.run.loading import load
from unlora.run.reporter import SILENT
from unlora.run.roles import ScoredModel
from unlora.run.suites import evaluate_suites, tofu_of
from unlora_research.tables import markdown_table, read_table, spread
from unlora_research.unlearning import best_rates

UTILITY_FILES = {
    "retain": "held_out_perturbed.jsonl",
    "real_authors": "real_authors_perturbed.json",
    "world_facts": "world_facts_perturbed.json",
}


ATTACKER = "lora_5e-4"
"""One attacker for every row, so that rows can be compared."""


class Relearned(NamedTuple):
    """Share of the lost answer probability that relearning brings back beyond what it teaches the retain-only model."""

    few: float
    """After training on a tenth of the forget set, tested on the rest."""
    full: float
    """After training on the whole forget set."""


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a finished study 'ablation'")
    parser.add_argument("--utility", type=Path, metavar="DATA", help="folder with the sets of TOFU's model utility")
    options = parser.parse_args()
    try:
        runs = chosen_runs(options.folder)
        echo(relearning_table(runs) if options.utility is None else utility_table(runs, options.utility))
    except InputError as error:
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def chosen_runs(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """(loss, start) -> the runs at the learning rate that the study chose, one a seed."""
    chosen = best_rates(read_table(folder / "table.csv"), ["loss", "start"])
    runs: dict[tuple[str, str], list[Path]] = {}
    for _, row in chosen.sort_values("test_balance", ascending=False).iterrows():
        key = (str(row["loss"]), str(row["start"]))
        runs.setdefault(key, []).append(folder / "cells" / str(row["cell"]) / f"lr{row['learning_rate']:g}")
    return runs


def relearning_table(runs: Mapping[tuple[str, str], list[Path]]) -> str:
    """What comes back: mean over seeds, smallest and largest in brackets."""
    lines = []
    for (loss, start), of_seeds in runs.items():
        found = [relearned(run) for run in of_seeds]
        columns = pandas.DataFrame(found, columns=list(Relearned._fields))
        lines.append([loss.upper(), f"`{start}`", *(spread(columns[name], 2) for name in Relearned._fields)])
    return markdown_table(["loss", "start", "a tenth taught", "all taught"], lines)


def utility_table(runs: Mapping[tuple[str, str], list[Path]], data: Path) -> str:
    """Model utility of the run of the first seed of every loss and start."""
    sets = {name: load_examples(str(data / file)) for name, file in UTILITY_FILES.items()}
    lines = []
    for (loss, start), of_seeds in runs.items():
        found = utility(min(of_seeds, key=_seed), sets)
        lines.append([loss.upper(), f"`{start}`", f"{found['target']:.3f}", f"{found['unlearned']:.3f}"])
    return markdown_table(["loss", "start", "model utility of the target", "of the unlearned"], lines)


def _seed(run: Path) -> int:
    return run_settings(run, trust_remote_code=False, reporter=SILENT).seed


def relearned(run: Path) -> Relearned:
    """Attack a finished run by relearning, or read what an earlier attack found; low is good, NaN is not measured.

    Args:
        run: folder of a finished `unlora unlearn` with a retain-only model.
    """
    attackers = [f"{ATTACKER}_{lesson}" for lesson in Relearned._fields]
    asked = {"attacks": ["relearning"], "relearning": {"attackers": attackers}}
    settings = AuditSettings.from_mapping(asked, where="relearning")
    found = audit(run, settings, run / "audit")["attacks"]["relearning"]["estimates"]
    values = [found[f"{name}_excess"]["value"] for name in attackers]
    return Relearned(*(float("nan") if value is None else value for value in values))


def utility(run: Path, sets: Mapping[str, ExampleSet]) -> dict[str, float]:
    """TOFU's model utility of target and unlearned model, or what an earlier call measured; high is good.

    Args:
        run: folder of a finished `unlora unlearn`.
        sets: retain, real_authors and world_facts, with perturbed answers.

    Returns:
        "target" and "unlearned" -> model utility; NaN where it cannot be computed.
    """
    output = run / "utility.json"
    if not output.is_file():
        settings = run_settings(run, trust_remote_code=False, reporter=SILENT)
        target = load(settings.model)
        model = load_trained_adapter(target.model, run / "adapter")
        asked = settings.evaluation.model_copy(update={"retain_only": None, "max_new_tokens": None})
        suite = tofu_of(asked, settings.data)
        suite.loaded = sets
        scored = ScoredModel(model, target.tokenizer, target.fingerprint, adapter_sha256(run / "adapter"))
        evaluate_suites([suite], output, run / "utility_scores", scored, SILENT)
    models = read_json(output)["models"]
    values = {name: models[name]["metrics"]["model_utility"]["value"] for name in ("target", "unlearned")}
    return {name: float("nan") if value is None else value for name, value in values.items()}


if __name__ == "__main__":
    main()
