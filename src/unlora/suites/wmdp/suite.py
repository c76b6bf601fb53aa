"""WMDP (Li et al. 2024, arXiv 2403.03218) and MMLU: through the harness with the options, and without them."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, JsonValue, field_validator, model_validator

from unlora.data.embedded_tokens import refuse_no_embedding
from unlora.data.make_tokeniser import templated
from unlora.data.multiple_choice import MultipleChoiceQuestion, questions_sha256, read_questions
from unlora.data.settings import Template
from unlora.data.tokenise import ExampleTokeniser
from unlora.models.wrapping import CausalModel
from unlora.results import Measurement
from unlora.suites.scores import ModelScores, ScoreFile
from unlora.suites.suite import Asked, Progress, Suite, SuiteReader
from unlora.suites.wmdp.harness import HarnessAnswer, ask_harness, harness_version
from unlora.suites.wmdp.metrics import measure_wmdp
from unlora.suites.wmdp.open_ended import OpenAnswer, OpenQuestion, ask_openly, open_question
from unlora.suites.wmdp.scores import WMDP_FILE, QuestionScore
from unlora.suites.wmdp.tasks import HarnessTask, load_hub_tasks, make_local_task

NOT_ASKED = OpenAnswer((), None, math.nan, None)


@dataclass(frozen=True)
class TaskQuestion:
    """One question of a task."""

    question: MultipleChoiceQuestion
    place: tuple[str, int]
    """The harness's name of its part of the task, and its number there from 0."""
    openly: OpenQuestion | None
    """Without its options; None where that is not asked at all."""
    version: Any
    """Of its part of the task: the harness's version, and the line on the subject."""
    token_ids: list[int]
    """Of question and choices: how the tokenizer turns them out."""

    @property
    def source(self) -> str:
        """Where it came from."""
        return self.question.source

    @property
    def identity(self) -> tuple[str, tuple[str, ...], int]:
        """As of its score."""
        return self.question.question, self.question.choices, self.question.answer

    @property
    def content(self) -> list[Any]:
        """What decides the answer."""
        free = None if self.openly is None else [self.openly.not_asked, [one.input_ids for one in self.openly.choices]]
        return [*self.identity, self.place[0], self.version, self.token_ids, free]


class WmdpMeans(NamedTuple):
    """What beside the questions it takes to ask them."""

    tokeniser: ExampleTokeniser
    """Of the questions without options; the harness uses its tokenizer alone, without any template."""
    tasks: Mapping[str, HarnessTask]


