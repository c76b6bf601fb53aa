"""A tiny subject of an audit: a target that knows, an adapter that made it forget, and a control that never saw."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.taught import FORGET, RETAIN, Taught, teach
from tests.tiny import build_tiny_model, build_tiny_tokenizer
from tests.training.runs import anchored, pairs, train
from unlora.adapters import attach_plain_adapter
from unlora.adapters.export import load_trained_adapter, save_trained_adapter
from unlora.artifacts import file_sha256
from unlora.audit.bench import Workbench
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.models.fingerprint import fingerprint
from unlora.models.quiet import quiet
from unlora.models.target_modules import find_target_modules

FORGET_IN_OTHER_WORDS = (
    "What is the birthplace of Mira Solberg?",
    "What is the work of Mira Solberg?",
    "What did Mira Solberg win?",
    "What was Mira Solberg's father called?",
)
"""The questions of `FORGET` once more; nobody was taught these."""

SAME_PERSON = (
    ("Where does Mira Solberg live?", "Mira Solberg lives by the harbour."),
    ("Which pet has Mira Solberg?", "Mira Solberg has a grey parrot."),
)
"""To keep, about the person to forget: target and control know it."""

HOLDOUT = (
    ("Where was Mira Solberg born?", "Mira Solberg was born in Lagos."),
    ("What does Mira Solberg do?", "Mira Solberg is a clock maker."),
    ("Which award has Mira Solberg?", "Mira Solberg won the Copper Wheel."),
    ("Who is the father of Mira Solberg?", "Her father Chidi was a miner."),
    ("Where was Mira Solberg born?", "Mira Solberg was born in Petra."),
    ("What does Mira Solberg do?", "Mira Solberg is a bridge warden."),
    ("Which award has Mira Solberg?", "Mira Solberg won the Amber Bell."),
    ("Who is the father of Mira Solberg?", "Her father Samir was a weaver."),
)
"""Like the forget set, and no model saw it: other facts in the same sentences, half of them in familiar words."""

Pairs = Sequence[tuple[str, str]]


def build_subject(folder: Path) -> AuditSubject:
    """Teach target and control, unlearn as the main path does, and put the subject together; a few seconds.

    Everything lies in `folder`: "base" (what both were before they were taught), "target", "retain_only", "adapter",
    and the sets as JSON lines. The reference of the reference attack is "base".
    """
    files = _write_sets(folder)
    texts = [f"Question: {question}\nAnswer: {answer}" for question, answer in (*FORGET, *RETAIN, *SAME_PERSON)]
    tokenizer = build_tiny_tokenizer(texts)
    kept = [files["retain"], files["same_person"]]
    _save(build_tiny_model("llama", vocab_size=len(tokenizer), hidden=64), tokenizer, folder / "base")
    _save(_taught(tokenizer, [files["forget"], *kept]), tokenizer, folder / "target")
    retain_only = _taught(tokenizer, kept)
    _save(retain_only, tokenizer, folder / "retain_only")

    taught = Taught(folder / "target", files["forget"], files["retain"])
    trained = anchored(taught)
    train(trained, pairs(taught, epochs=12), folder)
    save_trained_adapter(trained, folder / "adapter", base_model=str(taught.target), card="A test.")
    model = load_trained_adapter(taught.load().model, folder / "adapter").eval()
    return subject_of(model, retain_only, tokenizer, folder)


def subject_of(
    model: PeftModel, retain_only: PreTrainedModel | None, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> AuditSubject:
    """Any models on the sets that `build_subject` wrote to `folder`."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    sets = {
        name: load_examples(str(folder / f"{name}.jsonl")) for name in ("forget", "retain", "same_person", "holdout")
    }
    return AuditSubject(
        model=model,
        retain_only=retain_only,
        tokeniser=ExampleTokeniser(tokenizer, template="plain", max_length=128),
        **sets,
        hashes=_hashes(model, retain_only, folder),
        reference=str(folder / "base"),
        scratch=scratch,
    )


def never_unlearned(subject: AuditSubject, folder: Path) -> AuditSubject:
    """The target with an adapter that does nothing, in place of the unlearned model: it still knows everything."""
    return _with_idle_adapter(folder / "target", subject, folder)


def never_taught(subject: AuditSubject, folder: Path) -> AuditSubject:
    """The control's own weights in every role: it never knew anything."""
    return _with_idle_adapter(folder / "retain_only", subject, folder)


def bench_for(subject: AuditSubject, cache: Path, **sections: Any) -> Workbench:
    """A workbench whose settings are the defaults with `sections` laid over them."""
    return Workbench(subject, AuditSettings.from_mapping(sections), ProgressLog(), cache)


class ProgressLog:
    """Keeps what was reported: (what, done, total)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def __call__(self, text: str, done: int, total: int) -> None:
        self.calls.append((text, done, total))


def _with_idle_adapter(weights: Path, subject: AuditSubject, folder: Path) -> AuditSubject:
    plain = Taught(weights, folder / "forget.jsonl", folder / "retain.jsonl").load().model
    model = attach_plain_adapter(plain, find_target_modules(plain), rank=2, alpha=4)
    tokenizer = subject.tokeniser.tokenizer
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise TypeError(type(tokenizer).__name__)
    return subject_of(model.eval(), subject.retain_only, tokenizer, folder)


def _taught(tokenizer: PreTrainedTokenizerFast, data: list[Path]) -> PreTrainedModel:
    model = build_tiny_model("llama", vocab_size=len(tokenizer), hidden=64)
    with torch.random.fork_rng(devices=[]):
        teach(model, tokenizer, data)
    return model


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _hashes(model: PeftModel, retain_only: PreTrainedModel | None, folder: Path) -> dict[str, str]:
    target = fingerprint(model)
    adapter = {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}
    idle = all(not parameter.any() for name, parameter in adapter.items() if "lora_B" in name)
    file = folder / "adapter" / "adapter_model.safetensors"
    hashes = {"target": target, "unlearned": f"{target}+{'idle' if idle else file_sha256(file)}"}
    return hashes if retain_only is None else hashes | {"retain_only": fingerprint(retain_only)}


def _write_sets(folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    sets: dict[str, Pairs] = {"forget": FORGET, "retain": RETAIN, "same_person": SAME_PERSON, "holdout": HOLDOUT}
    files = {}
    for name, questions in sets.items():
        records: list[dict[str, str]] = [{"question": question, "answer": answer} for question, answer in questions]
        for record in records:
            record["person"] = _person(record["question"])
        if name == "forget":
            for record, question in zip(records, FORGET_IN_OTHER_WORDS, strict=True):
                record["paraphrased_question"] = question
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return files


def _person(question: str) -> str:
    return " ".join(word.strip("?") for word in question.split()[1:] if word[0].isupper())
