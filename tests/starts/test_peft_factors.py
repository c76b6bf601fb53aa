"""PEFT's starts through copies and a borrowed model: the same factors as PEFT's own way, and a model left alone."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import EvaConfig, LoraConfig, LoraGAConfig, PeftModel, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from torch import Tensor, nn

from tests.adapters.models import FORGET, RETAIN
from tests.tiny import build_tiny_model
from unlora.adapters.anchored import factor_parameters, lora_layers
from unlora.adapters.initial import FactorRequest
from unlora.errors import InputError
from unlora.models.fingerprint import fingerprint
from unlora.models.target_modules import find_target_modules, peft_target_modules
from unlora.starts import peft_factors, peft_layers
from unlora.starts.initialise import initial_factors
from unlora.starts.peft_factors import corda_factors, data_free_factors, eva_factors, lora_ga_factors

ARCHITECTURES = ["llama", "gpt2"]
RANK, SCALING = 8, 1.5
ASKED = FactorRequest(RANK, SCALING)
"""Twice the rank is the narrowest layer's width, and four times it all but the widest: LoRA-GA's SVD is exact."""


def config_for(model: nn.Module, kind: str, rank: int = RANK, **parts) -> LoraConfig:
    """The configuration a user of PEFT would write."""
    targets = find_target_modules(model)
    return LoraConfig(
        init_lora_weights=kind,
        r=rank,
        lora_alpha=rank * SCALING,
        target_modules=peft_target_modules(model, list(targets)),
        fan_in_fan_out=any(target.transposed for target in targets.values()),
        **parts,
    )


def factors_in(model: PeftModel) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of every layer."""
    return {name: tuple(value.detach() for value in factor_parameters(layer)) for name, layer in lora_layers(model)}


