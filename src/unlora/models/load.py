"""From a name to a model: the embedded one, a folder, an adapter folder (merged into its base), or a hub id."""

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from unlora.errors import InputError
from unlora.models.adapter_target import is_adapter, merge_target, recorded_base
from unlora.models.causality import refuse_two_sided
from unlora.models.context import context_length
from unlora.models.embedded import cache_folder
from unlora.models.files import refuse_unsafe_files
from unlora.models.fingerprint import fingerprint
from unlora.models.finite import refuse_not_finite
from unlora.models.formats import multiplied_out, settle_format, settle_weights
from unlora.models.inventory import rounded_share
from unlora.models.loading_notes import format_note, rounding_note
from unlora.models.locate import Location, locate
from unlora.models.merge import MergeCheck
from unlora.models.named_class import auto_class
from unlora.models.quantised import (
    Bits,
    compute_in_full,
    loading_options,
    loading_quietly,
    quantisation_of,
    refuse_misread,
)
from unlora.models.reading import reading
from unlora.models.save import save_model

MOST_LAYERS = 10_000
"""Ten times the deepest transformer published (1,000 layers, arXiv 2203.00555)."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model came from, as recorded in runs."""

    name: str
    kind: Literal["embedded", "hub", "folder", "adapter"]
    base: str | None
    """What the adapter was merged into; None unless kind is "adapter"."""
    dtype: str
    trust_remote_code: bool
    quantisation: Bits | None = None
    """How the linear layers are rounded, whether for this run or in the model's own files."""
    multiplied_out: str | None = None
    """The format of the files, such as "4bit" or "fp8", where the model is the numbers that they stand for."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in eval mode, no parameter of which asks for a gradient, with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: ModelSource
    merge: MergeCheck | None = None
    """Of an adapter: how far merging it into its base moved the logits on a few tokens."""
    notes: tuple[str, ...] = ()
    """What its user should know of how it was loaded."""
    rounded_share: float | None = None
    """Of a model in 4 or 8 bits: the share of its weights (embedding and head not counted) that is so."""

    @property
    def checks(self) -> dict[str, Any]:
        """What was checked at loading, for a record's section of that name."""
        merge = {} if self.merge is None else {"target_merge": self.merge._asdict()}
        return merge | ({} if self.rounded_share is None else {"rounded_share": self.rounded_share})

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the weights as they were when it was first asked for."""
        return fingerprint(self.model)


def load_model(
    name: str,
    *,
    base: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device,
    trust_remote_code: bool = False,
    quantisation: Bits | None = None,
) -> LoadedModel:
    """Load a causal language model and its tokenizer. Only a hub id can touch the network.

    Args:
        name: "embedded", a model folder, a folder with a LoRA adapter (merged into its base in memory), or a hub id.
        base: For an adapter: what to merge it into, in place of the base that its configuration names.
        dtype: Of the weights; an adapter is merged in it.
        device: Where the model goes.
        trust_remote_code: Whether Python code that comes with the model may run.
        quantisation: Round the linear layers to 4 or 8 bits; an adapter is merged before that, in full precision and
            host memory. None leaves the model as its files have it.

    Raises:
        InputError: nothing of that name, an incomplete or unreadable model, one that needs remote code, an adapter
            that is not LoRA or does not fit its base, a model that cannot be rounded so here, or weights that are NaN
            or infinite.
    """
    options = loading_options(quantisation, dtype, device) if quantisation is not None else {}
    if is_adapter(name):
        base, place = base or recorded_base(Path(name)), device if quantisation is None else torch.device("cpu")
        loaded = _load_base(Path(name), base, dtype=dtype, device=place, trust_remote_code=trust_remote_code)
        (model, merge), notes = merge_target(loaded.model, Path(name), base=base)
        tokenizer, kind = _adapter_tokenizer(Path(name)) or loaded.tokenizer, "adapter"
        notes, format = (*loaded.notes, *notes), loaded.source.quantisation or loaded.source.multiplied_out
        if quantisation is not None:
            model = _round_merged(name, model, tokenizer, dtype, options)
    else:
        _refuse_base(name, base)
        location = locate(name)
        model, format = _load_weights(name, location, dtype, trust_remote_code, options)
        tokenizer, kind = _load_tokenizer(name, location, trust_remote_code), location.kind
        merge, notes = None, ()
    _settle_rounding(name, model, quantisation)
    _limit_length(tokenizer, model.config)
    model.requires_grad_(False).eval()
    model.to(device)  # pyright: ignore[reportArgumentType]  its annotation binds self wrongly
    refuse_not_finite(name, model)
    refuse_two_sided(name, model)
    number_format = str(dtype).removeprefix("torch.")
    bits = quantisation_of(model)
    share = None if bits is None else rounded_share(model)
    source = ModelSource(name, kind, base, number_format, trust_remote_code, bits, format)
    said = (*format_note(name, format, merge), *rounding_note(name, bits, share))
    return LoadedModel(model, tokenizer, source, merge, (*notes, *said), share)


def load_tokenizer(name: str, *, base: str | None = None, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer that `load_model` would give for the same arguments, without the model.

    Raises:
        InputError: as `load_model`, as far as the tokenizer is concerned.
    """
    if not is_adapter(name):
        _refuse_base(name, base)
        location = locate(name)
        tokenizer = _load_tokenizer(name, location, trust_remote_code)
        return _limit_length(tokenizer, read_config(name, location, trust_remote_code))
    base = base or recorded_base(Path(name))
    return _adapter_tokenizer(Path(name)) or load_tokenizer(base, trust_remote_code=trust_remote_code)


