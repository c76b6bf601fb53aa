"""A model that unlearning has wrecked: the target under an adapter of random weights."""

import dataclasses
from pathlib import Path

import torch

from tests.audit.subjects import never_unlearned
from unlora.audit.subject import AuditSubject


def broken(subject: AuditSubject, folder: Path, *, size: float) -> AuditSubject:
    """The subject with an unlearned model that says anything; `size` is the spread of the adapter's weights."""
    found = never_unlearned(subject, folder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in found.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, size, generator=generator)
    return dataclasses.replace(found, hashes={**found.hashes, "unlearned": f"broken by {size}"})
