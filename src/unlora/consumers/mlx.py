"""Adapters as mlx-lm keeps them: factors transposed, named as its own modules, with a configuration of its own."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy
from safetensors.torch import save_file

from unlora.adapters.export import read_adapter
from unlora.adapters.factors import rank_of
from unlora.artifacts import read_json_object
from unlora.consumers.answers import LogProbs, answer_part, explained
from unlora.errors import InputError

BLOCK = re.compile(r"model\.layers\.\d+\.(.+)")
RUNTIME = "mlx-lm"


@dataclass(frozen=True)
class MlxAdapter:
    """An adapter for mlx-lm's `--adapter-path`; a merged model needs no form of its own."""

    name: ClassVar[str] = "MLX"
    library: ClassVar[str] = "mlx"
    needs_base: ClassVar[bool] = True

    def prepare(self) -> None:
        """Nothing is needed to write it."""

    def outtype(self, base: str) -> str:
        """The number format that is written."""
        return "f32"

    def write(self, source: Path, base: Path, folder: Path, outtype: str) -> None:
        """Write the PEFT adapter in `source`, whose base's config.json lies in `base`, for mlx-lm.

        Raises:
            InputError: the model calls its layers otherwise than mlx-lm does.
        """
        _, factors = read_adapter(source)
        keys: dict[str, None] = {}
        tensors = {}
        for name, module in factors.items():
            keys[_key(name)] = None
            tensors[f"{name}.lora_a"] = module.lora_a.T.contiguous()
            tensors[f"{name}.lora_b"] = module.lora_b.T.contiguous()
        settings = {
            "fine_tune_type": "lora",
            "num_layers": read_json_object(base / "config.json")["num_hidden_layers"],
            "lora_parameters": {"rank": rank_of(factors), "scale": 1.0, "dropout": 0.0, "keys": sorted(keys)},
        }
        (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, folder / "adapters.safetensors", metadata={"format": "mlx"})

    def score(self, folder: Path, base: Path, dtype: str, answers: Sequence[tuple[list[int], int]]) -> list[LogProbs]:
        """Score answers with the base and the adapter on it, in mlx-lm."""
        library: Any = import_module("mlx_lm")
        array: Any = import_module("mlx.core")
        model = library.load(str(base), adapter_path=str(folder))[0]
        scored = []
        for ids, start in answers:
            logits = model(array.array([ids]))[0].astype(array.float32)
            scored.append(answer_part(numpy.array(logits), (ids, start)))
        return scored

    def explained(self, *formats: str) -> float:
        """Mean difference in nats that rounding to these formats explains."""
        return explained(*formats)

    def missing(self) -> str | None:
        """What is not installed, and how it would be; None where it is here."""
        return None if find_spec("mlx_lm") else f'{RUNTIME} is not installed: pip install "mlx[cpu]" {RUNTIME}'

    def runtime(self) -> str:
        """What it is tried in."""
        return f"{RUNTIME} {version(RUNTIME)}"

    def commands(self, base: str) -> str:
        """Lines that run it."""
        return f'mlx_lm.generate --model "{base}" --adapter-path . --prompt "..."\n'


def _key(name: str) -> str:
    """A module's name within its block, by which mlx-lm finds it in every block."""
    if (found := BLOCK.fullmatch(name)) is None:
        raise InputError(
            f"{name}: mlx-lm puts adapters on the layers of model.layers alone; give it the merged model "
            "(unlora export RUN --merged), which it reads as it is."
        )
    return found[1]