def read_config(name: str, location: Location, trust_remote_code: bool) -> PreTrainedConfig:
    """Read a model's config.

    Raises:
        InputError: it is none, needs remote code, or speaks of more layers than any model has.
    """
    with _reading(name, location):
        config = AutoConfig.from_pretrained(
            location.path,
            revision=location.revision,
            local_files_only=location.local,
            trust_remote_code=trust_remote_code,
        )
        layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > MOST_LAYERS:  # Building them, even without values, takes all memory.
        raise InputError(f"model '{name}': its config speaks of {layers:,} layers; no model has over {MOST_LAYERS:,}.")
    return config


def _load_weights(
    name: str, location: Location, dtype: torch.dtype, trust_remote_code: bool, options: Mapping[str, Any]
) -> tuple[PreTrainedModel, str | None]:
    """Read a model, and name the format that it was multiplied out of, if any."""
    config = settle_format(name, read_config(name, location, trust_remote_code))
    format = multiplied_out(config)
    with _reading(name, location):
        model, found = auto_class(config).from_pretrained(
            location.path,
            config=config,
            dtype=dtype,
            use_safetensors=True,  # Pickle can run code.
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # Refused below, with the name of the tensor.
            revision=location.revision,
            local_files_only=location.local,
            trust_remote_code=trust_remote_code,
            **options,
        )
    unusable = sorted(found["missing_keys"]) + sorted(str(key[0]) for key in found["mismatched_keys"])
    if unusable:
        count = f" and {len(unusable) - 1} more" if len(unusable) > 1 else ""
        raise InputError(f"model '{name}': its files lack {unusable[0]}{count}, or hold it in another shape.")
    return settle_weights(name, model, format, dtype), format


def _round_merged(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
    options: Mapping[str, Any],
) -> PreTrainedModel:
    """Read a model in memory again in fewer bits, by way of the disk: transformers rounds only what it reads."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="merged-") as temporary:
        folder = str(Path(temporary) / "model")
        save_model(model, tokenizer, Path(folder))
        rounded, _ = _load_weights(name, Location("folder", folder, local=True), dtype, False, options)
    rounded.name_or_path = rounded.config.name_or_path = ""  # PEFT would look there for the size of the vocabulary.
    return rounded


def _settle_rounding(name: str, model: PreTrainedModel, asked: Bits | None) -> None:
    """Check that a model is rounded as asked, and make a rounded one compute the same everywhere."""
    found = quantisation_of(model)
    if asked is not None and found != asked:
        raise InputError(
            f"model '{name}': model.quantisation={asked} cannot be had of it, its files hold it in "
            f"{found or 'another format'} already; leave model.quantisation out."
        )
    if found is not None:
        refuse_misread(model, name)
        compute_in_full(model)


def _load_tokenizer(name: str, location: Location, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    with _reading(name, location):
        return AutoTokenizer.from_pretrained(
            location.path,
            revision=location.revision,
            local_files_only=location.local,
            trust_remote_code=trust_remote_code,
        )


def _limit_length(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """Give the tokenizer the model's context: not every one knows it."""
    context = context_length(config)
    if context is not None:
        tokenizer.model_max_length = context
    return tokenizer


@contextlib.contextmanager
def _reading(name: str, location: Location) -> Iterator[None]:
    """Turn what transformers raises into one line; the progress bars of a download stay, it can take minutes."""
    if location.local:
        refuse_unsafe_files(Path(location.path))
    with reading(f"model '{name}': cannot be loaded"):
        try:
            with loading_quietly() if location.local else contextlib.nullcontext():
                yield
        except Exception as error:
            if "trust_remote_code" not in str(error):
                raise
            message = "needs Python code that comes with it; read that code, then allow it with --trust-remote-code."
            raise InputError(f"model '{name}': {message}") from None


def _refuse_base(name: str, base: str | None) -> None:
    if base is not None:
        raise InputError(f"base '{base}': is only for an adapter, and {name} is not an adapter folder.")


def _load_base(folder: Path, base: str, **options: Any) -> LoadedModel:
    try:
        return load_model(base, **options)
    except InputError as error:
        raise InputError(f"{folder}: its base cannot be loaded (--base takes another name for it): {error}") from None


def _adapter_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer saved beside an adapter, if there is one."""
    if not (folder / "tokenizer_config.json").is_file():
        return None
    return _load_tokenizer(str(folder), Location("folder", str(folder), local=True), trust_remote_code=False)
