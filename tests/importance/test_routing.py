"""Which experts a set uses: counted as the model's own routers choose."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.importance.test_experts import batch, lively
from unlora.importance.routing import routing_shares, used_more
from unlora.models.experts import find_experts

ROUTERS = {"qwen3_moe": "mlp.gate", "jetmoe": "router", "llama4_text": "feed_forward.router"}
"""Class -> end of the names of what chooses the experts; each gives another kind of output."""


def chosen_by(kind: str, output: Any) -> Tensor:
    """(token, choice) -> expert, of a router's own output."""
    if kind == "jetmoe":
        return output[-1].topk(2).indices
    if kind == "llama4_text":
        return output[0].nonzero()[:, 1:]
    return next(one for one in output if not one.is_floating_point())


@pytest.mark.parametrize("kind", ROUTERS)
@torch.no_grad()
def test_shares_are_those_of_the_models_own_routers(kind: str):
    model, examples = lively(kind), batch()
    real = examples["attention_mask"].bool().flatten()
    counts: dict[str, Counter[int]] = {}

    def hook(name: str) -> Any:
        def count(_module: nn.Module, _inputs: Any, output: Any) -> None:
            chosen = chosen_by(kind, output)
            counts[name] = Counter(chosen.reshape(len(real), -1)[real].flatten().tolist())

        return count

    for name, module in model.named_modules():
        if name.endswith(ROUTERS[kind]):
            module.register_forward_hook(hook(name.removesuffix(ROUTERS[kind])))
    model(input_ids=examples["input_ids"], attention_mask=examples["attention_mask"])
    experts = find_experts(model)
    shares = routing_shares(model, experts, [examples, examples])
    assert len(shares) == len(experts) > 0
    for name, one in experts.items():
        layer = next(counts[block] for block in counts if one.parameter.startswith(block))
        assert shares[name] == pytest.approx(layer[one.index] / layer.total(), abs=1e-12), name


def test_an_expert_is_used_more_by_its_share_and_not_by_its_count():
    forget = {"a": 0.5, "b": 0.3, "c": 0.2, "d": 0.0}
    retain = {"a": 0.25, "b": 0.3, "c": 0.45, "d": 0.0}
    assert used_more(forget, retain, 0.0) == {"a", "b"}
    assert used_more(forget, retain, 0.5) == {"a"}
    assert used_more(forget, retain, 1.0) == {"a"}
    assert used_more(forget, retain, 1.5) == set()
