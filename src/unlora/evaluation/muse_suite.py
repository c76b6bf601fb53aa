"""Ask a model what MUSE asks (Shi et al. 2024, arXiv 2407.06460), as its own scripts do, but in batches."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from unlora.data.muse import MuseData
from unlora.data.records import Example, ExampleSet
from unlora.evaluation.muse_scores import AnswerScore, MuseScores, TextScore
from unlora.evaluation.suite import Progress
from unlora.metrics import min_k_score, rouge_l_f1
from unlora.models.generate import generate_greedy
from unlora.models.score import score_completions
from unlora.models.wrapping import CausalModel, unwrap

CONTINUATION_TOKENS = 128
"""Longest continuation, and how much of the true one it is compared with."""
ANSWER_TOKENS = 32
"""Longest answer to a question."""
ANSWER_ENDS = ("\n\n", "\nQuestion", "Question:")
"""An answer ends where the first of these begins: after demonstrations, a model goes on with the next question."""
MIN_K_FRACTION = 0.4


def score_muse(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    data: MuseData,
    *,
    batch_size: int,
    progress: Progress | None = None,
) -> MuseScores:
    """Let a model continue the verbatim prompts and answer the questions, and score the whole texts.

    Args:
        model: plain or with an adapter; adapters that are switched off stay off.
        tokenizer: the same for every model that is to be compared; adds its own special tokens, and no template.
        data: one corpus.
        batch_size: sequences in one forward pass; results do not depend on it beyond floating-point rounding. Whole
            texts are long: their logits take batch_size x tokens x vocabulary numbers.
        progress: told after every batch.
    """
    asker = _Asker(model, tokenizer, batch_size, progress)
    forget_prefix, retain_prefix = map(few_shot_prefix, (data.forget_demonstrations, data.retain_demonstrations))
    verbatim = asker.ask("continuations", data.verbatim, "", CONTINUATION_TOKENS)
    forget = asker.ask("forget questions", data.forget_questions, forget_prefix, ANSWER_TOKENS)
    retain = asker.ask("retain questions", data.retain_questions, retain_prefix, ANSWER_TOKENS)
    forget_texts = asker.score_texts("forget texts", data.forget_texts)
    holdout_texts = asker.score_texts("holdout texts", data.holdout_texts)
    protocol = {
        "corpus": data.corpus,
        "demonstrations": {"forget_questions": forget_prefix, "retain_questions": retain_prefix},
        "limits": {"continuation_tokens": CONTINUATION_TOKENS, "answer_tokens": ANSWER_TOKENS},
        "decoding": "greedy",
        "tokenizer": type(tokenizer).__name__,
        "context": asker.context,
        "batch_size": batch_size,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    return MuseScores(verbatim, forget, retain, forget_texts, holdout_texts, protocol)


def few_shot_prefix(demonstrations: ExampleSet) -> str:
    """The answered questions that stand before a question, each followed by an empty line."""
    return "".join(f"Question: {one.prompt}\nAnswer: {one.completion}\n\n" for one in demonstrations)


def question_prompt(question: str, prefix: str) -> str:
    """A question after its demonstrations; the space at the end is MUSE's."""
    return f"{prefix}Question: {question}\nAnswer: "


def cut_answer(text: str) -> str:
    """The text before the first empty line and before the next question."""
    return text[: min((place for end in ANSWER_ENDS if (place := text.find(end)) >= 0), default=len(text))]


@dataclass(frozen=True)
class _Item:
    """One prompt in tokens, with what it is compared with."""

    example: Example
    prompt_ids: list[int]
    reference_ids: list[int]
    reference: str
    prompt_cut: bool


