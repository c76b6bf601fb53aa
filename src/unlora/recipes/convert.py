"""Export a run in the form of another program, and compare its answers in that program with those measured here."""

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from unlora.adapters.export import load_trained_adapter
from unlora.artifacts import read_json_object
from unlora.cards.model_card import converted_card
from unlora.consumers.answers import Answers, ConsumerAgreement, LogProbs, compare
from unlora.consumers.table import Form
from unlora.data.make_tokeniser import make_tokeniser
from unlora.errors import InputError, UnloraError
from unlora.locks import alone_in_output
from unlora.models.load import LoadedModel, load_model
from unlora.models.old_readers import add_old_rope_keys
from unlora.models.origin import FILE
from unlora.models.quiet import quiet
from unlora.models.save import new_folder, save_model
from unlora.models.vocabulary import embedding_count
from unlora.recipes.export import export_adapter, export_merged, load_public_base, load_run_target, named_stack
from unlora.run.finished import model_of, refuse_leading_out, run_settings
from unlora.run.output import refuse_used_folder
from unlora.run.reporter import SILENT, Reporter
from unlora.run.sets import load_sets, tokenise_sets
from unlora.run.settings import UnlearnSettings
from unlora.runtime import resolve_device

OUTTYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
"""How consumers call torch's number formats."""


class Wanted(NamedTuple):
    """What is exported before it is written in another form."""

    merged: bool = False
    rank: int | None = None
    public_base: bool | None = None
    base_name: str | None = None
    check: bool = True
    """Whether the program is to score the run's answers, if it is here."""


class Converted(NamedTuple):
    """What was written, and what the program made of it."""

    agreement: ConsumerAgreement | None
    """None where it was not tried."""
    program: str
    """Name and version of what it was tried in, or why it was not."""


class _Source(NamedTuple):
    """What PEFT and transformers read, for a program's converter."""

    folder: Path
    loaded: LoadedModel
    """The model it belongs to, or is."""
    about: str


@alone_in_output
def convert(
    run: Path,
    output: Path,
    form: Form,
    wanted: Wanted,
    *,
    trust_remote_code: bool = False,
    reporter: Reporter = SILENT,
) -> Converted:
    """Write a finished run in the form of another program.

    Args:
        run: a finished run.
        output: folder to write.
        form: what is written.
        wanted: what is exported.
        trust_remote_code: whether Python code that comes with the target may run; the run's own settings cannot say so.
        reporter: where words and progress go.

    Raises:
        InputError: as `export_adapter` and `export_merged`, or the program's converter is not here.
        UnloraError: the converter failed, or the program computes something else with what was written; nothing is
            left of it.
    """
    settings = run_settings(run, trust_remote_code=trust_remote_code, reporter=reporter)
    refuse_leading_out(run, output)
    refuse_used_folder(output)
    form.prepare()
    stack = named_stack(settings.model, output, wanted.base_name)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside the output, where there is room for it, and from where the way to the base is the same.
    beside = partial(tempfile.TemporaryDirectory, dir=output.parent, prefix=f".{output.name}.")
    with beside() as exported, beside() as scratch:
        source = _export(run, settings, Path(exported), wanted, reporter)
        reporter.say(f"Writing it for {form.name}")
        dtype = OUTTYPES[source.loaded.source.dtype]
        outtype = form.outtype(dtype)
        reason = _not_tried(form, wanted)
        base = _base(source.loaded, Path(scratch) / "base", whole=form.needs_base and reason is None)
        with new_folder(output) as folder:
            form.write(source.folder, base, folder, outtype)
            record = read_json_object(run / "record.json")
            about = f"{source.about} Number format: {outtype}."
            card = converted_card(settings, record, stack, (form.library, about, form.commands(stack.base.text)))
            (folder / "README.md").write_text(card, encoding="utf-8")
            if (source.folder / FILE).is_file():
                shutil.copy(source.folder / FILE, folder / FILE)
            answers = _answers(settings, source.loaded) if reason is None else None
            if answers is None:
                return Converted(None, reason or "the run's data is not here any more")
            reporter.say(f"Scoring {len(answers.sequences)} answers in {form.name}")
            expected = _expected(source, answers, form)
            found = form.score(folder, base, dtype, answers.sequences)
            agreement = compare(expected, found, answers.forget_count)
            return Converted(_refuse_far(agreement, form, (outtype, dtype)), form.runtime())


def _export(run: Path, settings: UnlearnSettings, folder: Path, wanted: Wanted, reporter: Reporter) -> _Source:
    trust = settings.model.trust_remote_code
    if wanted.merged:
        export_merged(run, folder, base_name=wanted.base_name, trust_remote_code=trust, reporter=reporter)
        dtype, device = getattr(torch, model_of(run)["dtype"]), resolve_device(settings.model.device)
        loaded = load_model(str(folder), dtype=dtype, device=device, trust_remote_code=trust)
        return _Source(folder, loaded, "The target model with the unlearning adapter merged in.")
    done = export_adapter(
        run,
        folder,
        rank=wanted.rank,
        public_base=wanted.public_base,
        base_name=wanted.base_name,
        trust_remote_code=trust,
        reporter=reporter,
    )
    squeezed = f" Squeezed by SVD; relative error of the weight update {done.error:.2e}." if wanted.rank else ""
    if done.public_base:
        about = f"The target's own adapter and the unlearning adapter in one, rank {done.rank}, for the public base."
        return _Source(folder, load_public_base(settings.model), about + squeezed)
    target, _ = load_run_target(run, settings.model, full=True, reporter=reporter)
    return _Source(folder, target, f"A LoRA adapter of rank {done.rank} for the target model.{squeezed}")


def _base(loaded: LoadedModel, folder: Path, *, whole: bool) -> Path:
    """Write what a converter asks of the base: all of it where the program is to run, else what describes it."""
    if whole:
        save_model(loaded.model, loaded.tokenizer, folder)
        return folder
    folder.mkdir()
    with quiet():
        loaded.model.config.save_pretrained(folder)
    add_old_rope_keys(folder, loaded.model.config)
    return folder


def _not_tried(form: Form, wanted: Wanted) -> str | None:
    if not wanted.check:
        return "not asked for"
    return form.missing()


def _answers(settings: UnlearnSettings, loaded: LoadedModel) -> Answers | None:
    """The run's own answers as tokens; None where the files are gone."""
    try:
        forget, retain = load_sets(settings.data)
        tokeniser = make_tokeniser(settings.data, loaded.tokenizer, embedding_count(loaded.model))
        sets = tokenise_sets(tokeniser, forget, retain)
    except InputError:
        return None
    return Answers.of(sets.forget_tokens, sets.retain_tokens, tokeniser.pad_token_id)


def _expected(source: _Source, answers: Answers, form: Form) -> list[LogProbs]:
    """What transformers makes of the source; an adapter is put on the model it was written for."""
    model = source.loaded.model
    return answers.score(load_trained_adapter(model, source.folder) if form.needs_base else model)


def _refuse_far(agreement: ConsumerAgreement, form: Form, formats: tuple[str, str]) -> ConsumerAgreement:
    """Refuse what differs by more than rounding to the formats explains.

    Raises:
        UnloraError: it does.
    """
    allowed = form.explained(*formats)
    if not agreement.mean <= allowed:
        raise UnloraError(
            f"what was written is another model in {form.runtime()}: the log-probabilities of answers differ by "
            f"{agreement.mean:.2g} nats on average, and rounding explains {allowed:g}; it was removed."
        )
    return agreement
