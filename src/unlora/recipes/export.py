"""Turn a finished run into what gets deployed, and compare what was written with what was measured."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from unlora.adapters.export import load_trained_adapter, read_adapter, write_adapter
from unlora.adapters.factors import Factors, concatenate, rank_of, squeeze
from unlora.artifacts import read_json_object
from unlora.cards.model_card import exported_card, merged_card
from unlora.cards.naming import Named, Stack, base_model, name_target, origin_of, refuse_no_hub_id
from unlora.errors import InputError, UnloraError
from unlora.locks import alone_in_output
from unlora.models.adapter_target import is_adapter, plain_base, recorded_base
from unlora.models.load import LoadedModel, load_model
from unlora.models.merge import MergeCheck, compare_logits, merge_adapter, probe_logits
from unlora.models.quantised import quantisation_of
from unlora.models.save import save_model
from unlora.run.finished import model_of, refuse_leading_out, refuse_other_model, run_settings
from unlora.run.loading import load
from unlora.run.output import refuse_used_folder
from unlora.run.reporter import SILENT, Reporter
from unlora.run.settings import ModelSettings, UnlearnSettings

EXACT = 1e-6
"""Relative error of an update up to which nothing was left out of it."""


class Exported(NamedTuple):
    """An adapter that was written."""

    rank: int
    error: float
    """Relative Frobenius error of the weight update; 0 where every direction was kept."""
    check: MergeCheck
    """The logits on a few tokens, against those of the target with the run's own adapter."""
    public_base: bool
    """Whether it belongs to the base under a target that is an adapter."""


@alone_in_output
def export_merged(
    run: Path,
    output: Path,
    *,
    base_name: str | None = None,
    trust_remote_code: bool = False,
    reporter: Reporter = SILENT,
) -> MergeCheck:
    """Write one model folder with the adapter merged into the target's weights.

    A run on a base in 4 or 8 bits is merged into the full-precision weights that were rounded for it.

    Args:
        run: a finished run.
        output: folder to write.
        base_name: hub id by which the model card calls the base.
        trust_remote_code: whether Python code that comes with the target may run; the run's own settings cannot say so.
        reporter: where words and progress go.

    Returns:
        How far the logits of what was written are from those of target and adapter, on a few tokens.

    Raises:
        InputError: no finished run, `output` in use, another target than the run's, or one that is there in 4 or 8
            bits only.
    """
    settings = run_settings(run, trust_remote_code=trust_remote_code, reporter=reporter)
    refuse_leading_out(run, output)
    refuse_used_folder(output)
    stack = named_stack(settings.model, output, base_name)
    model = model_of(run)
    bits = model.get("quantisation")
    if bits is not None and settings.model.quantisation is None:
        raise InputError(
            f"{run}: a merge needs the target in full precision, and the files of {settings.model.name} hold it in "
            f"{bits}; deploy the adapter on it (--adapter)."
        )
    target, how = load_run_target(run, settings.model, full=True, reporter=reporter)
    adapted = load_trained_adapter(target.model, run / "adapter")
    expected = probe_logits(adapted)
    merged = merge_adapter(adapted, where=str(run / "adapter")).model
    dtype, device = target.source.dtype, merged.device
    card = merged_card(settings, read_json_object(run / "record.json"), stack, dtype, how)
    save_model(merged, target.tokenizer, output, card=card)
    del merged, adapted, target
    again = load_model(str(output), dtype=getattr(torch, dtype), device=device, trust_remote_code=trust_remote_code)
    return _refuse_another(output, compare_logits(expected, probe_logits(again.model), dtype=again.model.dtype))


