"""How MUSE puts its questions (Shi et al. 2024, arXiv 2407.06460), as its own scripts do, but in batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from unlora.data.embedded_tokens import padding, refuse_no_embedding
from unlora.data.records import Example, ExampleSet
from unlora.metrics import min_k_score, rouge_l_f1
from unlora.models.wrapping import CausalModel
from unlora.suites.muse.scores import AnswerScore, TextScore
from unlora.suites.questioner import Questioner
from unlora.suites.suite import Progress, SuiteReader

CONTINUATION_TOKENS = 128
"""Longest continuation, and how much of the true one it is compared with."""
ANSWER_TOKENS = 32
"""Longest answer to a question."""
ANSWER_ENDS = ("\n\n", "\nQuestion", "Question:")
"""An answer ends where the first of these begins: after demonstrations, a model goes on with the next question."""
MIN_K_FRACTION = 0.4


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
class Prompt:
    """One prompt in tokens, with what its answer is compared with."""

    example: Example
    prompt_ids: list[int]
    reference_ids: list[int]
    reference: str
    prompt_cut: bool

    @property
    def source(self) -> str:
        """Where it came from."""
        return self.example.source

    @property
    def identity(self) -> tuple[str, str]:
        """As of its score."""
        return self.example.prompt, self.reference

    @property
    def content(self) -> list[Any]:
        """What decides the answer and its score."""
        cut = [self.prompt_ids, self.prompt_cut, self.reference_ids]
        return [self.example.shape, self.example.prompt, self.reference, *cut]


@dataclass(frozen=True)
class WholeText:
    """One whole text in tokens."""

    example: Example
    token_ids: list[int]
    cut: bool

    @property
    def source(self) -> str:
        """Where it came from."""
        return self.example.source

    @property
    def identity(self) -> tuple[str, int]:
        """As of its score."""
        return self.example.completion, self.scored_count

    @property
    def content(self) -> list[Any]:
        """What decides the score."""
        return ["text", self.example.completion, self.token_ids, self.cut]

    @property
    def scored_count(self) -> int:
        """The first token follows nothing and is not scored."""
        return max(len(self.token_ids) - 1, 0)


class Asker:
    """A tokenizer and a context, and how a model that has them is asked."""

    def __init__(self, reader: SuiteReader, batch_size: int) -> None:
        """Fix how text becomes tokens.

        Args:
            reader: how the model reads; its tokenizer adds its own special tokens, and no template.
            batch_size: sequences in one forward pass. Whole texts are long: their logits take batch_size x tokens x
                vocabulary numbers.
        """
        self._reader = reader
        self._tokenizer = reader.tokenizer
        self._context = reader.context
        self._batch_size = batch_size
        self._pad_token_id = padding(reader.tokenizer, reader.embedding_count)

    def prompts(self, examples: ExampleSet, prefix: str, new_tokens: int) -> list[Prompt]:
        """Turn questions, or prompts to continue (shape prompt_completion), into tokens.

        Raises:
            InputError: a token that the model has no embedding for.
        """
        return [self._prompt(example, prefix, new_tokens) for example in examples]

    def texts(self, examples: ExampleSet) -> list[WholeText]:
        """Turn whole texts into tokens.

        Raises:
            InputError: as `prompts`.
        """
        encoded = [(example, self._encode(example.completion)) for example in examples]
        for example, tokens in encoded:
            self._refuse_unknown(tokens, example)
        return [WholeText(example, tokens[: self._context], len(tokens) > self._context) for example, tokens in encoded]

    def ask(
        self, model: CausalModel, items: Sequence[Prompt], new_tokens: int, progress: Progress | None
    ) -> list[AnswerScore]:
        """Answer every question, or continue every prompt, and compare."""
        asks = self._of(model, progress)
        likelihoods = asks.score(
            [((item.prompt_ids + item.reference_ids)[: self._context], len(item.prompt_ids)) for item in items]
        )
        texts = asks.answer([item.prompt_ids for item in items], new_tokens)
        return [
            _answer_score(item, text, likelihood.mean_log_prob)
            for item, text, likelihood in zip(items, texts, likelihoods, strict=True)
        ]

    def _of(self, model: CausalModel, progress: Progress | None) -> Questioner:
        return Questioner(model, self._tokenizer, self._pad_token_id, self._batch_size, progress)

    def score(self, model: CausalModel, texts: Sequence[WholeText], progress: Progress | None) -> list[TextScore]:
        """Score whole texts."""
        scorable = [place for place, text in enumerate(texts) if text.scored_count]
        likelihoods = self._of(model, progress).score([(texts[place].token_ids, 1) for place in scorable])
        scores = dict(zip(scorable, (_min_40(one.token_log_probs) for one in likelihoods), strict=True))
        return [
            TextScore(
                source=text.source,
                text=text.example.completion,
                token_count=text.scored_count,
                min_40_score=scores.get(place, math.nan),
                cut=text.cut,
            )
            for place, text in enumerate(texts)
        ]

    def _prompt(self, example: Example, prefix: str, new_tokens: int) -> Prompt:
        if example.shape == "prompt_completion":
            prompt = example.prompt
            # As MUSE cuts it: a start token that the tokenizer adds is one of the 128.
            reference = str(
                self._tokenizer.decode(self._encode(example.completion)[:new_tokens], skip_special_tokens=True)
            )
        else:
            prompt, reference = question_prompt(example.prompt, prefix), example.completion
        prompt_ids = self._encode(prompt)
        room = max(self._context - new_tokens, self._context // 2)
        reference_ids = self._ids(example.completion, add_special_tokens=False)[:new_tokens]
        self._refuse_unknown([*prompt_ids, *reference_ids], example)
        return Prompt(example, prompt_ids[-room:], reference_ids, reference, len(prompt_ids) > room)

    def _refuse_unknown(self, ids: Sequence[int], example: Example) -> None:
        refuse_no_embedding(ids, example.source, self._tokenizer, self._reader.embedding_count)

    def _encode(self, text: str) -> list[int]:
        """Tokens with the special ones that the tokenizer adds before a text, but no end token: the text goes on."""
        token_ids = self._ids(text, add_special_tokens=True)
        ended = len(token_ids) > 1 and token_ids[-1] == self._tokenizer.eos_token_id
        return token_ids[:-1] if ended else token_ids

    def _ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        encoding: Any = self._tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)
        return list(encoding["input_ids"])


def _answer_score(item: Prompt, text: str, reference_log_prob: float) -> AnswerScore:
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
