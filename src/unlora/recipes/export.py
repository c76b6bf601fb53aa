"""Turn a finished run into what gets deployed."""

import shutil
from pathlib import Path
from typing import Any

from unlora.adapters.export import load_trained_adapter, read_adapter, write_adapter
from unlora.adapters.factors import concatenate, squeeze
from unlora.artifacts import read_json_object, refuse_links_out
from unlora.config import read_yaml
from unlora.errors import InputError
from unlora.locks import alone_in_output
from unlora.models.save import new_folder, save_model
from unlora.recipes.loading import base_name, load, refuse_used_folder
from unlora.recipes.reporter import SILENT, Reporter
from unlora.recipes.run_folder import refuse_exchanged_adapter
from unlora.recipes.settings import ModelSettings, UnlearnSettings

_CARD = """---
library_name: peft
base_model: {base}
---

# An adapter that unlearns, exported with unlora

Rank {rank}, for `{base}`. {how}
"""


def run_settings(run: Path, *, trust_remote_code: bool, reporter: Reporter) -> UnlearnSettings:
    """Settings of a finished run.

    Args:
        run: its folder, which may be somebody else's.
        trust_remote_code: of the command that is running; what the run itself says of that counts for nothing.
        reporter: told where the two differ.

    Raises:
        InputError: not a run folder, one without an adapter yet, or with another one than the run's.
    """
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run}: no config.yaml; not a run folder.")
    if not (run / "adapter").is_dir():
        raise InputError(f"{run}: holds no adapter yet; finish it with the command that started it.")
    record = read_json_object(run / "record.json")
    if record.get("adapter_sha256") is None:
        raise InputError(f"{run / 'record.json'}: names no adapter; finish the run with the command that started it.")
    refuse_exchanged_adapter(run / "adapter", record)
    settings = UnlearnSettings.from_mapping(read_yaml(run / "config.yaml"), where=str(run / "config.yaml"))
    if settings.model.trust_remote_code and not trust_remote_code:
        reporter.say(f"{run}: was made with --trust-remote-code; without it here, no code of the model's is run")
    return settings.model_copy(
        update={"model": settings.model.model_copy(update={"trust_remote_code": trust_remote_code})}
    )


def refuse_leading_out(run: Path, output: Path) -> None:
    """Refuse to write below a run folder, which may be somebody else's, through a link that leads out of it.

    Raises:
        InputError: naming the link.
    """
    if output.absolute().is_relative_to(run.absolute()):
        refuse_links_out(run)


def refuse_other_model(run: Path, found: str) -> None:
    """Refuse a target whose weights are not those the run was made with.

    Raises:
        InputError: the fingerprints differ.
    """
    recorded = _model_of(run)["fingerprint"]
    if recorded != found:
        raise InputError(
            f"{run}: made for a model with weights {recorded[:12]}, but the model at its path now has {found[:12]}."
        )


def _strange_links(folder: str, names: list[str]) -> list[str]:
    """Links to other places, but for the adapter's own files: a cache of the hub keeps those as links."""
    own = ("adapter_config.json", "adapter_model.safetensors", "README.md")
    return [name for name in names if (Path(folder) / name).is_symlink() and name not in own]


def _model_of(run: Path) -> dict[str, Any]:
    """What record.json says of the target model."""
    model = read_json_object(run / "record.json").get("model")
    if not isinstance(model, dict) or "fingerprint" not in model:
        raise InputError(f"{run / 'record.json'}: does not say which model the run was made for; it was damaged.")
    return model


@alone_in_output
def export_merged(run: Path, output: Path, *, trust_remote_code: bool = False, reporter: Reporter = SILENT) -> None:
    """Write one model folder with the adapter merged into the target's weights.

    A run on a base in 4 or 8 bits is merged into the full-precision weights that were rounded for it.

    Raises:
        InputError: no finished run, `output` in use, another target than the run's, or one that is there in 4 or 8
            bits only.
    """
    settings = run_settings(run, trust_remote_code=trust_remote_code, reporter=reporter)
    refuse_leading_out(run, output)
    refuse_used_folder(output)
    bits = _model_of(run).get("quantisation")
    if bits is not None and settings.model.quantisation is None:
        raise InputError(
            f"{run}: a merge needs the target in full precision, and the files of {settings.model.name} hold it in "
            f"{bits}; deploy the adapter on it (--adapter)."
        )
    reporter.say(f"Loading the target model {settings.model.name}")
    target = load(settings.model)
    refuse_other_model(run, target.fingerprint)
    if bits is not None:
        reporter.say(
            f"Loading it again in full precision to merge into: the adapter was trained and evaluated on the same "
            f"weights in {bits}, so the merged model differs by their rounding"
        )
        del target
        target = load(settings.model.model_copy(update={"quantisation": None}))
    merged = load_trained_adapter(target.model, run / "adapter").merge_and_unload()
    save_model(merged, target.tokenizer, output)


@alone_in_output
def export_adapter(
    run: Path,
    output: Path,
    *,
    rank: int | None = None,
    public_base: bool = False,
    trust_remote_code: bool = False,
    reporter: Reporter = SILENT,
) -> float:
    """Write an adapter: as trained, squeezed to a rank, or for the public base under an adapter target.

    Args:
        run: a finished run.
        output: folder to write.
        rank: squeeze to this rank by SVD; None keeps every direction.
        public_base: when the target is base + adapter, write one adapter for that base which does both.
        trust_remote_code: whether Python code that comes with the target may run; the run's own settings cannot say so.
        reporter: where words and progress go.

    Returns:
        Relative Frobenius error of the weight update that squeezing cost; 0 without it.

    Raises:
        InputError: no finished run, `output` in use, or a target that is no adapter.
    """
    settings = run_settings(run, trust_remote_code=trust_remote_code, reporter=reporter)
    refuse_leading_out(run, output)
    refuse_used_folder(output)
    if not public_base and rank is None:
        with new_folder(output) as temporary:
            shutil.copytree(run / "adapter", temporary, dirs_exist_ok=True, ignore=_strange_links)
        return 0.0
    config, factors = read_adapter(run / "adapter")
    base, how = settings.model, "Made for the target model."
    if public_base:
        target = Path(settings.model.name)
        if not (target / "adapter_config.json").is_file():
            raise InputError(f"{run}: its target '{target}' is not an adapter; there is no other base to export for.")
        target_config, target_factors = read_adapter(target)
        factors = concatenate(target_factors, factors)
        base = ModelSettings(name=settings.model.base or target_config.base_model_name_or_path or "")
        how = "The target's own adapter and the unlearning adapter in one, for the public base."
    error = 0.0
    if rank is not None:
        factors, error = squeeze(factors, rank)
        how += f" Squeezed by SVD; relative error of the weight update {error:.2e}."
    kept_rank = next(iter(factors.values())).lora_a.shape[0]
    write_adapter(
        output,
        factors,
        transposed=config.fan_in_fan_out,
        base_model=base_name(base),
        card=_CARD.format(base=base_name(base), rank=kept_rank, how=how),
    )
    return error