class _Asker:
    """One model, and how it is asked."""

    def __init__(
        self, model: CausalModel, tokenizer: PreTrainedTokenizerBase, batch_size: int, progress: Progress | None
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._progress = progress
        positions = getattr(unwrap(model).config.get_text_config(), "max_position_embeddings", None)
        self.context = min(positions or sys.maxsize, int(tokenizer.model_max_length))
        candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id)
        self._pad_token_id = next((token for token in candidates if isinstance(token, int)), 0)

    def ask(self, title: str, examples: ExampleSet, prefix: str, new_tokens: int) -> tuple[AnswerScore, ...]:
        """Answer every question, or continue every prompt (shape prompt_completion), and compare."""
        items = [self._item(example, prefix, new_tokens) for example in examples]
        likelihoods = score_completions(
            self._model,
            [((item.prompt_ids + item.reference_ids)[: self.context], len(item.prompt_ids)) for item in items],
            pad_token_id=self._pad_token_id,
            batch_size=self._batch_size,
            progress=self._counter(f"scoring {title}", len(items)),
        )
        texts = generate_greedy(
            self._model,
            [item.prompt_ids for item in items],
            tokenizer=self._tokenizer,
            pad_token_id=self._pad_token_id,
            max_new_tokens=new_tokens,
            batch_size=self._batch_size,
            progress=self._counter(f"generating {title}", len(items)),
        )
        return tuple(
            _answer_score(item, text, likelihood.mean_log_prob)
            for item, text, likelihood in zip(items, texts, likelihoods, strict=True)
        )

    def score_texts(self, title: str, examples: ExampleSet) -> tuple[TextScore, ...]:
        """Score whole texts; the first token follows nothing and is not scored."""
        token_ids = [self._encode(example.completion) for example in examples]
        kept = [tokens[: self.context] for tokens in token_ids]
        scorable = [place for place, tokens in enumerate(kept) if len(tokens) > 1]
        likelihoods = score_completions(
            self._model,
            [(kept[place], 1) for place in scorable],
            pad_token_id=self._pad_token_id,
            batch_size=self._batch_size,
            progress=self._counter(f"scoring {title}", len(scorable)),
        )
        scores = dict(zip(scorable, (_min_40(one.token_log_probs) for one in likelihoods), strict=True))
        return tuple(
            TextScore(
                source=example.source,
                text=example.completion,
                token_count=max(len(kept[place]) - 1, 0),
                min_40_score=scores.get(place, math.nan),
                cut=len(kept[place]) < len(token_ids[place]),
            )
            for place, example in enumerate(examples)
        )

    def _item(self, example: Example, prefix: str, new_tokens: int) -> _Item:
        if example.shape == "prompt_completion":
            prompt = example.prompt
            # As MUSE cuts it: a start token that the tokenizer adds is one of the 128.
            reference = str(
                self._tokenizer.decode(self._encode(example.completion)[:new_tokens], skip_special_tokens=True)
            )
        else:
            prompt, reference = question_prompt(example.prompt, prefix), example.completion
        prompt_ids = self._encode(prompt)
        room = max(self.context - new_tokens, self.context // 2)
        reference_ids = self._ids(example.completion, add_special_tokens=False)[:new_tokens]
        return _Item(example, prompt_ids[-room:], reference_ids, reference, len(prompt_ids) > room)

    def _encode(self, text: str) -> list[int]:
        """Tokens with the special ones that the tokenizer adds before a text, but no end token: the text goes on."""
        token_ids = self._ids(text, add_special_tokens=True)
        ended = len(token_ids) > 1 and token_ids[-1] == self._tokenizer.eos_token_id
        return token_ids[:-1] if ended else token_ids

    def _ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        encoding: Any = self._tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)
        return list(encoding["input_ids"])

    def _counter(self, stage: str, total: int) -> Callable[[int], None]:
        done = 0

        def count(batch_count: int) -> None:
            nonlocal done
            done += batch_count
            if self._progress is not None:
                self._progress(stage, done, total)

        return count


def _answer_score(item: _Item, text: str, reference_log_prob: float) -> AnswerScore:
    lost = not math.isfinite(reference_log_prob)  # a model that gives no numbers has no most likely token either
    answered = text if item.example.shape == "prompt_completion" else cut_answer(text)
    return AnswerScore(
        source=item.example.source,
        asked=item.example.prompt,
        reference=item.reference,
        answered=answered,
        rouge_l_f1=math.nan if lost else rouge_l_f1(answered, item.reference),
        reference_log_prob=math.nan if lost else reference_log_prob,
        prompt_cut=item.prompt_cut,
    )


def _min_40(token_log_probs: Float[np.ndarray, " token"]) -> float:
    if not np.isfinite(token_log_probs).all():  # sorted last, a NaN would not be among the lowest
        return math.nan
    return min_k_score(token_log_probs, MIN_K_FRACTION, minimum_tokens=0)
