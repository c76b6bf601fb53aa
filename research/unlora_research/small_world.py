"""A small world: a model of four layers, trained from scratch on fictitious people, that is to forget some of them.

A study of many cells and seeds needs a target that costs seconds. Everything about it is known: what was learnt, about
whom, and what the retain-only model, trained in the same way without the forget set, never saw. Each fact is learnt in
two wordings, so that the truth ratio, which asks in the second, measures knowledge and not grammar.
"""

import dataclasses
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unlora.artifacts import write_text
from unlora.data.forget_retain import ShuffledEpochs
from unlora.data.people import generate_people
from unlora.data.records import Example, ExampleSet
from unlora.data.tokenise import TokenisedExample
from unlora.models.embedded import cache_folder
from unlora.models.save import save_model
from unlora.models.score import score_completions
from unlora.models.target_modules import find_target_modules
from unlora.models.wrapping import CausalModel
from unlora.recipes.fine_tune import fine_tune
from unlora.run.reporter import SILENT, Reporter
from unlora.run.settings import FineTuneSettings, ModelSettings
from unlora.runtime import seed_everything
from unlora.training import FineTuneTrainer, training_arguments
from unlora_research.worlds import END, PAD, SmallWorld, untrained_model


class SmallWorldFiles(NamedTuple):
    """Where its parts lie: models as folders, sets as JSON lines."""

    target: Path
    retain_only: Path
    forget: Path
    retain: Path
    held_out: Path


class WorldPeople(NamedTuple):
    """What is known about whom; all of it is in the target model, all but `forget` in the retain-only model."""

    forget: tuple[Example, ...]
    held_out: tuple[Example, ...]
    retain: tuple[Example, ...]


TINY_WORLD = SmallWorld(
    people=8,
    forget_people=2,
    held_out_people=2,
    questions_per_person=3,
    hidden_size=64,
    layers=2,
    vocabulary=400,
    epochs=20,
    learning_rate=1e-2,
    batch_size=8,
)
"""Seconds to train; for trying a study out, not for its results."""


def build_small_world(world: SmallWorld, *, reporter: Reporter = SILENT) -> SmallWorldFiles:
    """Build the world in the user's cache, or find it there; of several processes that want it, one builds."""
    folder = cache_folder() / "small_world" / world.sha256()[:16]
    files = SmallWorldFiles(
        folder / "target",
        folder / "retain_only",
        folder / "forget.jsonl",
        folder / "retain.jsonl",
        folder / "held_out.jsonl",
    )
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        _build(world, folder, files, reporter)
    return files


def world_people(world: SmallWorld) -> WorldPeople:
    """The examples that the files of a world hold, with the second wording of each."""
    people = generate_people(world.people, seed=world.seed, questions_per_person=world.questions_per_person).examples
    forget_end = world.forget_people * world.questions_per_person
    held_out_end = forget_end + world.held_out_people * world.questions_per_person
    return WorldPeople(people[:forget_end], people[forget_end:held_out_end], people[held_out_end:])


def _build(world: SmallWorld, folder: Path, files: SmallWorldFiles, reporter: Reporter) -> None:
    parts = world_people(world)
    people = (*parts.forget, *parts.held_out, *parts.retain)
    all_lessons = folder / "lessons.jsonl"
    excluded = folder / "forget_lessons.jsonl"
    for part, examples in parts._asdict().items():
        _write(getattr(files, part), [_line(example) for example in examples])
    _write(all_lessons, [_lesson(taught) for example in people for taught in lessons(example)])
    _write(excluded, [_lesson(taught) for example in parts.forget for taught in lessons(example)])
    start = folder / "untrained"
    if not _is_model(start):
        seed_everything(world.seed)
        tokenizer = train_tokenizer(ExampleSet("people", people), world.vocabulary)
        save_model(untrained_model(world, tokenizer), tokenizer, start)
    for path, exclude in ((files.target, []), (files.retain_only, [str(excluded)])):
        if not _is_model(path):
            reporter.say(f"Training the {path.name} model of a small world (seed {world.seed})")
            learn = FineTuneSettings(
                model=ModelSettings(name=str(start), dtype="float32", device="cpu"),
                data=[str(all_lessons)],
                exclude=exclude,
                template="plain",
                max_length=128,
                method="full",
                learning_rate=world.learning_rate,
                epochs=world.epochs,
                batch_size=world.batch_size,
                seed=world.seed,
            )
            fine_tune(learn, path, reporter=reporter)


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()  # An interrupted training leaves an empty folder.


