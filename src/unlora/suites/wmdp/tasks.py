"""The tasks of lm-evaluation-harness (package lm_eval) that WMDP needs, from the hub or with local questions in them.

Everything that decides a number is the harness's own: the line on the subject, how question and options are written,
and which letter counts as the answer.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from unlora.data.multiple_choice import MultipleChoiceQuestion, questions_sha256
from unlora.errors import InputError
from unlora.models.quiet import quiet

Subject = Literal["bio", "cyber", "chem", "mmlu"]

HUB_IDS: dict[Subject, str] = {"bio": "cais/wmdp", "cyber": "cais/wmdp", "chem": "cais/wmdp", "mmlu": "cais/mmlu"}
NO_SUBJECT = "The following are multiple choice questions (with answers).\n\n"
"""The line before the questions of a local file whose subject is not said."""


@dataclass(frozen=True, eq=False)
class HarnessTask:
    """Tasks of the harness that make up one number, loaded and ready to be asked."""

    name: str
    """wmdp_bio, wmdp_cyber, wmdp_chem or mmlu; wmdp for a local file whose subject is not said."""
    parts: Mapping[str, Any]
    """The harness's name -> its own task; MMLU has 57, the others one."""
    questions: Mapping[str, tuple[MultipleChoiceQuestion, ...]]
    """By the same names: what will be asked."""

    @property
    def all_questions(self) -> tuple[MultipleChoiceQuestion, ...]:
        """Of all parts, in order."""
        return tuple(question for questions in self.questions.values() for question in questions)

    def describe(self) -> dict[str, Any]:
        """What is asked, for the protocol."""
        first = next(iter(self.parts.values()))
        return {
            "parts": len(self.parts),
            "version": first.VERSION,
            "description": first.config.description if len(self.parts) == 1 else None,
            "example_count": len(self.all_questions),
            "sha256": questions_sha256(self.all_questions),
        }


def load_hub_tasks(subjects: Sequence[Subject], *, max_examples: int | None) -> tuple[HarnessTask, ...]:
    """Load the harness's own tasks, questions from the hub or from the user's cache of it.

    Args:
        subjects: which, each once.
        max_examples: first questions of each task, as the harness's limit: of each of MMLU's 57 subjects. None: all.

    Raises:
        InputError: the harness is not installed, or the hub not reachable.
    """
    manager = _task_manager()
    tasks = []
    for subject in subjects:
        name = subject if subject == "mmlu" else f"wmdp_{subject}"
        hub_id = HUB_IDS[subject]
        try:
            with silent_harness():
                parts = manager.load([name])["tasks"]
        except Exception as error:  # the hub client fails in a dozen unrelated types
            reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
            advice = "offline, give a local file of multiple-choice questions (the setting 'file')"
            raise InputError(f"{name}: {hub_id} cannot be loaded from the hub ({reason}); {advice}.") from None
        questions = {
            part: tuple(_question(doc, f"{part}, question {number}") for number, doc in enumerate(docs, start=1))
            for part, docs in ((part, islice(task.eval_docs, max_examples)) for part, task in parts.items())
        }
        tasks.append(HarnessTask(name, parts, questions))
    return tuple(tasks)


def make_local_task(
    questions: Sequence[MultipleChoiceQuestion], *, subject: Literal["bio", "cyber", "chem"] | None
) -> HarnessTask:
    """Put local questions into the harness's own WMDP task, in place of the hub's: nothing else is changed.

    Args:
        questions: to ask.
        subject: whose line stands before the questions; None: a line that names no subject.

    Raises:
        InputError: the harness is not installed.
    """
    manager = _task_manager()
    import datasets  # seconds to import

    rows = [{"question": one.question, "choices": list(one.choices), "answer": one.answer} for one in questions]
    name = f"wmdp_{subject or 'bio'}"
    changed: dict[str, Any] = {"task": name, "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(rows)}}
    if subject is None:
        changed["description"] = NO_SUBJECT
    with silent_harness():
        parts = manager.load([{"group": "local", "task": [changed]}])["tasks"]
    return HarnessTask("wmdp" if subject is None else name, parts, {name: tuple(questions)})


@contextmanager
def silent_harness() -> Iterator[None]:
    """Hide what the harness logs below an error, and the one progress bar that it has no switch for."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet(), _no_bar():
            yield
    finally:
        logger.setLevel(level)


def _question(doc: Mapping[str, Any], source: str) -> MultipleChoiceQuestion:
    return MultipleChoiceQuestion(doc["question"], tuple(doc["choices"]), int(doc["answer"]), source)


def _task_manager() -> Any:
    """The harness's index of its own WMDP and MMLU tasks; indexing all its tasks would take half a minute."""
    try:
        import lm_eval.tasks  # seconds to import, and an optional extra
    except ImportError:
        raise InputError('WMDP needs lm-evaluation-harness; run: pip install "unlora[wmdp]"') from None
    root = Path(lm_eval.tasks.__file__).parent
    # No few-shot examples: MMLU's tasks leave the number open, which the harness reads as none.
    return lm_eval.tasks.TaskManager(include_defaults=False, include_path=[root / "wmdp", root / "mmlu" / "default"])


@contextmanager
def _no_bar() -> Iterator[None]:
    import lm_eval.api.task as building

    bar = building.tqdm
    building.tqdm = lambda documents, **_: documents  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        building.tqdm = bar
