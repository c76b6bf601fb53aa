"""Ask a model what a suite asks, set by set: what the cache has is not asked, the rest is shared over the processes."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from unlora import processes
from unlora.models.wrapping import CausalModel
from unlora.suites.cache import ScoreCache
from unlora.suites.scores import ModelScores
from unlora.suites.suite import Asked, Progress, Suite


def ask_model(
    suite: Suite,
    model: CausalModel,
    asked: Asked,
    *,
    cache: ScoreCache | None = None,
    progress: Progress | None = None,
) -> ModelScores[Any]:
    """Ask one model.

    Args:
        suite: says how, and in batches of how many; results do not depend on that beyond floating-point rounding.
        model: plain or with an adapter; adapters that are switched off stay off.
        asked: from `suite.prepare`.
        cache: of exactly this model as it is now: a set that is there is not asked again.
        progress: told after every batch.
    """
    run = {"batch_size": suite.batch_size, "dtype": str(model.dtype).removeprefix("torch.")}
    scored: dict[str, tuple[Any, ...]] = {}
    for name, questions in asked.sets.items():
        key, found = "", None
        if cache is not None:
            content = json.dumps([question.content for question in questions])
            key = cache.key(hashlib.sha256(content.encode()).hexdigest(), {**asked.deciding, **run})
            found = processes.from_main(partial(cache.load, key))
        if found is None:
            mine = processes.share(questions)
            found = tuple(processes.join_shares(suite.ask(model, asked, name, mine, within(name, progress))))
            if cache is not None:
                processes.on_main(partial(cache.save, key, name, found))
        scored[name] = tuple(
            dataclasses.replace(score, source=question.source)  # the cached one may lie in another file
            for score, question in zip(found, questions, strict=True)
        )
    return ModelScores(scored, {**asked.protocol, **run})


def within(name: str, progress: Progress | None) -> Progress | None:
    """Name the set in front of what is being done."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(f"{name}: {stage}", done, total)


def counter(progress: Progress | None, stage: str, total: int) -> Callable[[int], None] | None:
    """Turn the count of each batch into a running count."""
    if progress is None:
        return None
    done = 0

    def count(batch_count: int) -> None:
        nonlocal done
        done += batch_count
        progress(stage, done, total)

    return count
