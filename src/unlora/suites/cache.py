"""Scores that were worked out before, found again by content: weights, questions, and how they were asked."""

import contextlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unlora.artifacts import json_sha256, nan_to_null
from unlora.errors import InputError, UnloraError
from unlora.suites.scores import ModelScores, ScoreFile


class ScoreCache:
    """The scores of one model, a file for each set it was asked.

    Nothing that cannot be read, and nothing that was written for something else, is ever taken over; what cannot be
    written is worked out again another time.
    """

    def __init__(
        self,
        folder: Path,
        file: ScoreFile[Any],
        *,
        fingerprint: str,
        adapter: str | None,
        writes: Mapping[str, Any],
    ) -> None:
        """Say whose scores these are.

        Args:
            folder: where the files lie; made when the first is written.
            file: their kind.
            fingerprint: of the plain model's weights, from `unlora.models.fingerprint`.
            adapter: from `adapter_sha256` there; None for the model without one, or with it switched off.
            writes: from `unlora.models.generate.writing`: where its answers end.
        """
        self._folder = folder
        self._file = file
        self._model = {"fingerprint": fingerprint, "adapter": adapter, "writes": writes}

    def key(self, asked: str, how: Mapping[str, Any]) -> str:
        """Hash everything that decides scores.

        Args:
            asked: hash of the questions, of every answer to score, and of their tokens.
            how: limits, decoding, batch size and number format, ready for JSON.
        """
        version = importlib.metadata.version("unlora")
        # Files that say neither how much they hold nor its hash are not looked for.
        file = {**self._file.header, "counts": True, "sha256": True}
        content = {"asked": asked, "how": how, **self._model, "file": file, "unlora": version}
        return json_sha256(content)

    def load(self, key: str) -> tuple[Any, ...] | None:
        """Return the scores saved under `key`; None where there are none, or the file is not what it should be."""
        try:
            found = self._file.load(self._path(key))
        except InputError:
            return None
        scores = next(iter(found.sets.values()), ())
        return scores if found.protocol == self._protocol(key, scores) else None

    def save(self, key: str, name: str, scores: tuple[Any, ...]) -> None:
        """Write the scores of the set `name` atomically; a full disk or a locked folder does no harm."""
        with contextlib.suppress(UnloraError):
            self._file.save(self._path(key), ModelScores({name: scores}, self._protocol(key, scores)))

    @staticmethod
    def _protocol(key: str, scores: tuple[Any, ...]) -> dict[str, str]:
        """What a file belongs to, and a hash of what it holds: a number that was changed still reads as a number."""
        text = json.dumps([nan_to_null(asdict(score)) for score in scores])
        return {"key": key, "sha256": json_sha256(json.loads(text, parse_int=float))}  # a whole number is read as one

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.jsonl"
