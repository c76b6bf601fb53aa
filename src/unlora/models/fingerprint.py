"""What decides the function of a model, as one hash."""

import hashlib

import torch

from unlora import processes
from unlora.models.wrapping import CausalModel, canonical_name, unwrap


def fingerprint(model: CausalModel) -> str:
    """Return a SHA-256 over names, shapes, dtypes and bytes of everything in the plain model's state dict.

    Tied weights count once. An adapter around the model does not change it, whatever the adapter's values.
    """
    tensors: dict[str, torch.Tensor] = {}
    for wrapped_name, tensor in unwrap(model).state_dict(keep_vars=True).items():
        name = canonical_name(wrapped_name)
        if name is not None:
            tensors[name] = tensor
    digest, seen = hashlib.sha256(), set()
    for name, tensor in sorted(tensors.items()):
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        whole = processes.whole(tensor).detach()
        digest.update(f"{name} {tuple(whole.shape)} {whole.dtype}\n".encode())
        digest.update(whole.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
