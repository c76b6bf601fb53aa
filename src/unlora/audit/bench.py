"""Where an attack works: the subject, the settings, progress, and a memory of what was done before."""

import contextlib
import functools
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlora.artifacts import json_sha256, nan_to_null, null_to_nan, read_json, write_json
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject, Role
from unlora.errors import InputError, UnloraError
from unlora.models.generate import writing
from unlora.suites.suite import Progress

SCHEMA = 2
"""Of what the cache holds; raise it when a piece of work means something else."""


@dataclass(frozen=True, eq=False)
class Workbench:
    """What is handed to an attack."""

    subject: AuditSubject
    settings: AuditSettings
    progress: Progress
    cache: Path
    """Folder for finished pieces of work."""

    @functools.cached_property
    def _vocabulary_sha256(self) -> str:
        """Of which text is which token: two tokenizers of one class can differ in it."""
        vocabulary = self.subject.tokeniser.tokenizer.get_vocab()
        return json_sha256(vocabulary)

    def _writes(self, role: Role) -> dict[str, list[int]]:
        subject = self.subject
        model = subject.retain_only if role == "retain_only" and subject.retain_only is not None else subject.model
        return writing(model, subject.tokeniser.tokenizer)

    def once(self, work: str, role: Role, key: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """Return the result of a piece of work on one model, from the cache when it was done before.

        The result belongs to the weights of the role, where its answers end, the forget set, its tokens and their
        template, the number format, this version of unlora, and to `key`.
        So an audit that was interrupted loses one piece of work at most, and the control of one run serves all others.

        Args:
            work: name of the work.
            role: the model it is done on.
            key: whatever else decides the result: settings, hashes of other data.
            compute: does it; gives JSON values without None, in which NaN stands for unscored.
        """
        model = self.subject.model
        identity = {
            "schema": SCHEMA,
            "work": work,
            "weights": self.subject.hashes[role],
            "forget": self.subject.forget.sha256(),
            "template": self.subject.tokeniser.describe(),
            "vocabulary": self._vocabulary_sha256,
            "writes": self._writes(role),
            "unlora": importlib.metadata.version("unlora"),
            "dtype": str(model.dtype),
            "device": model.device.type,
            **key,
        }
        file = self.cache / f"{work}-{json_sha256(identity)[:32]}.json"
        with contextlib.suppress(InputError, KeyError, TypeError):  # not there, cut short or foreign: do it
            found = read_json(file)
            # What parses can still be of another kind, or of other numbers, than what was written.
            if found["sha256"] == json_sha256(found["result"]):
                return null_to_nan(found["result"])
        result = nan_to_null(compute())
        with contextlib.suppress(UnloraError):  # A disk that is full or a folder that cannot be written does no harm.
            write_json(file, {"identity": identity, "result": result, "sha256": json_sha256(result)})
        return null_to_nan(result)
