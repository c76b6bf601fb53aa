"""Example scores that were worked out before, found again by content: weights, questions, and how they were asked."""

import contextlib
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlora.artifacts import file_sha256, read_json_object
from unlora.errors import InputError, UnloraError
from unlora.evaluation.scores import SCORE_FILE, ExampleScore, ModelScores, load_scores, save_scores


class ScoreCache:
    """The scores of one model, a file for each set it was asked.

    Nothing that cannot be read, and nothing that was written for something else, is ever taken over; what cannot be
    written is worked out again another time.
    """

    def __init__(self, folder: Path, *, fingerprint: str, adapter: str | None) -> None:
        """Say whose scores these are.

        Args:
            folder: where the files lie; made when the first is written.
            fingerprint: of the plain model's weights, from `unlora.models.fingerprint`.
            adapter: from `adapter_sha256`; None for the model without one, or with it switched off.
        """
        self._folder = folder
        self._model = {"fingerprint": fingerprint, "adapter": adapter}

    def key(self, asked: str, how: Mapping[str, Any]) -> str:
        """Hash everything that decides scores.

        Args:
            asked: hash of the questions, of every answer to score, and of their tokens.
            how: limits, decoding, batch size and number format, ready for JSON.
        """
        version = importlib.metadata.version("unlora")
        file = {**SCORE_FILE.header, "counts": True}  # Files that do not say how much they hold are not looked for.
        content = {"asked": asked, "how": how, **self._model, "file": file, "unlora": version}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def load(self, key: str) -> tuple[ExampleScore, ...] | None:
        """Return the scores saved under `key`; None where there are none, or the file is not what it should be."""
        try:
            found = load_scores(self._path(key))
        except InputError:
            return None
        return found.sets.get("scores") if found.protocol.get("key") == key else None

    def save(self, key: str, scores: tuple[ExampleScore, ...]) -> None:
        """Write the scores atomically; a disk that is full or a folder that cannot be written does no harm."""
        with contextlib.suppress(UnloraError):
            save_scores(self._path(key), ModelScores({"scores": scores}, {"key": key}))

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.jsonl"


def adapter_sha256(folder: Path) -> str:
    """Hash the adapter in `folder`: its tensors and its configuration (alpha scales them), but not its base's name.

    Raises:
        InputError: no adapter, or an unreadable one.
    """
    config = read_json_object(folder / "adapter_config.json")
    tensors = folder / "adapter_model.safetensors"
    if not tensors.is_file():
        raise InputError(f"{folder}: not a complete adapter (adapter_config.json and adapter_model.safetensors).")
    config.pop("base_model_name_or_path", None)
    # PEFT writes its sets, such as the target modules, in the order in which they come out, another in every process.
    config = {key: sorted(value, key=str) if isinstance(value, list) else value for key, value in config.items()}
    content = json.dumps(config, sort_keys=True) + file_sha256(tensors)
    return hashlib.sha256(content.encode()).hexdigest()
