"""What a user has before anything goes wrong: a model that knows something, data, an adapter, finished runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class World:
    """Where everything lies. Read only: a case copies what it damages."""

    folder: Path

    @property
    def model(self) -> Path:
        """A tiny llama that knows both sets."""
        return self.folder / "target"

    @property
    def forget(self) -> Path:
        return self.folder / "forget.jsonl"

    @property
    def retain(self) -> Path:
        return self.folder / "retain.jsonl"

    @property
    def adapter(self) -> Path:
        """A plain LoRA adapter for the model."""
        return self.folder / "adapter"

    @property
    def run(self) -> Path:
        """A finished run with its audit."""
        return self.folder / "run"

    @property
    def cache(self) -> Path:
        """What the run left in the cache: the target's scores."""
        return self.folder / "made" / "run-0" / "cache"

    @property
    def study(self) -> Path:
        """A finished study of one cell."""
        return self.folder / "study"

    def usual(self) -> list[str]:
        """The three options that every run needs."""
        return ["--model", str(self.model), "--forget", str(self.forget), "--retain", str(self.retain)]

    def unlearn(self, output: Path | str = "out") -> list[str]:
        """The run of the world, in another folder."""
        return ["unlearn", *self.usual(), *QUICK, "--output", str(output)]

    def evaluate(self, output: Path | str = "out") -> list[str]:
        return ["evaluate", *self.usual(), "--set", "evaluation.max_new_tokens=4", "--output", str(output)]

    def finetune(self, output: Path | str = "out") -> list[str]:
        options = ["--set", "rank=4", "--set", "alpha=8", "--epochs", "1", "--output", str(output)]
        return ["finetune", "--model", str(self.model), "--data", str(self.forget), *options]

    def audit(self, run: Path | str) -> list[str]:
        return ["audit", str(run), "--attack", "sampling", *QUICK_AUDIT]

    def small_study(self, output: Path | str = "out") -> list[str]:
        return ["study", "sigma", "--quick", *SMALL_STUDY, "--output", str(output)]


QUICK = [
    "--set", "adapter.rank=4", "--set", "adapter.alpha=8", "--set", "training.learning_rate=5e-3",
    "--set", "training.epochs=2", "--set", "training.batch_size=4", "--set", "training.save_steps=1",
    "--set", "evaluation.max_new_tokens=4",
]  # fmt: skip
"""Two steps, then a short evaluation."""
QUICK_AUDIT = [
    "--set", "max_examples=4", "--set", "sampling.samples=2", "--set", "sampling.k=[1]",
    "--set", "sampling.max_new_tokens=4",
]  # fmt: skip
"""Two answers to each of four questions."""
SMALL_STUDY = ["--set", "methods=[vila]", "--set", "sigmas=[0.05]"]
"""One cell."""


PARTS: dict[str, Callable[[World], list[list[str]]]] = {
    "adapter": lambda world: [world.finetune(world.adapter)],
    "run": lambda world: [world.unlearn(world.run), world.audit(world.run)],
    "study": lambda world: [world.small_study(world.study)],
}
"""What commands make the parts of the world, once the model and the data are there."""
