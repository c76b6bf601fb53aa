"""Where the Trainer reports to beside train_log.jsonl: TensorBoard and the like, by the names that transformers has."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from unlora.errors import InputError, listed, nearest, text_in_words

TENSORBOARD_FOLDER = "TENSORBOARD_LOGGING_DIR"
"""Environment variable; without it the events would lie among the checkpoints and go with them."""


def refuse_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that there is not, or whose package is not installed.

    Raises:
        InputError: naming it, and what to install.
    """
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            hint = nearest(name, INTEGRATION_TO_CALLBACK) or f" Known: {listed(INTEGRATION_TO_CALLBACK)}."
            raise InputError(f"training.report_to: there is no tracker '{name}'.{hint}")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (RuntimeError, ImportError) as error:
            raise InputError(f"training.report_to '{name}': {text_in_words(error)}.") from None


def tracked(names: Sequence[str], run: Path) -> dict[str, Any]:
    """What `TrainingArguments` are told, and where TensorBoard is to write: into the run's own folder."""
    if "tensorboard" in names and TENSORBOARD_FOLDER not in os.environ:
        os.environ[TENSORBOARD_FOLDER] = str(run / "tensorboard")
    return {"report_to": list(names) or "none", "run_name": run.resolve().name}