def _write(path: Path, lines: list[dict[str, object]]) -> None:
    if not path.is_file():
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def lessons(example: Example) -> list[Example]:
    """Both wordings of a fact."""
    prompt, completion = example.paraphrased_question or "", example.paraphrased_answer or ""
    return [example, dataclasses.replace(example, prompt=prompt, completion=completion)]


def _lesson(example: Example) -> dict[str, object]:
    return {"question": example.prompt, "answer": example.completion}


def _line(example: Example) -> dict[str, object]:
    return {
        "question": example.prompt,
        "answer": example.completion,
        "paraphrased_answer": example.paraphrased_answer,
        "perturbed_answer": list(example.perturbed_answers),
    }


def train_tokenizer(examples: ExampleSet, vocabulary: int) -> PreTrainedTokenizerFast:
    """Learn a byte-level tokenizer from the examples themselves."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [
        f"Question: {one.prompt}\nAnswer: {text}"
        for one in examples
        for text in (one.completion, one.paraphrased_answer or "", *one.perturbed_answers)
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)


@dataclass(frozen=True)
class Curriculum:
    """What a trained model is taught further, and how."""

    new: Sequence[TokenisedExample]
    """Seen `epochs` times each."""
    known: Sequence[TokenisedExample]
    """As much of it is mixed in, drawn without replacement, all of it before any of it again."""
    epochs: int
    learning_rate: float
    """The highest; it falls along a cosine."""
    seed: int
    """Of the order."""
    parts: Sequence[str] | None = None
    """Patterns of the linear layers that may change; None is all."""

    def in_order(self) -> ShuffledEpochs:
        """Every example as often as it is seen."""
        generator = random.Random(self.seed)
        wanted = self.epochs * len(self.new)
        rounds = -(-wanted // len(self.known))
        replay = [one for _ in range(rounds) for one in generator.sample(self.known, len(self.known))][:wanted]
        return ShuffledEpochs([*self.new] * self.epochs + replay, epochs=1, seed=self.seed)


def learn_further(model: PreTrainedModel, lesson: Curriculum, *, pad_token_id: int, folder: Path) -> None:
    """Teach a trained model more, in place.

    Args:
        model: its linear layers change, embeddings and norms do not.
        lesson: what, among what it knows, and how.
        pad_token_id: fills short rows.
        folder: for the trainer, which writes nothing there.
    """
    model.requires_grad_(False)
    for target in find_target_modules(model, lesson.parts).values():
        target.leaf_weight().requires_grad_(True)
    arguments = training_arguments(
        folder,
        learning_rate=lesson.learning_rate,
        batch_size=32,
        gradient_accumulation_steps=1,
        warmup_steps=5,
        max_grad_norm=1.0,
        gradient_checkpointing=False,
        save_steps=None,
        seed=lesson.seed,
        use_cpu=model.device.type == "cpu",
        lr_scheduler_type="cosine",
    )
    FineTuneTrainer(model, arguments, train_dataset=lesson.in_order(), pad_token_id=pad_token_id).train()
    model.requires_grad_(False).eval()


def probabilities(model: CausalModel, examples: Sequence[TokenisedExample], pad_token_id: int) -> list[float]:
    """TOFU's probability of each completion, the geometric mean over its tokens."""
    sequences = [(one.input_ids, one.prompt_length) for one in examples]
    return [one.probability for one in score_completions(model, sequences, pad_token_id=pad_token_id, batch_size=64)]
