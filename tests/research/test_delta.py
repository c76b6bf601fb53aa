"""Erasing in a delta: the closed form against least squares, the dial's two ends, and the study by its command."""

import json
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.taught import PAD, Taught
from tests.training.runs import logits
from tests.training.test_shared_shift import moved
from unlora.adapters.export import load_trained_adapter
from unlora.data.collate import collate
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError
from unlora.models.load import load_model
from unlora_research import delta, delta_edit
from unlora_research.delta_edit import DAMPING, Dial, erased_a, input_moments

WIDTH, RANK = 12, 3


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pi(forget: Tensor, retain: Tensor, weight: float) -> Tensor:
    """The matrix itself: what is taken from the identity."""
    identity = torch.eye(len(forget), dtype=torch.float64)
    return identity - erased_a(identity, forget, retain, Dial(1.0, weight, 0.0, 0))


@pytest.mark.parametrize("weight", [0.1, 1.0, 5.0])
def test_closed_form_is_the_least_squares_solution(weight: float):
    forget, retain, lora_a = drawn(4, WIDTH), drawn(7, WIDTH, seed=1), drawn(RANK, WIDTH, seed=2)
    s_f, s_r = forget.T @ forget, retain.T @ retain
    damping = DAMPING * (s_f + weight * s_r).trace() / WIDTH
    inputs = torch.cat([forget, weight**0.5 * retain, damping**0.5 * torch.eye(WIDTH, dtype=torch.float64)])
    wanted = inputs @ lora_a.T
    wanted[: len(forget)] = 0
    expected = torch.linalg.lstsq(inputs, wanted).solution.T
    torch.testing.assert_close(erased_a(lora_a, s_f, s_r, Dial(1.0, weight, 0.0, 0)), expected)
    part = erased_a(lora_a, s_f, s_r, Dial(0.25, weight, 0.5, 0))
    torch.testing.assert_close(part, 0.5 * (0.75 * lora_a + 0.25 * expected))


def test_it_is_the_ridge_form_at_the_inverse_weight(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(delta_edit, "DAMPING", 0.0)
    forget, retain, lora_a = drawn(40, WIDTH), drawn(40, WIDTH, seed=1), drawn(RANK, WIDTH, seed=2)
    s_f, s_r = forget.T @ forget, retain.T @ retain
    ridge = lora_a @ s_r @ torch.linalg.inv(s_r + 3.0 * s_f)
    torch.testing.assert_close(erased_a(lora_a, s_f, s_r, Dial(1.0, 1 / 3.0, 0.0, 0)), ridge)


def test_it_projects_where_inputs_are_at_right_angles_and_shrinks_where_they_overlap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(delta_edit, "DAMPING", 1e-7)
    basis = torch.linalg.qr(drawn(WIDTH, WIDTH)).Q
    forget, retain = drawn(4, 3, seed=1) @ basis[:3], drawn(9, 5, seed=2) @ basis[3:8]
    once = pi(forget.T @ forget, retain.T @ retain, 1.0)
    torch.testing.assert_close(once @ once, once, atol=1e-5, rtol=0)
    torch.testing.assert_close(forget @ once.T, forget, atol=1e-5, rtol=0)
    torch.testing.assert_close(retain @ once.T, torch.zeros_like(retain), atol=1e-5, rtol=0)

    both = drawn(9, WIDTH, seed=3)
    mixed = pi(forget.T @ forget + both.T @ both, both.T @ both, 1.0)
    values = torch.linalg.eigvals(mixed).real
    assert -1e-8 < float(values.min())
    assert float(values.max()) < 1 + 1e-8
    # Directions that both use alike are halved: taking twice takes more than taking once.
    assert ((values > 0.4) & (values < 0.6)).any()
    assert float((mixed @ mixed - mixed).abs().max()) > 0.05


def test_without_a_forget_set_or_with_the_dial_at_nought_nothing_changes():
    lora_a, moment = drawn(RANK, WIDTH).float(), drawn(WIDTH, WIDTH, seed=1)
    s_f, nothing = (moment @ moment.T).float(), torch.zeros(WIDTH, WIDTH)
    assert torch.equal(erased_a(lora_a, nothing, s_f, Dial(1.0, 0.3, 0.0, 9)), lora_a)
    assert torch.equal(erased_a(lora_a, s_f, s_f, Dial(0.0, 0.3, 0.0, 9)), lora_a)
    assert torch.equal(erased_a(lora_a, s_f, s_f, Dial(0.0, 0.3, 0.5, 9)), 0.5 * lora_a)


@pytest.mark.parametrize("dial", [(1.5, 1, 0, 0), (1, 0, 0, 0), (1, 1, -0.1, 0), (1, 1, 0, -1)])
def test_a_dial_that_there_is_not_is_refused(dial: tuple[float, float, float, int]):
    with pytest.raises(InputError, match="dial: "):
        Dial(*dial).checked()


def test_moments_are_those_of_every_token_of_every_example_read_alone(taught: Taught):
    model, examples = moved(taught), taught.tokens(taught.forget)
    found = input_moments(model, examples, pad_token_id=PAD, batch_size=3)
    layer = "model.layers.1.mlp.down_proj"
    seen: list[Tensor] = []
    module = model.get_submodule(f"base_model.model.{layer}")
    handle = module.register_forward_pre_hook(lambda _module, given: seen.append(given[0][0]))
    for one in examples:
        logits(model, collate([one], PAD))
    handle.remove()
    assert len({len(rows) for rows in seen}) > 1  # rows were filled up in a batch
    torch.testing.assert_close(found[layer], sum(rows.T @ rows for rows in seen) / len(seen), atol=1e-4, rtol=1e-4)
    assert not any(one.any() for one in input_moments(model, [], pad_token_id=PAD).values())


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["delta", *map(str, words)])
    delta.main()


