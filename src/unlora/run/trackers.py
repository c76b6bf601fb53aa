"""Where the Trainer reports to beside train_log.jsonl: TensorBoard and the like, by the names that transformers has."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from unlora.errors import InputError, listed, nearest, text_in_words

TENSORBOARD_FOLDER = "TENSORBOARD_LOGGING_DIR"
"""Environment variable; without it the events would lie among the checkpoints and go with them."""

_set_here: list[str] = []
"""What an earlier run of this process has set it to (in a sweep or a sequence), which is not the user's wish."""


def refuse_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that there is not, or whose package is not installed.

    Raises:
        InputError: naming it, and what to install.
    """
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            hint = nearest(name, INTEGRATION_TO_CALLBACK) or f" Known: {listed(INTEGRATION_TO_CALLBACK)}."
            raise InputError(f"training.report_to: there is no tracker '{name}'.{hint}")
        reason = _missing(name)
        if reason is not None:
            raise InputError(f"training.report_to '{name}': {reason}.")


def _missing(name: str) -> str | None:
    with _unheard():
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (RuntimeError, ImportError) as error:
            if name == "tensorboard":  # Its own words send to a newer PyTorch, which does not bring it either.
                return "its package is not installed. Run `pip install tensorboard`"
            return text_in_words(error)
    return None


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Keep what an object says that goes before it was whole (MLflow's, without its package) off the terminal."""
    heard = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = heard


def tracked(names: Sequence[str], run: Path) -> dict[str, Any]:
    """What `TrainingArguments` are told, and where TensorBoard is to write: into the run's own folder."""
    if "tensorboard" in names and os.environ.get(TENSORBOARD_FOLDER) in (None, *_set_here):
        _set_here[:] = [str(run / "tensorboard")]
        os.environ[TENSORBOARD_FOLDER] = _set_here[0]
    return {"report_to": list(names) or "none", "run_name": run.resolve().name}
