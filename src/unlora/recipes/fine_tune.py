"""Make a target model or a retain-only model: a little supervised fine-tuning on the stock Trainer."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedConfig, PreTrainedModel

from unlora.adapters import attach_plain_adapter
from unlora.adapters.export import save_trained_adapter
from unlora.adapters.products import bfloat16_products
from unlora.cards.model_card import fine_tuned_card
from unlora.cards.naming import base_model, name_target, origin_of
from unlora.data.collate import collate
from unlora.data.forget_retain import ShuffledEpochs
from unlora.data.make_tokeniser import templated
from unlora.data.near import near_duplicates
from unlora.data.records import Example, ExampleSet
from unlora.data.same import same_examples
from unlora.data.sources import load_examples
from unlora.data.tokenise import TokenisedExample
from unlora.errors import InputError
from unlora.locks import alone_in_output
from unlora.models.attention import fastest_attention
from unlora.models.choose import choose_target_modules
from unlora.models.load import LoadedModel
from unlora.models.save import save_model
from unlora.models.vocabulary import embedding_count
from unlora.run.loading import load
from unlora.run.output import refuse_used_folder
from unlora.run.reporter import SILENT, Reporter
from unlora.run.sets import describe_tokens, encode_in_pieces, first_of
from unlora.run.settings import FineTuneSettings, ModelSettings
from unlora.runtime import resolve_device, seed_everything
from unlora.training import FineTuneTrainer, training_arguments
from unlora.training.callbacks import FINE_TUNING, ReportSteps, refuse_useless


@alone_in_output
def fine_tune(settings: FineTuneSettings, output: Path, *, reporter: Reporter = SILENT) -> None:
    """Teach a model some examples and save it: an adapter folder (method lora) or a model folder (method full).

    Raises:
        InputError: wrong settings, data or model, or an output folder in use; nothing was written.
        TrainingDivergedError: the learning rate was too high; nothing was saved.
    """
    refuse_used_folder(output)
    examples = learnable_examples(settings, reporter)
    seed_everything(settings.seed)
    reporter.say(f"Loading {settings.model.name}")
    loaded = load(_trainable(settings))
    bits = loaded.source.quantisation
    if settings.method == "full" and bits is not None:
        raise InputError(f"method: full trains every weight, and weights in {bits} cannot be trained; use lora.")
    known = embedding_count(loaded.model)
    tokeniser = templated(settings, loaded.tokenizer, known, max_length=settings.max_length)
    tokens = encode_in_pieces(tokeniser, examples)
    reporter.say(f"Learning {describe_tokens(tokens)}; template {tokeniser.template}")
    # The Trainer makes a folder that it would save to. Nothing is saved there, and a refusal leaves nothing behind.
    with tempfile.TemporaryDirectory(prefix="unlora-", ignore_cleanup_errors=True) as unused:
        model = train_on(settings, loaded, tokens, tokeniser.pad_token_id, Path(unused), reporter)
    if isinstance(model, PeftModel):
        told = name_target(settings.model, output)
        if told.top.source is None:
            reporter.say(
                f"{output} does not say where {settings.model.name} lies, which is in another tree or tells whose "
                f"machine this is: give --base {settings.model.name} with it"
            )
        save_trained_adapter(
            model,
            output,
            base_model=base_model(told),
            card=fine_tuned_card(settings, told, loaded, len(tokens)),
            origin=origin_of(loaded, told),
            tokenizer=loaded.tokenizer,
        )
    else:
        save_model(model, loaded.tokenizer, output)


def learnable_examples(settings: FineTuneSettings, reporter: Reporter = SILENT) -> ExampleSet:
    """All examples of the sets, without those that an excluded set holds in whatever spelling or shape.

    Raises:
        InputError: nothing is left, or there is nothing of an excluded set in the data.
    """
    examples = [example for source in settings.data for example in load_examples(source)]
    kept = list(examples)
    left_out: list[Example] = []
    for source in settings.exclude:
        excluded = load_examples(source)
        left_out += excluded
        kept = [one for one, match in zip(kept, same_examples(kept, excluded.examples), strict=True) if match is None]
        reporter.say(_found(source, excluded, same_examples(excluded.examples, examples)))
    if settings.exclude:
        reporter.say(f"Excluded {len(examples) - len(kept)} of {len(examples)} examples")
    if not kept:
        raise InputError("data: every example is also in 'exclude'; nothing is left to learn.")
    near = [f"{kept[pair.here].source} ~ {left_out[pair.there].source}" for pair in near_duplicates(kept, left_out)]
    if near:
        reporter.say(f"Warning: {len(near)} examples that are learnt are nearly excluded ones: {first_of(near)}")
    return ExampleSet("fine-tuning", tuple(kept))


def _trainable(settings: FineTuneSettings) -> ModelSettings:
    """Weights that are trained themselves are float32 on a processor: bfloat16 has no room for an optimiser's steps."""
    chosen = settings.model
    if settings.method == "full" and chosen.dtype == "auto" and resolve_device(chosen.device).type == "cpu":
        return chosen.model_copy(update={"dtype": "float32"})
    return chosen


