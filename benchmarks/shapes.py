"""Models and examples to measure with: the embedded one, and shapes whose weights are drawn where they are needed."""

import argparse
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import psutil
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedModel, Qwen3MoeConfig

from benchmarks.measuring import positive
from unlora.data.collate import collate, shortest_first
from unlora.data.people import generate_people
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.errors import InputError
from unlora.models.load import load_model
from unlora.runtime import DTYPES, resolve_device, resolve_dtype

SMOLLM2 = "smollm2"
CONFIGS = {
    "llama2-7b": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "llama3-1b": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "llama3-8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "tiny": {
        "vocab_size": 256,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
}
MIXTURE = "mixture"
CONFIGS[MIXTURE] = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 256,
}
"""Qwen3-MoE's class, a tenth of the width of its 30B: 80 % of the weights are experts, a quarter of them a token's."""
SHAPES = (SMOLLM2, *CONFIGS)
QUESTIONS_A_PERSON = 6
PROMPT_TOKENS, ANSWER_TOKENS = (10, 24), (8, 40)
"""Smallest and largest length of a random prompt and answer: about those of the fictitious people, and of TOFU."""

DEPTHS = {SMOLLM2: 30, **{shape: sizes["num_hidden_layers"] for shape, sizes in CONFIGS.items()}}
"""Blocks of the whole model."""

Batches = list[dict[str, Tensor]]


class Subject(NamedTuple):
    """What is measured, and on which tokens."""

    model: PreTrainedModel
    forget: list[TokenisedExample]
    retain: list[TokenisedExample]
    pad_token_id: int

    def batches(self, batch_size: int) -> tuple[Batches, Batches]:
        """Forget and retain batches, examples of one length together."""
        return self._batches(self.forget, batch_size), self._batches(self.retain, batch_size)

    def _batches(self, examples: Sequence[TokenisedExample], batch_size: int) -> Batches:
        rows_of_batches = shortest_first(examples, batch_size)
        return [collate([examples[row] for row in rows], self.pad_token_id) for rows in rows_of_batches]

    def facts(self) -> dict[str, int]:
        """Sizes of both sets and of the model, for the record."""
        both = [*self.forget, *self.retain]
        return {
            "layers": self.model.config.num_hidden_layers,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "model_bytes": sum(parameter.nbytes for parameter in self.model.parameters()),
            "examples": len(both),
            "tokens": sum(len(example.input_ids) for example in both),
            "scored_tokens": sum(len(example.input_ids) - example.prompt_length for example in both),
        }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that say what is measured."""
    parser.add_argument("--shape", choices=SHAPES, default=SMOLLM2, help="smollm2 is the embedded, real model")
    parser.add_argument("--layers", type=positive, help="cut the model to so many blocks")
    parser.add_argument("--dtype", choices=["auto", *DTYPES], default="auto", help="auto: float32 on a CPU")
    parser.add_argument("--examples", type=positive, default=24, help="in each set, some 30 tokens each")


def subject(options: argparse.Namespace) -> Subject:
    """Build what the options ask for; smollm2 gets questions about fictitious people, the others random tokens.

    Raises:
        InputError: no such device, more layers than the model has, or weights that do not fit the memory.
    """
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    if options.shape == SMOLLM2:
        return _embedded(options, device, dtype)
    model = random_model(options.shape, options.layers, device=device, dtype=dtype, seed=options.seed)
    examples = random_examples(2 * options.examples, model.config.vocab_size, options.seed)
    return Subject(model, examples[: options.examples], examples[options.examples :], pad_token_id=0)


def random_model(
    shape: str, layers: int | None, *, device: torch.device, dtype: torch.dtype, seed: int = 0, **changed: int
) -> PreTrainedModel:
    """Draw a model's weights where it will be used; `changed` are entries of its config.

    Raises:
        InputError: more layers than the shape has, or weights that do not fit the memory.
    """
    sizes: dict[str, Any] = CONFIGS[shape] | {"num_hidden_layers": _cut(shape, layers)} | changed
    made: type[PretrainedConfig] = Qwen3MoeConfig if shape == MIXTURE else LlamaConfig
    config = made(**sizes, pad_token_id=0, bos_token_id=1, eos_token_id=1, max_position_embeddings=4096)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    _refuse_unless_fits(shape, parameters * dtype.itemsize, device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.requires_grad_(False).eval()


def random_examples(
    count: int, vocab_size: int, seed: int, lengths: tuple[int, int] | None = None
) -> list[TokenisedExample]:
    """Random tokens, in questions and answers of random length, or of `lengths` tokens each."""
    draw = random.Random(seed)
    examples = []
    for index in range(count):
        prompt, answer = lengths or (draw.randint(*PROMPT_TOKENS), draw.randint(*ANSWER_TOKENS))
        ids = tuple(draw.randrange(2, vocab_size) for _ in range(prompt + answer))
        examples.append(TokenisedExample(ids, prompt, truncated=False, source=f"random {index}"))
    return examples


def _embedded(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> Subject:
    loaded = load_model("embedded", dtype=dtype, device=device)
    model = loaded.model
    model.config.num_hidden_layers = _cut(options.shape, options.layers)
    model.model.layers = nn.ModuleList(model.model.layers[: model.config.num_hidden_layers])
    tokeniser = ExampleTokeniser(loaded.tokenizer, template="plain", max_length=512)
    people = -(-options.examples // QUESTIONS_A_PERSON)
    asked = tokeniser.encode_set(generate_people(2 * people))
    half = len(asked) // 2
    forget, retain = asked[:half][: options.examples], asked[half:][: options.examples]
    return Subject(model, forget, retain, tokeniser.pad_token_id)


def _cut(shape: str, layers: int | None) -> int:
    if layers is not None and layers > DEPTHS[shape]:
        raise InputError(f"--layers {layers}: {shape} has {DEPTHS[shape]}.")
    return layers or DEPTHS[shape]


def _refuse_unless_fits(shape: str, size: int, device: torch.device) -> None:
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if size > free:
        raise InputError(
            f"--shape {shape}: its weights take {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; give fewer --layers."
        )
