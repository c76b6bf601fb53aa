"""The released arithmetic within a run: how importance is measured for `importance.arithmetic: published`."""

from unlora.errors import InputError
from unlora.importance import ImportanceMap
from unlora.importance.published import PublishedSpace, estimate_published_importance
from unlora.models.load import LoadedModel
from unlora.recipes.reporter import Reporter
from unlora.recipes.sets import Sets
from unlora.recipes.settings import UnlearnSettings


def measure_published_importance(
    settings: UnlearnSettings, target: LoadedModel, sets: Sets, target_names: list[str], reporter: Reporter
) -> ImportanceMap:
    """Measure on the whole forget set, each pass with as many retain examples drawn from the whole retain set.

    Raises:
        InputError: there is no retain set, or the forget set makes a single batch.
    """
    if sets.retain is None or sets.retain_tokens is None:
        raise InputError("importance.arithmetic 'published': needs data.retain.")
    chosen, adapter = settings.importance, settings.adapter
    space: PublishedSpace = "lora_factors" if chosen.space == "lora_factors" else "full_weights"
    with reporter.task("Importance (published)", 2 * chosen.passes * len(sets.forget_tokens)) as task:
        return estimate_published_importance(
            target.model,
            sets.forget_tokens,
            sets.retain_tokens,
            space=space,
            pad_token_id=sets.tokeniser.pad_token_id,
            target_modules=target_names,
            rank=adapter.rank,
            scaling=adapter.alpha / adapter.rank,
            probe_std=chosen.probe_std,
            passes=chosen.passes,
            batch_size=chosen.batch_size,
            accumulator_dtype=chosen.accumulator_dtype,
            seed=settings.seed,
            data_sha256=(sets.forget.sha256(), sets.retain.sha256()),
            model_fingerprint=target.fingerprint,
            progress=task.advance,
        )
