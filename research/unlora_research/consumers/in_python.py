"""Consumers that run on transformers: PEFT, transformers alone, TRL, lm-eval."""

import tempfile
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from unlora.consumers.answers import LogProbs, answer_part
from unlora_research.consumers.subject import Subject
from unlora_research.consumers.trial import Tried


def peft(subject: Subject) -> Iterator[Tried]:
    """The lines of the card."""
    adapted = import_module("peft").PeftModel.from_pretrained(_base(subject), subject.adapter)
    yield Tried("adapter", _one_by_one(adapted, subject))
    yield Tried("adapter, merged by PEFT", _one_by_one(adapted.merge_and_unload(), subject))


def transformers(subject: Subject) -> Iterator[Tried]:
    """Its own way to load adapters, and the merged folder."""
    model = _base(subject)
    model.load_adapter(str(subject.adapter))
    yield Tried("adapter", _one_by_one(model, subject))
    merged = AutoModelForCausalLM.from_pretrained(subject.merged, dtype=torch.float32)
    yield Tried("model", _one_by_one(merged, subject))


def trl(subject: Subject) -> Iterator[Tried]:
    """The loss of each answer, given as text, in its trainer before any step; one number an answer."""
    library, datasets = import_module("trl"), import_module("datasets")
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in _texts(subject)]
    adapted = import_module("peft").PeftModel.from_pretrained(_base(subject), subject.adapter, is_trainable=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = library.SFTConfig(
            output_dir=folder,
            per_device_eval_batch_size=1,
            use_cpu=True,
            report_to=[],
            bf16=False,
            max_length=None,
            disable_tqdm=True,
        )
        whole = datasets.Dataset.from_list(rows)
        trainer = library.SFTTrainer(
            adapted, settings, train_dataset=whole, eval_dataset=whole, processing_class=subject.tokenizer
        )
        losses = [trainer.evaluate(whole.select([place]))["eval_loss"] for place in range(len(rows))]
    yield Tried("adapter, as it goes into training", [numpy.array([-loss]) for loss in losses], whole=True)


def lm_eval(subject: Subject) -> Iterator[Tried]:
    """Its `loglikelihood` of answers as text, which it cuts into tokens itself; one number an answer."""
    harness, instance = import_module("lm_eval.models.huggingface"), import_module("lm_eval.api.instance").Instance
    texts = _texts(subject)
    for form, where in (
        ("adapter", {"pretrained": str(subject.base), "peft": str(subject.adapter)}),
        ("model", {"pretrained": str(subject.merged)}),
    ):
        model = harness.HFLM(**where, dtype="float32", device="cpu", batch_size=1)
        for text, (ids, start) in zip(texts, subject.answers.sequences, strict=True):
            if model._encode_pair(*text) != (ids[:start], ids[start:]):
                raise ValueError(f"lm-eval cuts an answer into other tokens: {text}")
        asked = [instance("loglikelihood", {}, text, place) for place, text in enumerate(texts)]
        sums = [value for value, _ in model.loglikelihood(asked, disable_tqdm=True)]
        lengths = [len(ids) - start for ids, start in subject.answers.sequences]
        yield Tried(form, [numpy.array([value / n]) for value, n in zip(sums, lengths, strict=True)], whole=True)


def _texts(subject: Subject) -> list[tuple[str, str]]:
    """Prompts and answers, the end token written out."""
    decode = subject.tokenizer.decode
    return [(str(decode(ids[:start])), str(decode(ids[start:]))) for ids, start in subject.answers.sequences]


def _base(subject: Subject) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(subject.base, dtype=torch.float32)


def _one_by_one(model: Any, subject: Subject) -> list[LogProbs]:
    """A sequence at a time, without padding: another way than the batches that are compared with."""
    with torch.inference_mode():
        return [
            answer_part(model(input_ids=torch.tensor([ids])).logits[0].double().numpy(), (ids, start))
            for ids, start in subject.answers.sequences
        ]