def tensors(adapter: Path) -> dict[str, Tensor]:
    return load_file(adapter / "adapter_model.safetensors")


def test_from_a_tiny_world_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    stops = ("target", "strong", "retrained")
    asked = [tmp_path, "--world", 0, "--quick", "--stop", *stops, "--dial", 1, 0.5, 0.25, 2, "--attacker"]
    run(monkeypatch, *asked, "lora_2e-4_few")
    place = tmp_path / "world-0"
    models, adapters = place / "models", place / "adapters"
    found = {name: tensors(adapters / name) for name in (*stops, "1-0.5-0.25-2")}
    target, control = tensors(models / "target"), tensors(models / "retain_only")

    # The dial's two ends: nothing at all, and what was trained without the forget set.
    assert all(torch.equal(found["target"][name], value) for name, value in target.items())
    assert all(torch.equal(found["retrained"][name], value) for name, value in control.items())
    # Erasing leaves B; healing trains both.
    changed = {name for name, value in found["strong"].items() if not torch.equal(value, target[name])}
    assert changed == {name for name in target if ".lora_A." in name}
    assert all(not torch.equal(value, target[name]) for name, value in found["1-0.5-0.25-2"].items())

    record = json.loads((place / "strong.json").read_text())
    assert (record["dial"], record["seconds"] > 0) == ({"k": 1.0, "l": 0.3, "a": 0.0, "steps": 0}, True)
    printed = capsys.readouterr().out
    assert [name for name in ("control", *found) if f"| `{name}` |" not in printed] == []
    times = {path: path.stat().st_mtime_ns for path in place.rglob("*.json")}
    run(monkeypatch, *asked, "lora_2e-4_few")
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*.json")} == times

    # Plain PEFT loads what was exported, on the base, and computes the same.
    base = json.loads((adapters / "strong" / "adapter_config.json").read_text())["base_model_name_or_path"]
    loaded = load_model(base, device=torch.device("cpu"))
    tokeniser = ExampleTokeniser(loaded.tokenizer, template="plain", max_length=256)
    batch = collate(tokeniser.encode_set(load_examples(str(models / "forget.jsonl"))), tokeniser.pad_token_id)
    ours = logits(load_trained_adapter(loaded.model, adapters / "strong").eval(), batch)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapters / "strong")).eval()
    assert torch.equal(logits(plain, batch), ours)


def test_wrong_use_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for words in ((tmp_path, "--table"), (tmp_path, "--world", 0, "--quick", "--stop", "target", "--dial", 2, 1, 0, 0)):
        with pytest.raises(SystemExit) as ended:
            run(monkeypatch, *words)
        assert ended.value.code == 2
        assert capsys.readouterr().err.startswith("error: ")
