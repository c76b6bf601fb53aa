"""What every source of data is turned into: examples that know where they came from."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

DataShape = Literal["question_answer", "prompt_completion", "messages", "text"]


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to forget or to keep. Only the completion is ever scored."""

    shape: DataShape
    """Which of the four shapes of user data it came in; decides how it becomes text."""
    prompt: str
    """The question, the verbatim prompt, or the last turn before the answer; empty for shape "text"."""
    completion: str
    """The answer, the verbatim completion, the last assistant turn, or the whole text."""
    source: str
    """Where it came from, for messages: "forget.jsonl, line 12"."""
    messages: tuple[dict[str, str], ...] = ()
    """Shape "messages" only: the turns before the last assistant turn, each with "role" and "content"."""
    paraphrased_answer: str | None = None
    """The same answer in other words (TOFU)."""
    paraphrased_question: str | None = None
    """The same question in other words (TOFU)."""
    perturbed_answers: tuple[str, ...] = ()
    """Wrong answers in the form of the paraphrased one (TOFU)."""
    person: str | None = None
    """Whom the example is about, where that is known."""

    def content_sha256(self) -> str:
        """Hash of what a model is trained on: shape, prompt, turns and completion, but no paraphrase and no source."""
        content = [self.shape, self.prompt, list(self.messages), self.completion]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class ExampleSet:
    """Examples in the order of their source."""

    name: str
    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    def select(self, count: int) -> "ExampleSet":
        """Return the first `count` examples, or all when there are fewer."""
        return ExampleSet(self.name, self.examples[:count])

    def sha256(self) -> str:
        """Hash of the contents in order; equal for the same examples read from another file."""
        return hashlib.sha256("".join(example.content_sha256() for example in self.examples).encode()).hexdigest()
