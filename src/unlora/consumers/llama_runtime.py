"""llama.cpp itself, through the prebuilt library of the package llama-cpp-py-sync: the logits of a GGUF model.

It imports nothing of this package, so that an environment that has the library alone can use the file as it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy

PACKAGE, DISTRIBUTION = "llama_cpp_py_sync", "llama-cpp-py-sync"
FORMATS = {"Q8_0": 7, "Q4_K_M": 15}
"""llama.cpp's numbers of the formats that a model can be rounded to."""
FLOAT32 = 0
"""llama.cpp's number of it, as a type of a tensor."""


class LlamaError(Exception):
    """llama.cpp refused, without saying why."""


class Native:
    """The library and its types."""

    def __init__(self) -> None:
        """Load it, and have it write nothing on the terminal.

        Raises:
            ImportError: it is not installed.
            LlamaError: it does not load on this system (an older C library than it was built with, for instance).
        """
        bindings: Any = import_module(f"{PACKAGE}._cffi_bindings")
        try:
            self.library, self.types = bindings.get_lib(), bindings.get_ffi()
        except (RuntimeError, OSError) as error:
            raise LlamaError(f"{DISTRIBUTION}: its library does not load here ({error}).") from None
        self._silent = self.types.callback("ggml_log_callback", lambda *_: None)
        self.library.llama_log_set(self._silent, self.types.NULL)
        self.library.llama_backend_init()

    def quantise(self, source: Path, output: Path, name: str, threads: int = 1) -> None:
        """Round a GGUF model to a format of `FORMATS`.

        Raises:
            LlamaError: it cannot be rounded.
        """
        settings = self.types.new("llama_model_quantize_params *", self.library.llama_model_quantize_default_params())
        settings.ftype, settings.nthread = FORMATS[name], threads
        if self.library.llama_model_quantize(str(source).encode(), str(output).encode(), settings) != 0:
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
        if model == self.types.NULL:
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
        settings.type_k = settings.type_v = FLOAT32
        settings.flash_attn_type = 0
        context = self.library.llama_init_from_model(model, settings)
        if context == self.types.NULL:
            raise LlamaError("llama.cpp makes no context for the model.")
        try:
            yield context
        finally:
            self.library.llama_free(context)

    def _put_on(self, model: Any, context: Any, file: Path) -> None:
        adapter = self.library.llama_adapter_lora_init(model, str(file).encode())
        if adapter == self.types.NULL:
            raise LlamaError(f"{file}: llama.cpp does not put it on this model.")
        adapters, scales = self.types.new("struct llama_adapter_lora *[]", [adapter]), self.types.new("float[]", [1.0])
        if self.library.llama_set_adapters_lora(context, adapters, 1, scales) != 0:
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
        rows = (self.types.buffer(library.llama_get_logits_ith(context, place), 4 * width) for place in range(count))
        return numpy.stack([numpy.frombuffer(row, dtype=numpy.float32) for row in rows])
