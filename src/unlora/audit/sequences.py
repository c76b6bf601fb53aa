"""How probable one of the models finds any given sequences: asked once, remembered by content."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from unlora.audit.bench import Workbench
from unlora.audit.subject import Role
from unlora.models.score import score_completions

ScoredSequence = tuple[tuple[int, ...], int]
"""Token ids, and the first of them that is scored."""


def mean_log_probs(
    bench: Workbench, role: Role, sequences: Sequence[ScoredSequence], *, work: str, done: int, total: int
) -> Float[np.ndarray, " sequence"]:
    """Mean log-probability of the scored tokens, in nats a token; NaN where the model gives no finite number.

    Args:
        bench: subject, settings and memory.
        role: the model that is asked.
        sequences: each with at least one token to score.
        work: name of the work, for the memory and the progress bar.
        done: sequences done before these, for the progress bar.
        total: sequences of the whole attack.
    """
    if not sequences:
        return np.empty(0)
    finished = 0

    def count(batch_count: int) -> None:
        nonlocal finished
        finished += batch_count
        bench.progress(f"{work} on {role}", done + finished, total)

    def compute() -> list[float]:
        with bench.subject.acting_as(role) as model:
            scores = score_completions(
                model,
                sequences,
                pad_token_id=bench.subject.tokeniser.pad_token_id,
                batch_size=bench.settings.batch_size,
                progress=count,
            )
        return [score.mean_log_prob for score in scores]

    found = bench.once(work, role, {"sequences": sequences_sha256(sequences)}, compute)
    bench.progress(f"{work} on {role}", done + len(sequences), total)
    return np.array(found, dtype=float)


def sequences_sha256(sequences: Sequence[ScoredSequence]) -> str:
    """Hash of every token and of where scoring begins."""
    return hashlib.sha256(json.dumps(sequences).encode()).hexdigest()
