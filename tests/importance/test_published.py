"""The released measurement against its formulas in plain loops, and a model that is left as it was."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from tests.importance import published_reference as literal
from tests.importance.published_reference import tokenised
from tests.importance.reference import assert_near, batch_of, examples
from tests.tiny import ARCHITECTURES, Architecture, build_tiny_model
from unlora.errors import InputError
from unlora.importance import ImportanceMap
from unlora.importance.published import (
    PublishedSpace,
    estimate_published_importance,
    inserted,
    make_probes,
    paired_rows,
    token_mean_loss,
)
from unlora.models.fingerprint import fingerprint
from unlora.models.target_modules import find_target_modules

FORGET, RETAIN = examples(), examples(((8, 3), (13, 5), (6, 1), (10, 6)), seed=2)
SPACES: tuple[PublishedSpace, ...] = ("lora_factors", "full_weights")
BOTH = pytest.mark.parametrize("space", SPACES)
CHOSEN = {"rank": 3, "scaling": 1.5, "probe_std": 0.2, "seed": 5, "passes": 2, "batch_size": 3}


def measure(model: PreTrainedModel, space: PublishedSpace, **options) -> ImportanceMap:
    chosen = {"pad_token_id": 3, **CHOSEN, **options}
    return estimate_published_importance(model, tokenised(FORGET), tokenised(RETAIN), space=space, **chosen)


def literal_probes(model: PreTrainedModel, space: PublishedSpace) -> literal.Probes:
    if space == "full_weights":
        return {}
    probes = make_probes(find_target_modules(model), rank=3, probe_std=0.2, seed=5)
    return {
        name: {key: value.clone() for key, value in (("lora_b", probe.lora_b), ("lora_a", probe.lora_a))}
        for name, probe in probes.items()
    }


def literal_sums(arch: Architecture, space: PublishedSpace) -> tuple[literal.Sums, literal.Sums]:
    model = build_tiny_model(arch).double()
    steps = list(paired_rows(len(FORGET), len(RETAIN), 2, 3, 5))
    probes = literal_probes(model, space)
    return (
        literal.sums(model, FORGET, [rows for rows, _ in steps], probes, 1.5),
        literal.sums(model, RETAIN, [rows for _, rows in steps], probes, 1.5),
    )


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
@BOTH
def test_both_sets_equal_the_formulas_in_plain_loops(arch: Architecture, space: PublishedSpace):
    importance = measure(build_tiny_model(arch).double(), space)
    fields = ("lora_b", "lora_a") if space == "lora_factors" else ("values",)
    for set_name, sums in zip(("forget", "retain"), literal_sums(arch, space), strict=True):
        counts = getattr(importance.metadata, set_name)
        assert counts.token_count == sums.label_count
        for name in importance:
            for field in fields:
                wanted = literal.variance(sums, (name, field)) if len(fields) == 2 else sums.second[name, field]
                found = getattr(getattr(importance[name], set_name), field)
                assert found.dtype == torch.float32
                assert_near(found, torch.tensor(wanted, dtype=torch.float64), 1e-6)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_probed_model_has_the_loss_of_a_model_with_the_product_written_in(arch: Architecture):
    model = build_tiny_model(arch).double()
    targets = find_target_modules(model)
    probes = make_probes(targets, rank=3, probe_std=0.2, seed=5)
    batch = batch_of(FORGET, padding=2)
    with torch.no_grad():
        untouched = float(token_mean_loss(model, batch))
        with inserted(targets, probes, 1.5):
            found = float(token_mean_loss(model, batch))
        for name, probe in probes.items():
            update = 1.5 * probe.lora_b @ probe.lora_a
            weight = targets[name].module.get_parameter("weight")
            weight += update.T if targets[name].transposed else update
        written = float(token_mean_loss(model, batch))
    assert found == pytest.approx(written, rel=1e-10)
    assert abs(found - untouched) > 1e-2, "the probe does nothing"


def test_loss_is_the_mean_over_all_tokens_of_the_batch_as_hugging_face_takes_it():
    model, batch = build_tiny_model("llama"), batch_of(FORGET)
    with torch.no_grad():
        assert float(token_mean_loss(model, batch)) == pytest.approx(float(model(**batch).loss), rel=1e-6)


class Interrupted(Exception):
    """Raised from within a measurement."""


@BOTH
@pytest.mark.parametrize("interrupted", [False, True])
def test_model_is_left_as_it_was(space: PublishedSpace, interrupted: bool):
    model = build_tiny_model("llama")
    model.train()
    kept = model.get_parameter("model.layers.0.mlp.up_proj.weight")
    kept.grad = torch.ones_like(kept)
    kept.requires_grad_(False)
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    before, state = fingerprint(model), torch.get_rng_state()

    def stop(_count: int) -> None:
        raise Interrupted

    if interrupted:
        with pytest.raises(Interrupted):
            measure(model, space, progress=stop)
    else:
        measure(model, space)
    assert fingerprint(model) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == wanted
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == [
        "model.layers.0.mlp.up_proj.weight"
    ]
    assert torch.equal(kept.grad, torch.ones_like(kept))
    for module in model.modules():
        assert not module._forward_hooks
    for parameter in model.parameters():
        assert not parameter._post_accumulate_grad_hooks


def test_base_weights_get_no_gradient_from_the_probe():
    model, asked = build_tiny_model("llama"), []

    def look(_count: int) -> None:
        asked.extend(name for name, parameter in model.named_parameters() if parameter.requires_grad)

    measure(model, "lora_factors", progress=look)
    assert asked == []


def test_forget_batches_repeat_in_every_pass_and_retain_rows_are_drawn_anew():
    steps = list(paired_rows(7, 5, 3, 3, 0))
    assert [len(rows) for rows, _ in steps] == [3, 3, 1] * 3
    forget = [[rows for rows, _ in steps[start : start + 3]] for start in (0, 3, 6)]
    assert forget[0] == forget[1] == forget[2]
    assert sorted(row for rows in forget[0] for row in rows) == list(range(7))
    assert [len(rows) for _, rows in steps] == [3, 3, 1] * 3
    retain = [[rows for _, rows in steps[start : start + 3]] for start in (0, 3, 6)]
    assert retain[0] != retain[1]
    assert steps == list(paired_rows(7, 5, 3, 3, 0)) != list(paired_rows(7, 5, 3, 3, 1))


def test_retain_draws_are_uniform_for_every_forget_row():
    seen = Counter(
        (row, partner)
        for rows, partners in paired_rows(2, 4, 4000, 1, 0)
        for row, partner in zip(rows, partners, strict=True)
    )
    assert len(seen) == 8
    # Each of 4 partners in 4000 draws: 1000, standard deviation 27; 5 of those.
    assert max(abs(count - 1000) for count in seen.values()) < 140


@BOTH
def test_gradient_checkpointing_changes_nothing(space: PublishedSpace):
    plain = measure(build_tiny_model("llama"), space)
    for use_reentrant in (False, True):
        model = build_tiny_model("llama")
        model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        checkpointed = measure(model, space)
        for name in plain:
            for field, wanted in vars(plain[name].forget).items():
                assert_near(getattr(checkpointed[name].forget, field), wanted, 1e-5)


def test_accumulators_follow_the_gradient_or_the_setting(tmp_path: Path):
    half, single = build_tiny_model("llama").bfloat16(), build_tiny_model("llama")
    for model, asked, found in (
        (half, "gradient", "bfloat16"),
        (half, "float32", "float32"),
        (single, "gradient", "float32"),
        (single, "bfloat16", "bfloat16"),
    ):
        importance = measure(model, "lora_factors", accumulator_dtype=asked)
        assert importance.metadata.published is not None
        assert importance.metadata.published.accumulator_dtype == found
        coarse = [
            torch.equal(tensor, tensor.bfloat16().float())
            for name in importance
            for tensor in vars(importance[name].forget).values()
        ]
        assert all(coarse) == (found == "bfloat16")


@BOTH
def test_map_says_what_it_is_and_comes_back_from_its_file(space: PublishedSpace, tmp_path: Path):
    importance = measure(build_tiny_model("llama"), space, data_sha256=("f", "r"))
    importance.save(tmp_path / "map.safetensors")
    loaded = ImportanceMap.load(tmp_path / "map.safetensors")
    assert loaded.metadata == importance.metadata
    metadata = loaded.metadata
    of_lora = space == "lora_factors"
    assert (metadata.statistic, metadata.rank) == (("variance", 3) if of_lora else ("second_moment", None))
    assert metadata.gradient_unit == "batch"
    assert metadata.published is not None
    assert metadata.published.model_dump() == {
        "passes": 2,
        "batch_size": 3,
        "scaling": 1.5 if of_lora else None,
        "accumulator_dtype": "float32",
    }
    assert metadata.retain is not None
    drawn = {row for _, rows in paired_rows(7, 4, 2, 3, 5) for row in rows}
    assert (metadata.forget.example_count, metadata.retain.example_count) == (7, len(drawn))
    assert (metadata.forget.sample_count, metadata.retain.sample_count) == (3, 6)
    assert (metadata.forget.data_sha256, metadata.retain.data_sha256) == ("f", "r")


def test_progress_counts_the_examples_of_both_sets():
    finished: list[int] = []
    measure(build_tiny_model("llama"), "full_weights", progress=finished.append)
    assert finished == [6, 6, 2] * 2


def test_what_has_no_meaning_is_refused():
    model = build_tiny_model("llama")
    with pytest.raises(InputError, match=r"single batch \(7 examples, batch size 7\)"):
        measure(model, "lora_factors", batch_size=7)
    measure(model, "full_weights", batch_size=7)
    with pytest.raises(InputError, match="the retain set has no example"):
        estimate_published_importance(model, tokenised(FORGET), [], space="full_weights", pad_token_id=3)
    with pytest.raises(InputError, match=r"probe_std 0\.0 must both be positive"):
        measure(model, "lora_factors", probe_std=0.0)
    with pytest.raises(InputError, match="passes 0 and batch_size 3 must both be positive"):
        measure(model, "full_weights", passes=0)
    model.model.layers[1].register_module("spare", nn.Linear(4, 4))
    with pytest.raises(InputError, match=r"'model\.layers\.1\.spare' took no part in the loss"):
        measure(model, "full_weights", target_modules=["spare"])
    with pytest.raises(InputError, match=r"'model\.layers\.1\.spare' took no part in the loss"):
        measure(model, "lora_factors", target_modules=["spare"], rank=2)
    assert "model.layers.1.spare" not in measure(model, "full_weights")
