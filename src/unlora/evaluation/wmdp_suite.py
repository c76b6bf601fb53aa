"""Ask a model what WMDP asks: through the harness with the options, and without them."""

import math
from collections.abc import Sequence
from typing import Any

from unlora.data.tokenise import ExampleTokeniser
from unlora.evaluation.suite import Progress
from unlora.evaluation.wmdp_harness import HarnessAnswer, ask_harness, harness_version
from unlora.evaluation.wmdp_open_ended import OpenAnswer, ask_openly
from unlora.evaluation.wmdp_scores import QuestionScore, WmdpScores
from unlora.evaluation.wmdp_tasks import HarnessTask
from unlora.models.wrapping import CausalModel

NOT_ASKED = OpenAnswer((), None, math.nan, None)


def score_wmdp(
    model: CausalModel,
    tokeniser: ExampleTokeniser,
    tasks: Sequence[HarnessTask],
    *,
    open_ended: bool,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> WmdpScores:
    """Score every question of every task; WMDP's own also without their options, MMLU's only with them.

    Args:
        model: plain or with an adapter; an adapter that is switched off stays off. Nothing is merged.
        tokeniser: of the questions without options; the harness uses its tokenizer alone, without any template.
        tasks: loaded tasks of the harness.
        open_ended: whether to ask without options too.
        max_new_tokens: longest free answer.
        batch_size: sequences in one forward pass.
        progress: told after every batch.

    Raises:
        InputError: the chat template refuses a question.
        UnloraError: the harness gave no answer to a question.
    """
    # First what may be refused: the template is not known to fit before it has been applied.
    free_answers = {
        task.name: ask_openly(
            model,
            tokeniser,
            task.all_questions,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            progress=_named(progress, task.name),
        )
        for task in tasks
        if open_ended and _asked_openly(task)
    }
    answers = ask_harness(
        model,
        tokeniser.tokenizer,
        tasks,
        pad_token_id=tokeniser.pad_token_id,
        batch_size=batch_size,
        progress=None if progress is None else lambda done, total: progress("multiple choice", done, total),
    )
    scores = {
        name: tuple(map(_score, chosen, free_answers.get(name, [NOT_ASKED] * len(chosen))))
        for name, chosen in answers.items()
    }
    protocol = wmdp_protocol(tokeniser, tasks, open_ended=open_ended, max_new_tokens=max_new_tokens)
    run = {"batch_size": batch_size, "dtype": str(model.dtype).removeprefix("torch.")}
    return WmdpScores(scores, protocol | run)


def _score(chosen: HarnessAnswer, free: OpenAnswer) -> QuestionScore:
    question = chosen.question
    # The harness takes the first of four numbers that are none for the highest: no answer must not become "A".
    lost = not all(map(math.isfinite, chosen.letter_log_probs))
    return QuestionScore(
        source=question.source,
        question=question.question,
        choices=question.choices,
        answer=question.answer,
        letter_log_probs=tuple(value if math.isfinite(value) else math.nan for value in chosen.letter_log_probs),
        correct=math.nan if lost else chosen.correct,
        truncated=chosen.truncated,
        choice_log_probs=free.choice_log_probs,
        generated=free.generated,
        rouge_l_recall=free.rouge_l_recall,
        not_asked_openly=free.not_asked,
    )


def wmdp_protocol(
    tokeniser: ExampleTokeniser, tasks: Sequence[HarnessTask], *, open_ended: bool, max_new_tokens: int
) -> dict[str, Any]:
    """What decides the scores beside the model; what two models that are compared must share."""
    free = {
        "likelihood": "mean over the choice's tokens, end of text included",
        "decoding": "greedy",
        "max_new_tokens": max_new_tokens,
        "template": tokeniser.describe(),
    }
    return {
        "harness": {
            "name": "lm_eval",
            "version": harness_version(),
            "few_shot_examples": 0,
            "chat_template": None,
            "answer": "the letter with the highest likelihood after the question and its options",
        },
        "tasks": {task.name: task.describe() for task in tasks},
        "open_ended": free if open_ended and any(map(_asked_openly, tasks)) else None,
    }


def _asked_openly(task: HarnessTask) -> bool:
    return task.name != "mmlu"


def _named(progress: Progress | None, name: str) -> Progress | None:
    if progress is None:
        return None
    return lambda stage, done, total: progress(f"{name}, {stage}", done, total)
