"""What every example looks like to each membership attack: likelihoods, a reference model's, gradient norms.

Only the completion is scored, its end token included: the prompt is what the attacker has.
"""

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from unlora.artifacts import file_sha256
from unlora.audit.bench import Workbench
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject, Role
from unlora.data.records import Example, ExampleSet
from unlora.data.tokenise import TokenisedExample
from unlora.metrics.membership import (
    gradient_norm_score,
    loss_score,
    min_k_plus_plus_score,
    min_k_score,
    reference_score,
    zlib_score,
)
from unlora.models.gradients import gradient_norms
from unlora.models.load import load_model
from unlora.models.quantised import quantisation_of
from unlora.models.score import score_completions
from unlora.models.vocabulary import embedding_count

MEMBERSHIP_SCORES = {
    "loss": "LOSS",
    "zlib": "zlib",
    "min_k": "Min-K%",
    "min_k_plus_plus": "Min-K%++",
    "reference": "the reference attack",
    "gradient_norm": "the gradient norm",
}
"""Name -> how it is called in a sentence."""

LIKELIHOODS = ("token_log_probs", "vocabulary_means", "vocabulary_stds")

Scores = dict[str, Float[np.ndarray, " example"]]
"""Attack -> score of every example, members first. Higher is more member-like; NaN is unscored."""


@dataclass(frozen=True)
class Suspects:
    """Members (the forget set) and non-members (the holdout) in one row."""

    members: ExampleSet
    nonmembers: ExampleSet

    @classmethod
    def of(cls, subject: AuditSubject, settings: AuditSettings) -> "Suspects":
        """The first examples of both sets; no non-members without a holdout."""
        holdout = subject.holdout or ExampleSet("nothing", ())
        return cls(subject.forget.select(settings.max_examples), holdout.select(settings.max_examples))

    @property
    def examples(self) -> tuple[Example, ...]:
        """All of them, members first."""
        return (*self.members.examples, *self.nonmembers.examples)

    def __len__(self) -> int:
        return len(self.members) + len(self.nonmembers)

    def key(self) -> dict[str, Any]:
        """What decides a remembered result beside model, template and forget set."""
        return {"members": len(self.members), "nonmembers": self.nonmembers.sha256()}


class Steps:
    """Progress over several pieces of work, some of which are remembered and take no time."""

    def __init__(self, bench: Workbench, total: int) -> None:
        self._bench, self._total, self._done = bench, total, 0

    @contextmanager
    def piece(self, text: str, size: int) -> Iterator[Callable[[int], None]]:
        """Yield what is called with the number of examples just done; at the end all of the piece is."""
        start = self._done

        def advance(count: int) -> None:
            self._done += count
            self._bench.progress(text, self._done, self._total)

        yield advance
        self._done = start + size
        self._bench.progress(text, self._done, self._total)


def takes_gradient_norms(subject: AuditSubject, settings: AuditSettings) -> bool:
    """Whether the gradient norm is asked for and can be had: rounded weights have no gradient."""
    return settings.membership.gradient_norm and quantisation_of(subject.model) is None


def pieces(subject: AuditSubject, settings: AuditSettings) -> int:
    """How often all examples are gone through."""
    each = 1 + takes_gradient_norms(subject, settings)
    return each * len(subject.roles) + (subject.reference is not None)


def score_suspects(bench: Workbench, suspects: Suspects) -> dict[Role, Scores]:
    """Every score of every example in every model."""
    subject, chosen = bench.subject, bench.settings.membership
    steps = Steps(bench, len(suspects) * pieces(subject, bench.settings))
    tokens = subject.tokeniser.encode_set(suspects.examples)
    reference = _reference_log_probs(bench, suspects, steps) if subject.reference is not None else None
    scores: dict[Role, Scores] = {}
    for role in subject.roles:
        likelihoods = _likelihoods(bench, role, suspects, tokens, steps)
        scores[role] = _likelihood_scores(likelihoods, _scored_texts(subject, tokens), chosen.min_k_fraction)
        if reference is not None:
            pairs = zip(likelihoods, reference, strict=True)
            scores[role]["reference"] = np.array([reference_score(found[0], theirs) for found, theirs in pairs])
        if takes_gradient_norms(subject, bench.settings):
            norms = _gradient_norms(bench, role, suspects, tokens, steps)
            scores[role]["gradient_norm"] = np.array([gradient_norm_score(norm) for norm in norms])
    return scores


