"""How many tokens a model has an embedding for: a tokenizer can have grown without it."""

from pathlib import Path

from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from unlora.models.adapter_target import is_adapter, recorded_base
from unlora.models.load import read_config
from unlora.models.locate import locate
from unlora.models.reading import reading


def embedding_count(model: PreTrainedModel) -> int | None:
    """Rows of the input embedding; None where it is no table."""
    embedding = model.get_input_embeddings()
    return embedding.num_embeddings if isinstance(embedding, nn.Embedding) else None


def recorded_embedding_count(name: str, *, base: str | None = None, trust_remote_code: bool = False) -> int | None:
    """The same as a model's config says it, without the model; None where it says nothing.

    Of an adapter: the rows of its base's, or of the larger table that it brings along.
    """
    if is_adapter(name):
        below = recorded_embedding_count(base or recorded_base(Path(name)), trust_remote_code=trust_remote_code)
        return None if below is None else max(below, _longest_matrix(Path(name) / "adapter_model.safetensors"))
    config = read_config(name, locate(name), trust_remote_code)
    count = getattr(config.get_text_config(), "vocab_size", None)
    return count if isinstance(count, int) else None


def _longest_matrix(adapter: Path) -> int:
    """Rows of the longest matrix in an adapter's file that is not a LoRA factor: only an embedding has so many."""
    if not adapter.is_file():
        return 0
    with reading(f"{adapter}: cannot be read"), safe_open(adapter, "pt") as tensors:
        shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys() if ".lora_" not in key]
    return max((shape[0] for shape in shapes if len(shape) == 2), default=0)
