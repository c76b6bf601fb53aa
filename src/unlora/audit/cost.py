"""What an attack will cost: tokens counted beforehand, over this machine's speed measured on the model itself."""

import time
from dataclasses import dataclass

import torch
from torch import nn

from unlora.audit.subject import AuditSubject
from unlora.data.collate import collate
from unlora.losses import Predictions
from unlora.models.forward import completion_logits
from unlora.models.generate import Writer, generate_greedy
from unlora.models.scored import scored_logits
from unlora.models.wrapping import unwrap

PROBE_EXAMPLES = 4
PROBE_NEW_TOKENS = 8
SECONDS_PER_GIGABYTE = 5.0
"""To load, write, or read and round weights: one core, and a disk that is not the limit."""


@dataclass(frozen=True)
class Cost:
    """Tokens that go through a model."""

    forward_tokens: int = 0
    """Scored: a forward pass alone."""
    training_tokens: int = 0
    """Forward and backward."""
    generated_tokens: int = 0
    """Written one by one."""
    fixed_seconds: float = 0.0
    """Loading and saving models."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.forward_tokens + other.forward_tokens,
            self.training_tokens + other.training_tokens,
            self.generated_tokens + other.generated_tokens,
            self.fixed_seconds + other.fixed_seconds,
        )

    def __mul__(self, times: int) -> "Cost":
        return Cost(
            self.forward_tokens * times,
            self.training_tokens * times,
            self.generated_tokens * times,
            self.fixed_seconds * times,
        )


@dataclass(frozen=True)
class Speed:
    """Tokens a second on this machine, from a few seconds of each kind of work."""

    forward: float
    training: float
    generation: float

    def seconds(self, cost: Cost) -> float:
        """An estimate, good to a factor of about two: batches of another size run at another speed."""
        return (
            cost.fixed_seconds
            + cost.forward_tokens / self.forward
            + cost.training_tokens / self.training
            + cost.generated_tokens / self.generation
        )


def measure_speed(subject: AuditSubject, batch_size: int) -> Speed:
    """Time one batch of scoring, of training and of generation."""
    examples = subject.tokeniser.encode_set(subject.forget.select(PROBE_EXAMPLES))
    model, pad = subject.model, subject.tokeniser.pad_token_id
    batch = {key: value.to(model.device) for key, value in collate(examples, pad).items()}
    tokens = sum(len(example.input_ids) for example in examples)
    with torch.no_grad():
        completion_logits(model, batch)  # the first pass of a process sets up its kernels
        start = time.perf_counter()
        completion_logits(model, batch).sum().item()
        forward = time.perf_counter() - start
    training = forward + _backward_seconds(model, batch)
    prompts = [example.input_ids[: example.prompt_length] for example in examples for _ in range(4)][:batch_size]
    start = time.perf_counter()
    generate_greedy(Writer(model, subject.tokeniser.tokenizer, pad, batch_size), prompts, PROBE_NEW_TOKENS)
    generation = time.perf_counter() - start
    return Speed(tokens / forward, tokens / training, len(prompts) * PROBE_NEW_TOKENS / generation)


def _backward_seconds(model: nn.Module, batch: dict[str, torch.Tensor]) -> float:
    """Seconds of a backward pass down to the embeddings, with gradients of activations only."""
    embeddings = unwrap(model).get_input_embeddings()  # pyright: ignore[reportArgumentType]
    handle = embeddings.register_forward_hook(lambda _module, _inputs, output: output.requires_grad_(True))
    try:
        predictions = Predictions.from_scored(scored_logits(model, batch), batch["labels"])
        loss = -predictions.mean_log_probs().mean()
        start = time.perf_counter()
        loss.backward()
        return time.perf_counter() - start
    finally:
        handle.remove()