@contextmanager
def _keeping_cache(config: PreTrainedConfig) -> Iterator[None]:
    """Leave `use_cache` as it was: the trainer switches it off, and it would be saved so.

    A model of several parts has it in its language model's configuration alone.
    """
    before = vars(config).get("use_cache")
    try:
        yield
    finally:
        vars(config).pop("use_cache", None)
        if before is not None:
            config.use_cache = before


def _found(source: str, excluded: ExampleSet, matches: Sequence[int | None]) -> str:
    """Say how much of an excluded set the data holds.

    Raises:
        InputError: nothing of it.
    """
    missing = [one.source for one, match in zip(excluded, matches, strict=True) if match is None]
    if len(missing) == len(excluded):
        raise InputError(
            f"exclude: none of the {len(excluded)} examples of {source} is in the data, so nothing is excluded; "
            "give the file that the data was made with, or leave exclude out."
        )
    count = f"{len(excluded) - len(missing)} of the {len(excluded)} examples of {source} are in the data"
    return f"{count}; not found: {first_of(missing)}" if missing else count


def train_on(
    settings: FineTuneSettings,
    loaded: LoadedModel,
    tokens: Sequence[TokenisedExample],
    pad_token_id: int,
    folder: Path,
    reporter: Reporter,
) -> PreTrainedModel | PeftModel:
    """Train the adapter, or every weight, and return the model; `folder` is the Trainer's."""
    model: Any = loaded.model
    if settings.method == "lora":
        choice = choose_target_modules(model, rank=settings.rank, by_example=False)
        reporter.say(choice.reach.sentence())
        model = attach_plain_adapter(model, choice.targets, rank=settings.rank, alpha=settings.alpha)
    else:
        model.requires_grad_(True)
    epochs = ShuffledEpochs(tokens, epochs=settings.epochs, seed=settings.seed)
    steps = -(-len(epochs) // settings.batch_size)
    arguments = training_arguments(
        folder,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        gradient_accumulation_steps=1,
        warmup_steps=round(settings.warmup_ratio * steps),
        max_grad_norm=1.0,
        gradient_checkpointing=False,
        save_steps=None,
        seed=settings.seed,
        use_cpu=model.device.type == "cpu",
        lr_scheduler_type="cosine",
    )
    with reporter.task("Learning", steps) as task, _keeping_cache(model.config):
        trainer = FineTuneTrainer(
            model,
            arguments,
            train_dataset=epochs,
            pad_token_id=pad_token_id,
            callbacks=[ReportSteps(lambda step, total, logs: task.update(f"loss {logs['loss']:.3f}", step, total))],
        )
        with fastest_attention(model, longest=max(len(one.input_ids) for one in tokens)), bfloat16_products(model):
            trainer.train()
    refuse_useless(model, collate(tokens[:8], pad_token_id), steps, arguments, FINE_TUNING)
    return model.eval()
