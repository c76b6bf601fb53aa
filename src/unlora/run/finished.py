"""What is asked of a finished run before it is used: that it is whole, and that its model is still the same."""

from pathlib import Path
from typing import Any

from unlora.artifacts import read_json_object, refuse_links_out
from unlora.config import read_yaml
from unlora.errors import InputError
from unlora.run.folder import refuse_exchanged_adapter
from unlora.run.reporter import Reporter
from unlora.run.settings import UnlearnSettings


def run_settings(run: Path, *, trust_remote_code: bool, reporter: Reporter) -> UnlearnSettings:
    """Settings of a finished run whose adapter is the one that it wrote.

    Args:
        run: its folder, which may be somebody else's.
        trust_remote_code: of the command that is running; what the run itself says of that counts for nothing.
        reporter: told where the two differ.

    Raises:
        InputError: not a run folder, one without an adapter yet, a damaged record, or another adapter.
    """
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run}: no config.yaml; not a run folder.")
    if not (run / "adapter").is_dir():
        raise InputError(f"{run}: holds no adapter yet; finish it with the command that started it.")
    refuse_changed_adapter(run)
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


def refuse_changed_adapter(run: Path) -> None:
    """Refuse a run whose adapter is not the one in its record: whatever else the folder says is about that one.

    Raises:
        InputError: no record or a damaged one, one without the adapter's hash, or another adapter.
    """
    record = read_json_object(run / "record.json")
    if not isinstance(record.get("adapter_sha256"), str):
        raise InputError(
            f"{run / 'record.json'}: names no adapter; finish the run with the command that started "
            "it, or put the record back from a copy."
        )
    refuse_exchanged_adapter(run / "adapter", record)


def refuse_other_model(run: Path, found: str) -> None:
    """Refuse a target whose weights are not those the run was made with.

    Raises:
        InputError: the fingerprints differ.
    """
    recorded = model_of(run)["fingerprint"]
    if recorded != found:
        raise InputError(
            f"{run}: made for a model with weights {recorded[:12]}, but the model at its path now has {found[:12]}."
        )


def model_of(run: Path) -> dict[str, Any]:
    """What record.json says of the target model.

    Raises:
        InputError: it says nothing of use; it was damaged.
    """
    model = read_json_object(run / "record.json").get("model")
    if not isinstance(model, dict) or not all(isinstance(model.get(key), str) for key in ("fingerprint", "dtype")):
        raise InputError(f"{run / 'record.json'}: does not say which model the run was made for; it was damaged.")
    return model
