"""What `plan` says of mixtures, hybrids and models of several parts, against what is measured on tiny ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, UntypedStorage

from unlora.adapters.anchored import attach_plain_adapter
from unlora.importance.hooks import measuring
from unlora.importance.taps import tapped
from unlora.models.experts import experts_tensor, whole_tensors
from unlora.models.load import load_model
from unlora.models.skeleton import footprint
from unlora.models.target_modules import find_target_modules
from unlora.recipes.plan.batches import measured_shapes, read_run_data, training_shapes
from unlora.recipes.plan.cost import _largest, make_plan
from unlora.run.starting import chosen_start
from unlora.run.targets import choose_targets
from unlora_research.model_map.path import _make, _settings

KINDS = (
    "llama", "qwen3_moe", "gpt_oss", "deepseek_v3", "bamba", "llava", "dbrx", "jetmoe", "longcat_flash", "molmo2",
    "openai-gpt", "qwen3_omni_moe_thinker", "step3p7",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_weights_reach_and_memory_by_part_are_those_of_the_run(kind: str, tmp_path: Path):
    made = _make(kind, tmp_path, {})
    settings = _settings(made, "marginal")
    reading = read_run_data(settings)
    plan = make_plan(settings, reading)
    model: Any = load_model(str(made.folder), device=torch.device("cpu")).model
    start = chosen_start(settings)
    choice = choose_targets(settings.adapter, start, model, settings.objective)
    assert plan.parameters == sum(one.numel() for one in model.parameters())
    assert plan.reach == choice.reach
    assert plan.training_memory["base weights"] == sum(one.nbytes for one in model.parameters())
    batch = _largest(list(measured_shapes(start, reading.sets, settings.seed)))
    with measuring(model), tapped(choice.targets, lambda *_: None) as taps:
        taps.start_batch(batch.rows, batch.length)
        kept = footprint(model, batch.rows, batch.length).activation_bytes
    assert plan.importance_memory["activations"] == pytest.approx(kept, rel=0.1)
    batch = _largest(list(training_shapes(settings, reading, 1)))
    adapted = attach_plain_adapter(model, choice.targets, rank=2 * settings.adapter.rank, alpha=1)
    factors = [one for name, one in adapted.named_parameters() if ".lora_" in name]
    assert plan.training_memory["adapter"] == sum(one.nbytes for one in factors)
    ids = torch.ones(2, 5, dtype=torch.long)
    optimiser = torch.optim.AdamW(factors)
    adapted(input_ids=ids, labels=ids).loss.backward()
    optimiser.step()
    moments = [state[name] for state in optimiser.state.values() for name in ("exp_avg", "exp_avg_sq")]
    kept = sum(one.nbytes for one in moments) + sum(one.nbytes for one in factors)
    assert plan.training_memory["gradients and AdamW"] == pytest.approx(kept, rel=0.1)
    kept = footprint(adapted, batch.rows, batch.length).activation_bytes
    assert plan.training_memory["activations"] == pytest.approx(kept, rel=0.1)
    tensors = [experts_tensor(held[0]) for held in whole_tensors(choice.targets).values()]
    assert plan.training_memory.get("experts with their update", 0) == pytest.approx(
        sums_kept(adapted, tensors), rel=0.1
    )


def sums_kept(model: Any, tensors: Sequence[Tensor]) -> int:
    """Bytes that a forward pass keeps in tensors as large as these, of which it reads slices, that are none of them."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes = {(tensor.nbytes, *sorted(tensor.shape[-2:])) for tensor in tensors}
    kept = dict[int, UntypedStorage]()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if (storage.nbytes(), *sorted(tensor.shape[-2:])) in sizes and storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=torch.ones(2, 5, dtype=torch.long)).logits.sum().backward()
    return sum(storage.nbytes() for storage in kept.values())


def test_anchored_adapter_on_a_layer_as_narrow_as_the_rank(tmp_path: Path):
    """Doge has a layer of two outputs: rank 2 fits it, and the halves together are of rank 4."""
    made = _make("doge", tmp_path, {})
    settings = _settings(made, "marginal")
    model = load_model(str(made.folder), device=torch.device("cpu")).model
    sides = [(one.d_out, one.d_in) for one in find_target_modules(model).values()]
    assert settings.adapter.rank == min(min(pair) for pair in sides)
    assert make_plan(settings, read_run_data(settings)).adapter_parameters == 4 * sum(map(sum, sides))
