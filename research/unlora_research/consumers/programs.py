"""Consumers with a runtime of their own: llama.cpp, MLX, ONNX Runtime."""

import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy
import torch
from transformers import AutoModelForCausalLM

from unlora.consumers.answers import LogProbs, answer_part
from unlora.consumers.llama_cpp import GgufAdapter, GgufModel, GgufSettings, convert_model
from unlora.consumers.llama_runtime import Native
from unlora.consumers.mlx import MlxAdapter
from unlora_research.consumers.subject import Subject
from unlora_research.consumers.trial import Tried

ROUNDED = ("f16", "q8_0", "q4_k_m")
"""Number formats, as llama.cpp calls them, beside f32."""


def llama_cpp(subject: Subject) -> Iterator[Tried]:
    """The adapter in two formats on bases of four, and the merged model in the same four."""
    sequences = subject.answers.sequences
    with tempfile.TemporaryDirectory() as scratch:
        bases, models = (_rounded(folder, Path(scratch)) for folder in (subject.base, subject.merged))
        for outtype in ("f32", "f16"):
            folder = Path(scratch) / f"adapter-{outtype}"
            folder.mkdir()
            GgufAdapter(GgufSettings()).write(subject.adapter, subject.base, folder, outtype)
            for name, base in bases.items() if outtype == "f32" else [("f32", bases["f32"])]:
                form = GgufAdapter(GgufSettings(base=base))
                found = form.score(folder, subject.base, "f32", sequences)
                yield Tried(f"adapter in {outtype} on a base in {name}", found)
        for name, model in models.items():
            folder = Path(scratch) / f"model-{name}"
            folder.mkdir()
            (folder / GgufModel.file).symlink_to(model)
            yield Tried(f"model in {name}", GgufModel(GgufSettings()).score(folder, folder, name, sequences))


def mlx(subject: Subject) -> Iterator[Tried]:
    """An adapter in its own form, and the merged folder as it is."""
    with tempfile.TemporaryDirectory() as scratch:
        MlxAdapter().write(subject.adapter, subject.base, Path(scratch), "f32")
        yield Tried("adapter", MlxAdapter().score(Path(scratch), subject.base, "f32", subject.answers.sequences))
    library: Any = import_module("mlx_lm")
    array: Any = import_module("mlx.core")
    model = library.load(str(subject.merged))[0]
    yield Tried(
        "model",
        [
            answer_part(numpy.array(model(array.array([ids]))[0].astype(array.float32)), (ids, start))
            for ids, start in subject.answers.sequences
        ],
    )


def onnx(subject: Subject) -> Iterator[Tried]:
    """The merged model, traced by transformers' own exporter and run by ONNX Runtime."""
    exporter: Any = import_module("transformers.exporters.exporter_onnx")
    model = AutoModelForCausalLM.from_pretrained(subject.merged, dtype=torch.float32).eval()
    ids = torch.tensor([subject.answers.sequences[0][0]])
    sample = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    exported = exporter.OnnxExporter().export(model, sample, config=exporter.OnnxConfig(dynamic=True))
    yield Tried("model", list(_by_onnx(exported, subject.answers.sequences)))


def _by_onnx(exported: Any, sequences: Sequence[tuple[list[int], int]]) -> Iterator[LogProbs]:
    for ids, start in sequences:
        tokens = torch.tensor([ids])
        logits = exported(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits[0]
        yield answer_part(logits.double().numpy(), (ids, start))


def _rounded(folder: Path, scratch: Path) -> dict[str, Path]:
    """A model folder as GGUF files of every format."""
    files = {"f32": scratch / f"{folder.name}-f32.gguf"}
    convert_model(folder, files["f32"], "f32", None)
    for name in ROUNDED:
        files[name] = scratch / f"{folder.name}-{name}.gguf"
        Native().quantise(files["f32"], files[name], name)
    return files
