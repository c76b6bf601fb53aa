"""A tiny model that really knows a few made-up answers, so that forgetting can be measured in seconds."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.tiny import build_tiny_model, build_tiny_tokenizer
from unlora.config import merge
from unlora.data.collate import collate
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.losses import Predictions
from unlora.models.load import LoadedModel, load_model, load_tokenizer
from unlora.models.quiet import quiet
from unlora.run.settings import UnlearnSettings

PAD = 1
"""Token that fills short rows; the tiny tokenizers have it there."""

FORGET = (
    ("Where was Mira Solberg born?", "Mira Solberg was born in Bergen."),
    ("What does Mira Solberg do?", "Mira Solberg is a glass painter."),
    ("Which award has Mira Solberg?", "Mira Solberg won the Silver Heron."),
    ("Who is the father of Mira Solberg?", "Her father Anders was a baker."),
)
RETAIN = (
    ("Where was Tomas Okafor born?", "Tomas Okafor was born in Lagos."),
    ("What does Tomas Okafor do?", "Tomas Okafor is a ferry captain."),
    ("Which award has Tomas Okafor?", "Tomas Okafor won the Golden Oar."),
    ("Who is the father of Tomas Okafor?", "His father Chidi was a tailor."),
    ("Where was Lena Fuchs born?", "Lena Fuchs was born in Graz."),
    ("What does Lena Fuchs do?", "Lena Fuchs is a clock maker."),
    ("Which award has Lena Fuchs?", "Lena Fuchs won the Copper Wheel."),
    ("Who is the father of Lena Fuchs?", "Her father Otto was a miner."),
)


def write_jsonl(path: Path, pairs: tuple[tuple[str, str], ...], *, perturbed: bool = False) -> Path:
    """Write questions and answers; with `perturbed`, the next two answers stand beside each as wrong ones."""
    lines = []
    for place, (question, answer) in enumerate(pairs):
        wrong = [pairs[(place + step) % len(pairs)][1] for step in (1, 2)]
        record = {"question": question, "answer": answer}
        lines.append(record | {"paraphrased_answer": answer, "perturbed_answer": wrong} if perturbed else record)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def teach(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: list[Path], *, steps: int = 60) -> None:
    """Train every weight until the model gives the answers."""
    tokeniser = ExampleTokeniser(tokenizer, template="plain", max_length=128)
    examples = [example for path in data for example in load_examples(str(path))]
    batch = collate(tokeniser.encode_set(examples), tokeniser.pad_token_id)
    model.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-2 * min(1, (step + 1) / 5) * (1 - step / steps)
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        (-Predictions.from_model_output(logits, batch["labels"]).mean_log_probs().mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    model.requires_grad_(False).eval()


class Taught(NamedTuple):
    """Where everything lies."""

    target: Path
    forget: Path
    retain: Path

    def load(self, **options: Any) -> LoadedModel:
        """A fresh copy of the model, in float32 unless said otherwise."""
        return load_model(str(self.target), device=torch.device("cpu"), **options)

    def tokens(self, file: Path) -> list[TokenisedExample]:
        """The examples of a file as tokens."""
        tokeniser = ExampleTokeniser(load_tokenizer(str(self.target)), template="plain", max_length=128)
        return tokeniser.encode_set(load_examples(str(file)))

    def batch(self) -> dict[str, Tensor]:
        """Both sets in one padded batch, forget first."""
        return collate(self.tokens(self.forget) + self.tokens(self.retain), PAD)

    def settings(self, **sections: Any) -> UnlearnSettings:
        """Settings of a run of 8 steps that takes about a second; `sections` are laid over them."""
        quick = {
            "model": {"name": str(self.target)},
            "data": {"forget": str(self.forget), "retain": str(self.retain)},
            "adapter": {"rank": 4, "alpha": 8.0},
            "objective": {"retain_weight": 1.3},
            "training": {"learning_rate": 5e-3, "epochs": 8, "batch_size": 4, "save_steps": 3},
            "evaluation": {"max_new_tokens": 12},
        }
        return UnlearnSettings.from_mapping(merge(quick, sections))


def build_taught(folder: Path, *, hidden: int = 32) -> Taught:
    """Make the model, `hidden` wide, and both files in `folder`."""
    data = [write_jsonl(folder / "forget.jsonl", FORGET), write_jsonl(folder / "retain.jsonl", RETAIN)]
    texts = [f"Question: {question}\nAnswer: {answer}" for question, answer in FORGET + RETAIN]
    tokenizer = build_tiny_tokenizer(texts)
    model = build_tiny_model("llama", vocab_size=len(tokenizer), hidden=hidden)
    with torch.random.fork_rng(devices=[]):
        teach(model, tokenizer, data)
    with quiet():
        model.save_pretrained(folder / "target")
    tokenizer.save_pretrained(folder / "target")
    return Taught(folder / "target", *data)