def alone(batches: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Every example for itself and without its padding."""
    return [
        {key: value[row : row + 1, : int(batch["attention_mask"][row].sum())] for key, value in batch.items()}
        for batch in batches
        for row in range(len(batch["labels"]))
    ]


def test_olora_is_pefts():
    model, other = build_tiny_model("llama"), build_tiny_model("llama")
    expected = factors_in(get_peft_model(other, config_for(other, "olora")))
    found = data_free_factors("olora", find_target_modules(model), ASKED)
    assert list(found) == list(expected)
    for name, (lora_a, lora_b) in expected.items():
        assert torch.equal(found[name].lora_a, lora_a)
        assert torch.equal(found[name].lora_b, lora_b)


def test_olora_of_a_transposed_layer_decomposes_what_the_layer_multiplies_by():
    targets = find_target_modules(build_tiny_model("gpt2"))
    for name, start in data_free_factors("olora", targets, ASKED).items():
        weight = targets[name].weight()
        torch.testing.assert_close(start.lora_b.T @ start.lora_b, torch.eye(RANK), atol=1e-5, rtol=0)
        torch.testing.assert_close(start.lora_b @ start.lora_a[:, :RANK], weight[:, :RANK], atol=1e-5, rtol=0)
        lost = (weight - SCALING * start.lora_b @ start.lora_a).norm() / weight.norm()
        assert start.relative_residual == pytest.approx(float(lost), rel=1e-5)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_our_uniform_start_is_pissa(arch: str):
    targets = find_target_modules(build_tiny_model(arch))
    pissa = data_free_factors("pissa", targets, ASKED)
    uniform = initial_factors(targets, None, rank=RANK, scaling=SCALING)
    for name, start in uniform.items():
        expected = pissa[name].lora_b @ pissa[name].lora_a
        torch.testing.assert_close(start.lora_b @ start.lora_a, expected, atol=1e-4, rtol=0)
        assert start.relative_residual == pytest.approx(pissa[name].relative_residual, rel=1e-3)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_corda_is_pefts_knowledge_preserved_mode(arch: str):
    model, other = build_tiny_model(arch), build_tiny_model(arch)
    config = config_for(other, "corda", corda_config=CordaConfig(corda_method="kpm"))

    def read() -> None:
        for batch in alone(RETAIN):
            other(batch["input_ids"])

    preprocess_corda(other, config, run_model=read)
    adapted = get_peft_model(other, config)
    assert fingerprint(adapted) != fingerprint(model)  # which is what we avoid
    found = corda_factors(model, find_target_modules(model), RETAIN, ASKED)
    for name, (lora_a, lora_b) in factors_in(adapted).items():
        torch.testing.assert_close(found[name].lora_b @ found[name].lora_a, lora_b @ lora_a, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(found[name].lora_a, lora_a, atol=1e-4, rtol=1e-3)
    assert {start.status for start in found.values()} == {"corda"}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_eva_is_pefts_without_redistributed_ranks(arch: str):
    model, other = build_tiny_model(arch), build_tiny_model(arch)
    with pytest.warns(UserWarning, match="low_cpu_mem_usage"):
        adapted = get_peft_model(other, config_for(other, "eva", 4, eva_config=EvaConfig(rho=1.0)))
    initialize_lora_eva_weights(adapted, FORGET, show_progress_bar=False)
    found = eva_factors(model, find_target_modules(model), FORGET, rank=4)
    for name, (lora_a, lora_b) in factors_in(adapted).items():
        torch.testing.assert_close(found[name].lora_a, lora_a, atol=1e-5, rtol=1e-4)
        assert torch.equal(found[name].lora_b, lora_b)
        assert not lora_b.any()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_lora_ga_is_pefts_with_the_mean_gradient_over_examples(arch: str):
    """Singular vectors have no sign. For GPT-2, PEFT scales B by the input width in place of the output width."""
    model, other = build_tiny_model(arch), build_tiny_model(arch)
    config = config_for(other, "lora_ga", lora_ga_config=LoraGAConfig())

    def train_step() -> None:
        for batch in alone(FORGET):
            scores = other(batch["input_ids"]).logits[0, :-1].log_softmax(dim=-1)
            labels = batch["labels"][0, 1:]
            kept = labels != -100
            (-scores[kept, labels[kept]].mean()).backward()

    with pytest.warns(UserWarning, match="Full backward hook"):
        preprocess_loraga(other, config, train_step)
    adapted = get_peft_model(other, config)
    targets = find_target_modules(model)
    found = lora_ga_factors(model, targets, FORGET, ASKED)
    for name, (lora_a, lora_b) in factors_in(adapted).items():
        target = targets[name]
        width = (target.d_out / target.d_in) ** 0.25 if target.transposed else 1.0
        signs_a = (found[name].lora_a * lora_a).sum(dim=1).sign()
        signs_b = (found[name].lora_b * lora_b).sum(dim=0).sign()
        torch.testing.assert_close(found[name].lora_a * signs_a[:, None], lora_a, atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(
            found[name].lora_b * signs_b, lora_b * width, atol=2e-3 * float(lora_b.max()), rtol=0
        )


def test_lora_ga_draws_from_its_own_seed_and_from_nothing_else():
    model = build_tiny_model("llama")
    targets = find_target_modules(model, ["down_proj"])

    def factors(seed: int) -> Tensor:
        state = torch.get_rng_state()
        found = lora_ga_factors(model, targets, FORGET, FactorRequest(4, SCALING, seed))
        assert torch.equal(torch.get_rng_state(), state)
        return found["model.layers.1.mlp.down_proj"].lora_a

    first = factors(0)
    torch.manual_seed(5)
    assert torch.equal(factors(0), first)
    assert not torch.equal(factors(1), first)


def test_eva_joins_batches_that_have_too_few_tokens():
    """Tokens decide, not batches: the directions of the joined batch are those of the small ones together."""
    model, whole = build_tiny_model("llama", layers=1), token_lines(12)
    targets = find_target_modules(model, ["q_proj", "down_proj"])
    alone = [{key: value[row : row + 1] for key, value in whole.items()} for row in range(12)]
    pairs = [{key: value[row : row + 2] for key, value in whole.items()} for row in range(0, 12, 2)]
    joined = peft_factors._joined(alone, least=16)
    assert [batch["input_ids"].tolist() for batch in joined] == [batch["input_ids"].tolist() for batch in pairs]
    found, expected = (eva_factors(model, targets, batches, rank=6) for batches in (alone, pairs))
    for name, start in expected.items():
        assert torch.equal(found[name].lora_a, start.lora_a)


def token_lines(count: int) -> dict[str, Tensor]:
    """Lines of 20 tokens, the last 10 of which are scored."""
    ids = torch.randint(2, 128, (count, 20), generator=torch.Generator().manual_seed(3))
    labels = ids.clone()
    labels[:, :10] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def test_leftovers_of_different_lengths_are_joined_with_padding():
    first, second = token_lines(2), {key: value[:1, 5:15] for key, value in token_lines(1).items()}
    (joined,) = peft_factors._joined([first, second], least=20)
    assert joined["attention_mask"].tolist() == [[1] * 20, [1] * 20, [1] * 10 + [0] * 10]
    assert joined["labels"][2, :5].eq(-100).all()
    assert joined["labels"][2, 10:].eq(-100).all()
    assert torch.equal(joined["labels"][2, 5:10], second["labels"][0, 5:])


Factors = Callable[[nn.Module, dict, list], dict]
DATA_DRIVEN: list[Factors] = [
    lambda model, targets, batches: corda_factors(model, targets, batches, FactorRequest(4, 1.0)),
    lambda model, targets, batches: eva_factors(model, targets, batches, rank=4),
    lambda model, targets, batches: lora_ga_factors(model, targets, batches, FactorRequest(4, 1.0)),
]


@pytest.mark.parametrize("factors", DATA_DRIVEN, ids=["corda", "eva", "lora_ga"])
def test_layer_that_takes_no_part_is_named(factors: Factors):
    model = build_tiny_model("llama")
    model.spare = nn.Linear(8, 8)
    with pytest.raises(InputError, match="target module 'spare' took no part in the forward pass; leave it out"):
        factors(model, find_target_modules(model), FORGET)


@pytest.mark.parametrize("factors", DATA_DRIVEN, ids=["corda", "eva", "lora_ga"])
def test_set_without_examples_is_refused(factors: Factors):
    model = build_tiny_model("llama")
    with pytest.raises(InputError, match="set"):
        factors(model, find_target_modules(model), [])


def test_rank_must_fit():
    model = build_tiny_model("llama")
    targets = find_target_modules(model)
    with pytest.raises(InputError, match=r"adapter\.rank: lora_ga takes 2 x 9 singular vectors"):
        lora_ga_factors(model, targets, FORGET, FactorRequest(9, 1.0))
    for rank in (0, 17):
        with pytest.raises(InputError, match=rf"adapter\.rank: {rank} does not fit"):
            data_free_factors("olora", targets, FactorRequest(rank, 1.0))
        with pytest.raises(InputError, match=rf"adapter\.rank: {rank} does not fit"):
            eva_factors(model, targets, FORGET, rank=rank)


def test_eva_refuses_too_few_tokens_and_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch):
    model = build_tiny_model("llama")
    targets = find_target_modules(model)
    with pytest.raises(InputError, match="10 completion tokens; the rank asks for at least 16"):
        eva_factors(model, targets, [token_lines(1)], rank=8)
    monkeypatch.setattr(peft_factors, "EVA_STEPS", 0)
    with pytest.raises(InputError, match="rank 8 has not converged after 6 steps"):
        eva_factors(model, targets, FORGET, rank=8)


@pytest.mark.parametrize(
    ("missing", "factors"), [("corda", DATA_DRIVEN[0]), ("eva", DATA_DRIVEN[1]), ("loraga", DATA_DRIVEN[2])]
)
def test_peft_that_has_no_such_initialiser_is_named(missing: str, factors: Factors, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, f"peft.tuners.lora.{missing}", None)
    model = build_tiny_model("llama")
    version = "0.19" if missing == "loraga" else "0.18"
    with pytest.raises(InputError, match=rf"needs peft {version} or newer \(installed: "):
        factors(model, find_target_modules(model), FORGET)


def test_a_module_that_peft_lacks_is_not_called_an_old_peft(monkeypatch: pytest.MonkeyPatch):
    """PEFT 0.21's CorDA imports attrs, which PEFT does not ask for (findings/peft-corda-attrs.sh)."""

    def fail(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'attr'", name="attr" if name.endswith("corda") else name)

    monkeypatch.setattr(peft_layers.importlib, "import_module", fail)
    with pytest.raises(InputError, match=r"corda: PEFT .* needs the module 'attr' for it, which is not installed"):
        peft_layers.peft_module("corda", "tuners.lora.corda", "0.18")
    with pytest.raises(InputError, match=r"eva: needs peft 0\.18 or newer"):
        peft_layers.peft_module("eva", "tuners.lora.eva", "0.18")
