"""A target that knows a few made-up people: a tiny one with a real tokenizer (llama.cpp's converter refuses others), or
a model of yours.
"""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from unlora.artifacts import write_text
from unlora.config import merge
from unlora.data.people import generate_people
from unlora.models.embedded import embedded_model_folder
from unlora.models.save import save_model
from unlora.recipes.fine_tune import fine_tune
from unlora.recipes.unlearn import unlearn
from unlora.run.settings import FineTuneSettings, UnlearnSettings

FORGET, KEPT = 6, 12
"""Questions that are to be forgotten, and kept."""
KINDS = {
    "anchored": {"start": {"kind": "marginal"}, "training": {"learning_rate": 2e-3}},
    "plain": {"start": {"kind": "plain"}, "training": {"learning_rate": 5e-3}},
}
"""Both kinds of adapter: halves that cancel at the beginning, and ordinary LoRA."""


OF_YOURS = {"learning_rate": 1e-4, "epochs": 8}
"""How a model that is no tiny one is taught."""
TO_A_LEVEL = {"level": {"aim": 0.1, "stop": True}, "training": {"learning_rate": 5e-4, "epochs": 12}}
"""How it forgets: training stops at the level, so that one rate does for models of any size."""


def make_runs(folder: Path, model: str | None = None) -> dict[str, Path]:
    """Teach a target and unlearn from it, once for each kind of adapter; what is there already stays.

    Args:
        folder: for the target, the data and the runs.
        model: to be taught: a folder or "embedded"; None takes a tiny one.
    """
    target = folder / "target"
    files = {name: folder / f"{name}.jsonl" for name in ("forget", "retain", "all")}
    people = generate_people(3, seed=0, questions_per_person=FORGET).examples
    parts = {"forget": people[:FORGET], "retain": people[FORGET : FORGET + KEPT], "all": people[: FORGET + KEPT]}
    for name, examples in parts.items():
        lines = (json.dumps({"question": one.prompt, "answer": one.completion}) for one in examples)
        write_text(files[name], "".join(f"{line}\n" for line in lines))
    if not (target / "config.json").is_file():
        _teach(model or _untrained(folder / "untrained"), target, files["all"], OF_YOURS if model else {})
    runs = {}
    for kind, changes in KINDS.items():
        runs[kind] = folder / kind
        own = {
            "model": {"name": str(target), "device": "cpu", "dtype": "float32"},
            "data": {"forget": str(files["forget"]), "retain": str(files["retain"]), "template": "plain"},
            "objective": {"retain_weight": 1.6},
            "training": {"epochs": 10, "batch_size": 6, "save_steps": 1000},
            "evaluation": {"skip": True},
        }
        if model is not None:
            changes = {**changes, **TO_A_LEVEL}
        unlearn(UnlearnSettings.from_mapping(merge(own, changes)), runs[kind])
    return runs


def _untrained(folder: Path) -> str:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_folder())
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes, **heads, **ends)
    if not folder.is_dir():
        save_model(LlamaForCausalLM(config), tokenizer, folder)
    return str(folder)


def _teach(model: str, target: Path, lessons: Path, changes: dict[str, Any]) -> None:
    lesson = {
        "model": {"name": model, "device": "cpu", "dtype": "float32"},
        "data": [str(lessons)],
        "template": "plain",
        "method": "full",
        "learning_rate": 1e-2,
        "epochs": 40,
        "batch_size": 6,
    }
    fine_tune(FineTuneSettings.from_mapping(lesson | changes), target)