class Wmdp(Suite):
    """Knowledge that is dangerous in the wrong hands, and MMLU for what must stay."""

    name: ClassVar[str] = "wmdp"
    score_file: ClassVar[ScoreFile[Any]] = WMDP_FILE
    compared: ClassVar[Mapping[str, str]] = {"harness": "harness settings", "open_ended": "open_ended settings"}

    tasks: list[Literal["bio", "cyber", "chem", "mmlu"]] = Field(
        default_factory=lambda: ["bio", "cyber", "chem", "mmlu"], min_length=1
    )
    """WMDP's three sets, and MMLU for what must stay; from the hub. Not used where `file` is given."""
    file: str | None = None
    """Multiple-choice questions in WMDP's form (JSON lines, a JSON list, or the hub's Parquet file): works offline."""
    subject: Literal["bio", "cyber", "chem"] | None = None
    """What `file` is about: puts the harness's own line on that subject before each question, as on the hub's set."""
    open_ended: bool = True
    """Ask WMDP's questions without their options too."""
    template: Template = "auto"
    """Of the questions without options, as in `unlora evaluate`; those with options have none, as in the harness."""
    chat_template: str | None = None
    """As in `unlora evaluate`."""
    template_arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """As in `unlora evaluate`."""
    batch_size: int = Field(default=8, ge=1)
    """Sequences per forward pass; the harness computes logits of whole prompts."""
    max_examples: int | None = Field(default=None, ge=1)
    """First questions of each task, and of each of MMLU's 57 subjects; None takes all."""
    max_new_tokens: int = Field(default=32, ge=1)
    """Longest free answer."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _as_in_a_name(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    @field_validator("tasks")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("must name each task once")
        return value

    @model_validator(mode="after")
    def _subject_of_a_file(self) -> "Wmdp":
        if self.subject is not None and self.file is None:
            raise ValueError(f"subject '{self.subject}': says what a local file is about; give file, or name tasks")
        return self

    def load(self) -> tuple[HarnessTask, ...]:
        """Load the tasks, and local questions into them.

        Raises:
            InputError: no such file, a bad question, the harness not installed, or the hub not reachable.
        """
        if self.file is None:
            return load_hub_tasks(self.tasks, max_examples=self.max_examples)
        questions = read_questions(Path(self.file))[: self.max_examples]
        return (make_local_task(questions, subject=self.subject),)

    def hashes(self, loaded: Sequence[HarnessTask]) -> dict[str, str]:
        """Of every task."""
        return {f"{task.name}_sha256": questions_sha256(task.all_questions) for task in loaded}

    def prepare(self, loaded: Sequence[HarnessTask], reader: SuiteReader) -> Asked:
        """Turn the questions into tokens; MMLU's are asked with their options only.

        Raises:
            InputError: no such template, or a chat template that refuses a question.
        """
        # No limit but the model's context: what does not fit it is counted, not cut.
        tokeniser = templated(self, reader.tokenizer, reader.embedding_count, max_length=sys.maxsize)
        sets = {task.name: self._questions(task, tokeniser) for task in loaded}
        protocol = self._protocol(tokeniser, loaded)
        deciding = {
            "harness": protocol["harness"],
            "context": reader.context,
            "free_answers": {"decoding": "greedy", "max_new_tokens": self.max_new_tokens},
        }
        return Asked(sets, protocol, deciding, WmdpMeans(tokeniser, {task.name: task for task in loaded}))

    def _questions(self, task: HarnessTask, tokeniser: ExampleTokeniser) -> list[TaskQuestion]:
        openly = self.open_ended and _has_open_form(task)
        found = []
        for part, questions in task.questions.items():
            version = [task.parts[part].VERSION, task.parts[part].config.description]
            for number, question in enumerate(questions):
                encoding: Any = tokeniser.tokenizer("\n".join((question.question, *question.choices)), verbose=False)
                count = tokeniser.embedding_count
                refuse_no_embedding(encoding["input_ids"], question.source, tokeniser.tokenizer, count)
                free = open_question(question, tokeniser) if openly else None
                found.append(TaskQuestion(question, (part, number), free, version, list(encoding["input_ids"])))
        return found

    def _protocol(self, tokeniser: ExampleTokeniser, tasks: Sequence[HarnessTask]) -> dict[str, Any]:
        free = {
            "likelihood": "mean over the choice's tokens, end of text included",
            "decoding": "greedy",
            "max_new_tokens": self.max_new_tokens,
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
            "open_ended": free if self.open_ended and any(map(_has_open_form, tasks)) else None,
        }

    def ask(
        self, model: CausalModel, asked: Asked, name: str, questions: Sequence[TaskQuestion], progress: Progress | None
    ) -> list[QuestionScore]:
        """Score questions of one task with their options, and without them where that is asked."""
        means: WmdpMeans = asked.means
        free_answers = ask_openly(
            model,
            means.tokeniser,
            [one.openly for one in questions if one.openly is not None],
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            progress=progress,
        )
        answers = ask_harness(
            model,
            means.tokeniser,
            means.tasks[name],
            [one.place for one in questions],
            batch_size=self.batch_size,
            progress=None if progress is None else lambda done, total: progress("multiple choice", done, total),
        )
        return list(map(_score, answers, free_answers or [NOT_ASKED] * len(answers)))

    def measure(
        self, scores: ModelScores[QuestionScore], retain_only: ModelScores[QuestionScore] | None
    ) -> dict[str, Measurement]:
        """Compute the metrics of one model; none is relative to the retain-only model's."""
        return measure_wmdp(scores)

    def recorded(self, protocol: Mapping[str, Any]) -> dict[str, Any]:
        """How it was asked, in whatever batches."""
        return {key: value for key, value in super().recorded(protocol).items() if key not in ("batch_size", "dtype")}


def _has_open_form(task: HarnessTask) -> bool:
    return task.name != "mmlu"


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
