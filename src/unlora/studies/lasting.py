"""What the search did not look at: how much of the forgotten comes back, and what else the model still knows."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from unlora.adapters.export import load_trained_adapter
from unlora.artifacts import read_json
from unlora.audit.settings import AuditSettings
from unlora.data.records import ExampleSet
from unlora.data.tokenise import ExampleTokeniser
from unlora.recipes.audit import audit
from unlora.recipes.evaluate import evaluate_models
from unlora.recipes.export import run_settings
from unlora.recipes.loading import load
from unlora.recipes.reporter import SILENT, Reporter


class Relearned(NamedTuple):
    """Share of the lost answer probability that relearning brings back beyond what it teaches the retain-only model."""

    few: float
    """After training on a tenth of the forget set, tested on the rest."""
    full: float
    """After training on the whole forget set."""


def relearned(run: Path, *, reporter: Reporter = SILENT) -> Relearned:
    """Attack a finished run by relearning, or read what an earlier attack found; low is good, NaN is not measured.

    Args:
        run: folder of a finished `unlora unlearn` with a retain-only model.
        reporter: where words and progress go.
    """
    output = run / "audit"
    settings = AuditSettings.from_mapping(
        {"attacks": ["relearning"], "relearning": {"variants": list(Relearned._fields)}}, where="relearning"
    )
    found = audit(run, settings, output, reporter=reporter)["attacks"]["relearning"]["estimates"]
    values = [found[f"{variant}_excess"]["value"] for variant in Relearned._fields]
    return Relearned(*(float("nan") if value is None else value for value in values))


def utility(run: Path, sets: Mapping[str, ExampleSet], *, reporter: Reporter = SILENT) -> dict[str, float]:
    """TOFU's model utility of target and unlearned model, or what an earlier call measured; high is good.

    Args:
        run: folder of a finished `unlora unlearn`.
        sets: retain, real_authors and world_facts, with perturbed answers.
        reporter: where words and progress go.

    Returns:
        "target" and "unlearned" -> model utility; NaN where it cannot be computed.
    """
    output = run / "utility.json"
    if not output.is_file():
        settings = run_settings(run)
        target = load(settings.model)
        tokeniser = ExampleTokeniser(
            target.tokenizer, template=settings.data.template, max_length=settings.data.max_length
        )
        model = load_trained_adapter(target.model, run / "adapter")
        asked = settings.evaluation.model_copy(update={"retain_only": None, "max_new_tokens": None})
        evaluate_models(
            asked, output, run / "utility_scores", model, tokeniser, sets, reporter, adapter=run / "adapter"
        )
    models = read_json(output)["models"]
    values = {name: models[name]["metrics"]["model_utility"]["value"] for name in ("target", "unlearned")}
    return {name: float("nan") if value is None else value for name, value in values.items()}
