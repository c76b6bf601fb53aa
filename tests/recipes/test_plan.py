"""What a plan says, against a run that was made."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests.taught import Taught
from unlora.artifacts import read_json, read_tensors
from unlora.config import merge
from unlora.recipes.plan.advice import judge_plan
from unlora.recipes.plan.batches import read_run_data
from unlora.recipes.plan.cost import RunPlan, make_plan
from unlora.recipes.unlearn import unlearn
from unlora.run.settings import UnlearnSettings
from unlora.training import UnlearnTrainer

STARTS: tuple[dict[str, Any], ...] = (
    {"start": {"kind": "marginal"}},
    {"start": {"kind": "contrast_inputs"}, "adapter": {"freeze_a": True}},
    {"start": {"kind": "plain"}, "objective": {"forget": "ga", "retain": "kl"}},
    {
        "start": {"kind": "vila_published", "passes": 2, "batch_size": 2},
        "objective": {"forget": "dpo"},
    },
)


def settings_of(taught: Taught, **sections: Any) -> UnlearnSettings:
    quick = {"training": {"epochs": 3, "batch_size": 3}, "evaluation": {"skip": True}}
    return taught.settings(**merge(quick, sections))


def plan_of(settings: UnlearnSettings, **options: Any) -> RunPlan:
    return make_plan(settings, read_run_data(settings), **options)


def parameters_of(file: Path) -> int:
    return sum(tensor.numel() for tensor in load_file(file).values())


@pytest.mark.parametrize("sections", STARTS, ids=["marginal", "contrast_inputs", "plain-kl", "published-dpo"])
def test_plan_agrees_with_the_run(
    taught: Taught, tmp_path: Path, sections: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    computed: list[int] = []
    compute_loss = UnlearnTrainer.compute_loss

    def counting(self: UnlearnTrainer, model: Any, inputs: dict[str, Tensor], *args: Any, **options: Any) -> Tensor:
        computed.append(inputs["input_ids"].numel())
        return compute_loss(self, model, inputs, *args, **options)

    monkeypatch.setattr(UnlearnTrainer, "compute_loss", counting)
    settings = settings_of(taught, **sections)
    plan = plan_of(settings)
    run = tmp_path / "run"
    unlearn(settings, run)
    assert plan.steps == len((run / "train_log.jsonl").read_text().splitlines()) == len(computed)
    assert plan.trained_tokens == sum(computed)
    assert plan.adapter_parameters == parameters_of(run / "adapter" / "adapter_model.safetensors")
    assert plan.parameters == parameters_of(taught.target / "model.safetensors")
    assert (plan.forget_examples, plan.retain_examples) == (4, 8)
    if not plan.importance_file:
        assert not (run / "importance.safetensors").exists()
        return
    tensors, header = read_tensors(run / "importance.safetensors")
    assert plan.importance_file == sum(tensor.nbytes for tensor in tensors.values())
    if header.get("published") is None:
        assert plan.measured_examples == header["forget"]["example_count"] + header["retain"]["example_count"]
    else:
        assert plan.measured_examples == 2 * 2 * 4  # both sets, two passes, as many as there are to forget


def test_importance_stage_is_there_only_where_something_is_measured(taught: Taught):
    full = plan_of(settings_of(taught, start={"kind": "fila"}))
    layers = {name: one for name, one in load_file(taught.target / "model.safetensors").items() if "_proj" in name}
    areas = [tensor.numel() for tensor in layers.values()]
    assert full.importance_memory["statistics"] == 4 * (2 * sum(areas) + 3 * max(areas))
    plain = plan_of(settings_of(taught, start={"kind": "plain"}))
    assert (plain.importance_memory, plain.importance_flops, plain.measured_examples) == ({}, 0, 0)


def test_flops_are_those_of_the_parameters(taught: Taught):
    """4 N for every position: forward and, into the activations, as much backward; a third more with checkpoints."""
    settings = settings_of(taught, start={"kind": "plain"}, adapter={"rank": 1})
    plan = plan_of(settings)
    weights = load_file(taught.target / "model.safetensors")
    linear = sum(one.numel() for name, one in weights.items() if "_proj" in name)
    head = weights["lm_head.weight"].numel()
    least, most = 4 * linear * plan.trained_tokens, 4 * (linear + head) * plan.trained_tokens
    assert least < plan.training_flops < 1.3 * most  # LoRA and attention are more beside layers as small as these
    checkpointed = plan_of(settings.model_copy(update={"training": settings.training.model_copy(
        update={"gradient_checkpointing": True})}))  # fmt: skip
    assert plan.training_flops < checkpointed.training_flops < 1.5 * plan.training_flops
    assert checkpointed.training_memory["activations"] < plan.training_memory["activations"]


def test_devices_share_the_batch_of_a_step_and_time_but_not_the_model(taught: Taught):
    """As in tests/distributed, where two processes make the four steps of one."""
    settings = settings_of(taught)
    reading = read_run_data(settings)
    one, two = make_plan(settings, reading), make_plan(settings, reading, devices=2)
    assert (one.steps, two.steps) == (4, 4)
    assert two.training_memory["base weights"] == one.training_memory["base weights"]
    assert two.training_memory["activations"] < one.training_memory["activations"]
    assert two.trained_tokens <= one.trained_tokens  # A share may be shorter than its batch.
    first, second = (judge_plan(settings, reading, plan, available=10**12, flops_a_second=1e9) for plan in (one, two))
    assert second.seconds[0] == pytest.approx(first.seconds[0] / 2, rel=0.1)
    # On a CPU both processes live in the same memory; each is as large as this one is at the moment.
    assert second.needed == 2 * two.peak
    assert first.fits
    assert first.advice == ()


def test_no_advice_where_no_setting_helps(taught: Taught):
    settings = settings_of(taught, start={"kind": "variance_full"}, training={"batch_size": 4})
    reading = read_run_data(settings)
    plan = make_plan(settings, reading)
    verdict = judge_plan(settings, reading, plan, available=10**6, flops_a_second=1e9)
    assert not verdict.fits
    assert plan.largest_part[0] == "process"
    assert verdict.advice == ()  # Python itself is all there is to speak of


def test_advice_lowers_the_peak_until_it_fits(taught: Taught, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unlora.recipes.plan.cost._process", lambda settings: {})
    settings = settings_of(taught, start={"kind": "variance_full"}, training={"batch_size": 4})
    reading = read_run_data(settings)
    plan = make_plan(settings, reading)
    verdict = judge_plan(settings, reading, plan, available=plan.peak // 3, flops_a_second=1e9)
    peaks = [plan.peak, *(advice.peak for advice in verdict.advice)]
    assert peaks == sorted(peaks, reverse=True)
    last = verdict.advice[-1]
    assert last.peak <= verdict.available < peaks[-2]
    changed = settings.model_dump(mode="json")
    for text in last.changes:
        key, _, value = text.partition("=")
        section, name = key.split(".")
        changed = merge(changed, {section: {name: {"true": True}.get(value, value)}})
    assert plan_of(UnlearnSettings.from_mapping(changed, where="test")).peak == last.peak


def test_plan_without_a_retain_set(taught: Taught):
    settings = settings_of(taught, data={"retain": None}, objective={"forget": "npo", "retain": None})
    plan = plan_of(settings)
    assert (plan.retain_examples, plan.retain_tokens) == (0, 0)
    assert plan.measured_examples == 4
    assert read_json(taught.target / "config.json")["vocab_size"] * 4 < plan.training_memory["logits"]