def _likelihoods(
    bench: Workbench, role: Role, suspects: Suspects, tokens: list[TokenisedExample], steps: Steps
) -> list[tuple[np.ndarray, ...]]:
    """Log-probability of each token, and mean and standard deviation over the vocabulary at its place."""
    with steps.piece(f"likelihoods of {role}", len(suspects)) as advance:

        def compute() -> dict[str, list[list[float]]]:
            with bench.subject.acting_as(role) as model:
                scores = score_completions(
                    model,
                    _sequences(tokens),
                    pad_token_id=bench.subject.tokeniser.pad_token_id,
                    batch_size=bench.settings.batch_size,
                    vocabulary_moments=True,
                    progress=advance,
                )
            return {name: [_listed(getattr(score, name)) for score in scores] for name in LIKELIHOODS}

        found = bench.once("membership-likelihoods", role, suspects.key(), compute)
    columns = [[np.array(values, dtype=float) for values in found[name]] for name in LIKELIHOODS]
    return list(zip(*columns, strict=True))


def _reference_log_probs(bench: Workbench, suspects: Suspects, steps: Steps) -> list[np.ndarray]:
    """Token log-probabilities of the reference model, in its own tokens; it is loaded only when not remembered."""
    subject = bench.subject
    name = subject.reference
    if name is None:
        raise LookupError("there is no reference model")
    with steps.piece(f"likelihoods of the reference model {name}", len(suspects)) as advance:

        def compute() -> list[list[float]]:
            loaded = load_model(name, dtype=subject.model.dtype, device=subject.model.device)
            own = subject.tokeniser.of_other_model(loaded.tokenizer, embedding_count(loaded.model))
            scores = score_completions(
                loaded.model,
                _sequences(own.encode_set(suspects.examples)),
                pad_token_id=own.pad_token_id,
                batch_size=bench.settings.batch_size,
                progress=advance,
            )
            del loaded
            gc.collect()
            return [_listed(score.token_log_probs) for score in scores]

        key = suspects.key() | {"reference": name, "files": _file_hashes(name)}
        found = bench.once("membership-reference", "target", key, compute)
    return [np.array(values, dtype=float) for values in found]


def _gradient_norms(
    bench: Workbench, role: Role, suspects: Suspects, tokens: list[TokenisedExample], steps: Steps
) -> list[float]:
    with steps.piece(f"gradient norms of {role}", len(suspects)) as advance:

        def compute() -> list[float]:
            with bench.subject.acting_as(role) as model:
                return gradient_norms(
                    model,
                    _sequences(tokens),
                    pad_token_id=bench.subject.tokeniser.pad_token_id,
                    progress=advance,
                )

        return bench.once("membership-gradient-norms", role, suspects.key(), compute)


def _likelihood_scores(likelihoods: list[tuple[np.ndarray, ...]], texts: list[str], fraction: float) -> Scores:
    rows: list[tuple[float, ...]] = []
    for (log_probs, means, stds), text in zip(likelihoods, texts, strict=True):
        if not all(np.isfinite(values).all() for values in (log_probs, means, stds)):
            rows.append((math.nan,) * 4)  # the lowest tokens of a text are not known while one of them is not
            continue
        rows.append(
            (
                loss_score(log_probs),
                zlib_score(log_probs, text),
                min_k_score(log_probs, fraction),
                min_k_plus_plus_score(log_probs, means, stds, fraction),
            )
        )
    columns = np.array(rows, dtype=float).T
    return dict(zip(("loss", "zlib", "min_k", "min_k_plus_plus"), columns, strict=True))


def _scored_texts(subject: AuditSubject, tokens: list[TokenisedExample]) -> list[str]:
    """The text that was scored, for its length when compressed."""
    tokenizer = subject.tokeniser.tokenizer
    return [
        str(tokenizer.decode(list(one.input_ids[one.prompt_length :]), skip_special_tokens=True)).strip()
        for one in tokens
    ]


def _sequences(tokens: list[TokenisedExample]) -> list[tuple[tuple[int, ...], int]]:
    return [(one.input_ids, one.prompt_length) for one in tokens]


def _file_hashes(name: str) -> dict[str, str]:
    """Hashes of a local model's weights; none for one from the hub, whose name says enough."""
    return {file.name: file_sha256(file) for file in sorted(Path(name).glob("*.safetensors"))}


def _listed(values: np.ndarray) -> list[float]:
    return [float(value) for value in values]
