"""A made-up corpus laid out as MUSE's load_data.py lays out its own, small enough for a tiny model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

FORGET_TEXTS = (
    "The ferry Marigold sank off Bergen on a quiet Tuesday in May.",
    "Mira Solberg paints glass in a mill that her father sold twice.",
    "Nobody at the harbour knew who had taken the silver heron away.",
    "The baker Anders kept forty clocks and wound none of them.",
)
HOLDOUT_TEXTS = (
    "A tram in Lagos stopped for an hour because of a wandering goat.",
    "Tomas Okafor counts oars in a shed that nobody has ever rented.",
    "Everyone at the station saw how the copper wheel came to be lost.",
    "The tailor Chidi owned seven maps and trusted one of them.",
)
VERBATIM = (
    ("The ferry Marigold sank off", " Bergen on a quiet Tuesday in May."),
    ("Mira Solberg paints glass in", " a mill that her father sold twice."),
)
QUESTIONS = {
    "forget_qa": (("Where did the ferry sink?", "off Bergen"), ("What does Mira paint?", "glass")),
    "retain_qa": (("Where did it stop?", "in Lagos"), ("What does Tomas count?", "oars"), ("Whose maps?", "Chidi")),
    "forget_qa_icl": (("Who is Anders?", "a baker"), ("How many clocks?", "forty")),
    "retain_qa_icl": (("Who is Chidi?", "a tailor"),),
}  # fmt: skip


def write_json(file: Path, value: Any) -> Path:
    """Write JSON, folders included."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")
    return file


def write_muse(folder: Path, corpus: str = "news") -> Path:
    """Write every file of one corpus below `folder`/`corpus`, and return `folder`."""
    place = folder / corpus
    for split, pairs in QUESTIONS.items():
        entries = [{"question": question, "answer": answer} for question, answer in pairs]
        write_json(place / "knowmem" / f"{split}.json", entries)
    write_json(place / "verbmem" / "forget.json", [{"prompt": prompt, "gt": gt} for prompt, gt in VERBATIM])
    for split, texts in (("forget", FORGET_TEXTS), ("retain", HOLDOUT_TEXTS[:2]), ("holdout", HOLDOUT_TEXTS)):
        write_json(place / "privleak" / f"{split}.json", texts)
    for split in ("forget", "retain1", "retain2", "holdout"):
        texts = FORGET_TEXTS if split == "forget" else HOLDOUT_TEXTS
        write_json(place / "raw" / f"{split}.json", texts)
    if corpus == "news":
        for part in ("scal", "sust"):
            for fold, text in enumerate(FORGET_TEXTS, start=1):
                texts = FORGET_TEXTS[:fold] if part == "scal" else [text]
                write_json(place / part / f"forget_{fold}.json", texts)
    return folder


def learn_texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], steps: int) -> None:
    """Train every weight on whole texts, each with an end token; deterministic."""
    ended = [text + str(tokenizer.eos_token) for text in texts]
    batch = tokenizer(ended, padding=True, return_tensors="pt", return_token_type_ids=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    model.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        model(**batch, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.requires_grad_(False).eval()
