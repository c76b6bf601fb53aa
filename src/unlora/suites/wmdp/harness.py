"""A run of lm-evaluation-harness on a model that is in memory: plain, or with its adapter on or off, never merged.

The harness puts the questions as always, without a chat template and without examples: one line on the subject, the
question, the options A to D, and "Answer:". The answer is the letter with the highest likelihood.
"""

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlora.data.multiple_choice import CHOICE_COUNT, MultipleChoiceQuestion
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import UnloraError
from unlora.models.wrapping import CausalModel, evaluating, unwrap
from unlora.suites.wmdp.tasks import HarnessTask, silent_harness


@dataclass(frozen=True, slots=True)
class HarnessAnswer:
    """What the harness says about one question."""

    question: MultipleChoiceQuestion
    letter_log_probs: tuple[float, ...]
    """Log-likelihood of the letters A to D after the prompt, in nats."""
    correct: float
    """1 where the likeliest letter is the right one, else 0: the harness's `acc`."""
    truncated: bool
    """Whether the prompt lost its beginning to the model's context."""


def ask_harness(
    model: CausalModel,
    tokeniser: ExampleTokeniser,
    task: HarnessTask,
    places: Sequence[tuple[str, int]],
    *,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[HarnessAnswer]:
    """Run the harness on a model in memory; nothing is merged, copied or written.

    Args:
        model: plain or with an adapter; an adapter that is switched off stays off.
        tokeniser: whose tokenizer is given back as it was; padding comes after everything that is scored.
        task: as loaded; it can be asked again.
        places: which of its questions: the part, and the place in it from 0.
        batch_size: prompts in one forward pass. Logits take batch_size x tokens x vocabulary numbers.
        progress: called after each batch with the number of prompts done and their total.

    Returns:
        One answer a place, in order.

    Raises:
        UnloraError: the harness gave no answer to a question.
    """
    if not places:
        return []
    from lm_eval.evaluator import evaluate

    run: Any = evaluate  # its annotation is lost to a decorator

    plain, tokenizer = unwrap(model), tokeniser.tokenizer
    chosen: dict[str, list[int]] = {}
    for part, place in places:
        chosen.setdefault(part, []).append(place)
    with silent_harness(), evaluating(plain), _padded(tokenizer, tokeniser.pad_token_id):
        with _as_it_is(plain):
            language_model = _language_model(plain, tokenizer, batch_size, progress)
        results = run(
            language_model,
            {"tasks": {part: task.parts[part] for part in chosen}},
            samples=chosen,
            bootstrap_iters=0,
            log_samples=True,
        )
    if results is None:
        raise UnloraError("lm_eval: gave no results.")
    samples = {(part, sample["doc_id"]): sample for part, ones in results["samples"].items() for sample in ones}
    cut = language_model.truncated_contexts
    return [_answer(task, place, samples.get(place), cut) for place in places]


def harness_version() -> str:
    """The version of the installed package lm_eval."""
    return importlib.metadata.version("lm_eval")


def _answer(task: HarnessTask, place: tuple[str, int], sample: Any, truncated_contexts: set[str]) -> HarnessAnswer:
    part, number = place
    if sample is None or len(sample["filtered_resps"]) != CHOICE_COUNT:
        raise UnloraError(f"lm_eval: gave no answer to question {number + 1} of {part}.")
    return HarnessAnswer(
        task.questions[part][number],
        tuple(float(log_prob) for log_prob, _ in sample["filtered_resps"]),
        float(sample["acc"]),
        sample["arguments"][0][0] in truncated_contexts,
    )


def _language_model(
    model: Any, tokenizer: PreTrainedTokenizerBase, batch_size: int, progress: Callable[[int, int], None] | None
) -> Any:
    from lm_eval.models.huggingface import HFLM

    base: Any = HFLM  # its annotation is lost to a decorator

    class InMemoryModel(base):
        """The harness's own Hugging Face model: reports progress, and which prompts were too long."""

        def __init__(self) -> None:
            super().__init__(model, backend="causal", tokenizer=tokenizer, batch_size=batch_size)
            self.truncated_contexts: set[str] = set()
            self._done = self._total = 0

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(
            self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None
        ) -> Any:
            for (context, _), context_tokens, answer_tokens in requests:
                if len(context_tokens) + len(answer_tokens) > self.max_length + 1:
                    self.truncated_contexts.add(context)
            # The harness runs prompts that differ in the last token only (the letters) once.
            self._total = len({(*context, *answer[:-1]) for _, context, answer in requests})
            return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

        def _model_call(self, inps: Any, *args: Any, **options: Any) -> Any:
            logits = super()._model_call(inps, *args, **options)
            self._done += len(inps)
            if progress is not None:
                progress(self._done, self._total)
            return logits

    return InMemoryModel()


@contextmanager
def _as_it_is(model: PreTrainedModel) -> Iterator[None]:
    """The harness ties a model's weights anew, which fails where the head is wrapped in LoRA; they are tied already."""
    model.tie_weights = lambda *_, **__: None
    try:
        yield
    finally:
        del model.tie_weights  # the class's own shows again


@contextmanager
def _padded(tokenizer: PreTrainedTokenizerBase, pad_token_id: int) -> Iterator[None]:
    """The harness gives a tokenizer without a pad token one, in the worst case a new one: lend it ours."""
    own = tokenizer.pad_token
    if own is None:
        tokenizer.pad_token_id = pad_token_id
    try:
        yield
    finally:
        tokenizer.pad_token = own
