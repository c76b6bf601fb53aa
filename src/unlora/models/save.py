"""A model as a standard folder of safetensors, written whole or not at all."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlora.artifacts import flush, storage_error
from unlora.errors import InputError
from unlora.locks import entries, remove_left_locks
from unlora.models.named_class import auto_class
from unlora.models.old_readers import add_old_rope_keys, save_tokenizer
from unlora.models.quiet import quiet
from unlora.places import modes


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, card: str | None = None
) -> None:
    """Write model and tokenizer to `folder`, as `from_pretrained` of transformers 4 and 5 reads them, in its dtype.

    Args:
        model: Without an adapter (merge it first). One that was read from a GGUF file is saved too.
        tokenizer: Saved beside it.
        folder: Must not exist yet, or be empty.
        card: README.md; None for none.

    Raises:
        InputError: the folder holds something already.
        UnloraError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    with new_folder(folder) as temporary, quiet():
        clean = _without_quantiser(model)
        clean.save_pretrained(temporary)
        add_old_rope_keys(temporary, clean.config)
        save_tokenizer(tokenizer, temporary)
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; on success it becomes `folder`, on failure nothing is left behind.

    Raises:
        InputError: `folder` is a file or holds something already (also when another process was quicker).
        UnloraError: the disk is full or the folder cannot be written.
    """
    if folder.is_symlink():  # a folder can be put in the place of an empty one, not of a link to it
        folder = folder.resolve()
    try:
        if folder.exists() and not (folder.is_dir() and not entries(folder)):
            raise _taken(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise storage_error(folder, error) from None
    try:
        yield temporary
        allowed = modes()
        temporary.chmod(allowed.folder)
        for place in temporary.rglob("*"):
            place.chmod(allowed.folder if place.is_dir() else allowed.file)
            flush(place)
        flush(temporary)
        if folder.is_dir():
            remove_left_locks(folder)
        temporary.rename(folder)
        flush(folder.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _taken(folder) from None
        raise storage_error(folder, error) from None
    except SafetensorError as error:
        raise storage_error(folder, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _taken(folder: Path) -> InputError:
    return InputError(f"{folder}: exists already; give a folder that does not exist yet.")


def _without_quantiser(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model itself, or for one read from a GGUF file (which refuses to be saved) its de-quantised twin."""
    config, quantiser = model.config, getattr(model, "hf_quantizer", None)
    if quantiser is None or quantiser.is_serializable():
        return model
    clean_config = type(config).from_dict(
        {key: value for key, value in config.to_dict().items() if key != "quantization_config"}
    )
    with torch.device("meta"):  # The twin shares the model's tensors: no second copy in memory.
        twin = auto_class(clean_config).from_config(clean_config, dtype=model.dtype)
    twin.load_state_dict(model.state_dict(), assign=True)
    twin.tie_weights()
    twin.generation_config = model.generation_config
    return twin