@alone_in_output
def export_adapter(
    run: Path,
    output: Path,
    *,
    rank: int | None = None,
    public_base: bool | None = None,
    base_name: str | None = None,
    trust_remote_code: bool = False,
    reporter: Reporter = SILENT,
) -> Exported:
    """Write a plain LoRA adapter of scaling 1 that changes the model as the run's own does.

    The update is taken apart anew, by QR and SVD in float64: of the same rank, equal up to the rounding of float32,
    and without the halves that cancel in an anchored adapter, which rounding to fewer bits would not leave cancelling.

    Args:
        run: a finished run.
        output: folder to write.
        rank: keep this many of its leading directions; None keeps all.
        public_base: when the target is base + adapter, write one adapter for that base which does both. None does so
            where it gives the same model.
        base_name: hub id by which the files call the base.
        trust_remote_code: whether Python code that comes with the target may run; the run's own settings cannot say so.
        reporter: where words and progress go.

    Raises:
        InputError: no finished run, `output` in use, a target that is no adapter, or one that is more than factors.
        UnloraError: what was written computes something else; it was removed.
    """
    settings = run_settings(run, trust_remote_code=trust_remote_code, reporter=reporter)
    refuse_leading_out(run, output)
    refuse_used_folder(output)
    config, factors = read_adapter(run / "adapter")
    below = _factors_below(run, settings.model, public_base, reporter)
    public = bool(below)
    for adapter in below:
        factors = concatenate(adapter, factors)
    factors, error = squeeze(factors, rank or rank_of(factors))

    target, how = load_run_target(run, settings.model, full=public, reporter=reporter)
    adapted = load_trained_adapter(target.model, run / "adapter")
    expected = probe_logits(adapted)
    adapted.unload()
    base = load_public_base(settings.model) if public else target
    named = named_stack(settings.model, output, base_name)
    named = Stack(named.base, ()) if public else named
    record = read_json_object(run / "record.json")
    record["model"] = {
        **record["model"], "quantisation": base.source.quantisation, "fingerprint": base.fingerprint
    }  # fmt: skip
    written = settings if not public else _in_full(settings)
    about = ["The target's own adapter and the unlearning adapter in one, for the public base." if public else how]
    about += [f"Squeezed by SVD; relative error of the weight update {error:.2e}."] if rank is not None else []
    write_adapter(
        output,
        factors,
        transposed=config.fan_in_fan_out,
        base_model=base_model(named),
        origin=origin_of(base, named),
        card=exported_card(written, record, named, rank_of(factors), about),
    )
    found = probe_logits(load_trained_adapter(base.model, output))
    check = compare_logits(expected, found, dtype=base.model.dtype, bits=quantisation_of(base.model))
    if error < EXACT:
        _refuse_another(output, check)
    return Exported(rank_of(factors), error, check, public)


def _factors_below(
    run: Path, settings: ModelSettings, public_base: bool | None, reporter: Reporter
) -> list[Mapping[str, Factors]]:
    """Factors of the adapters under the run's own, the last first; none where it is written for the target itself."""
    name, base = settings.name, settings.base
    if public_base is False or (public_base is None and not is_adapter(name)):
        return []
    if not is_adapter(name):
        raise InputError(f"{run}: its target '{name}' is not an adapter; there is no other base to export for.")
    if public_base is None and settings.quantisation is not None:
        reporter.say(
            f"Written for the target as it was measured, in {settings.quantisation}: rounded with the target's "
            "adapter in them, the weights are others than those of the public base (--public-base writes for that one)"
        )
        return []
    found = []
    try:
        while is_adapter(name):
            found.append(read_adapter(Path(name))[1])
            name, base = base or recorded_base(Path(name)), None
    except InputError as error:
        if public_base:
            raise
        reporter.say(f"Written for the target itself, not for its base: {error}")
        return []
    return found


def load_run_target(run: Path, settings: ModelSettings, *, full: bool, reporter: Reporter) -> tuple[LoadedModel, str]:
    """Load the run's target as it was, or in full precision where it was rounded for the run; say how it was got."""
    reporter.say(f"Loading the target model {settings.name}")
    target = load(settings)
    refuse_other_model(run, target.fingerprint)
    bits = settings.quantisation
    if bits is None or not full:
        return target, "Made for the target model."
    reporter.say(
        f"Loading it again in full precision to merge into: the adapter was trained and evaluated on the same "
        f"weights in {bits}, so what is written differs by their rounding"
    )
    del target
    how = f"It was trained and evaluated on the target in {bits}; these are the full-precision weights."
    return load(settings.model_copy(update={"quantisation": None})), how


def _in_full(settings: UnlearnSettings) -> UnlearnSettings:
    return settings.model_copy(update={"model": settings.model.model_copy(update={"quantisation": None})})


def load_public_base(target: ModelSettings) -> LoadedModel:
    """Load the model under every adapter, in full precision."""
    under = {"name": plain_base(target.name, target.base), "base": None, "quantisation": None}
    return load(target.model_copy(update=under))


def named_stack(model: ModelSettings, output: Path, base_name: str | None) -> Stack:
    """How files in `output` name the target, whose base may be called otherwise than it is here."""
    found = name_target(model, output)
    if base_name is None:
        return found
    refuse_no_hub_id(base_name)
    return found._replace(base=Named(base_name, base_name, base_name, found.base.licence))


def _refuse_another(output: Path, check: MergeCheck) -> MergeCheck:
    """Take back what computes something else than it was made to.

    Raises:
        UnloraError: it does; the folder was removed.
    """
    if not check.relative_difference <= check.tolerance:
        shutil.rmtree(output, ignore_errors=True)
        raise UnloraError(
            f"{output}: what was written is another model than the target with the run's adapter (the logits differ by "
            f"{check.relative_difference:.1%}, and rounding explains {check.tolerance:.2%}); it was removed."
        )
    return check
