"""A model under questions: how probable it finds given answers, and what it writes itself, with progress told."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from unlora.models.generate import Writer, generate_greedy
from unlora.models.score import CompletionScore, Sequences, score_completions
from unlora.models.wrapping import CausalModel
from unlora.suites.ask import counter
from unlora.suites.suite import Progress


@dataclass(frozen=True)
class Questioner:
    """Whom a suite asks, in which tokens, and how many at a time."""

    model: CausalModel
    """Plain or with an adapter; an adapter that is switched off stays off."""
    tokenizer: PreTrainedTokenizerBase
    pad_token_id: int
    batch_size: int
    """Sequences per forward pass."""
    progress: Progress | None
    """Told after every batch."""

    def score(self, sequences: Sequences, stage: str = "scoring") -> list[CompletionScore]:
        """Score the completion of each sequence; `stage` is what the progress calls it."""
        return score_completions(
            self.model,
            sequences,
            pad_token_id=self.pad_token_id,
            batch_size=self.batch_size,
            progress=counter(self.progress, stage, len(sequences)),
        )

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        new_tokens: int | Sequence[int],
        stage: str = "generating",
        begun: Sequence[Sequence[int]] | None = None,
    ) -> list[str]:
        """Continue each prompt by the most probable tokens, at most so many; `begun` as `generate_greedy` takes it."""
        counted = counter(self.progress, stage, len(prompts))
        writer = Writer(self.model, self.tokenizer, self.pad_token_id, self.batch_size, counted)
        return generate_greedy(writer, prompts, new_tokens, begun)
