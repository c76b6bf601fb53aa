"""The estimate against a plain loop of single-example backward passes, and what must not change it."""

import itertools
from collections.abc import Sequence
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from tests.importance.reference import assert_near, batch_of, batches_of, examples, expected, gradients, statistic_of
from tests.tiny import ARCHITECTURES, Architecture, build_tiny_model
from unlora.errors import InputError
from unlora.importance.estimate import IMPORTANCE_PRESETS, estimate_importance
from unlora.importance.importance_map import ImportanceMap
from unlora.importance.moments import StatisticName
from unlora.importance.spaces import SpaceName
from unlora.losses.log_probs import NOT_SCORED

SPACES: tuple[SpaceName, ...] = get_args(SpaceName)
STATISTICS: tuple[StatisticName, ...] = get_args(StatisticName)
EVERY_POINT = pytest.mark.parametrize(("space", "statistic"), list(itertools.product(SPACES, STATISTICS)))

FORGET, RETAIN = examples(), examples(((8, 3), (13, 5), (6, 1), (10, 6)), seed=2)


def measure(
    batches: Sequence[dict[str, Tensor]], *, arch: Architecture = "llama", space: SpaceName, statistic: StatisticName
) -> ImportanceMap:
    return estimate_importance(build_tiny_model(arch), batches, None, space=space, statistic=statistic, rank=3)


def assert_same(first: ImportanceMap, second: ImportanceMap, relative: float = 2e-5) -> None:
    assert first.modules == second.modules
    for name in first:
        for field, wanted in vars(first[name].forget).items():
            assert_near(getattr(second[name].forget, field), wanted, relative)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@EVERY_POINT
def test_both_sets_equal_a_plain_loop_of_single_example_backward_passes(
    arch: Architecture, space: SpaceName, statistic: StatisticName
):
    importance = estimate_importance(
        build_tiny_model(arch),
        [batch_of(FORGET)],
        [batch_of(RETAIN)],
        space=space,
        statistic=statistic,
        rank=3,
        probe_std=0.2,
        seed=5,
    )
    for set_name, chosen in (("forget", FORGET), ("retain", RETAIN)):
        reference = gradients(arch, chosen)
        assert importance.modules == list(reference)
        for name, samples in reference.items():
            wanted = expected(name, samples, statistic, space, rank=3, probe_std=0.2, seed=5)
            found = vars(getattr(importance[name], set_name))
            assert found.keys() == wanted.keys()
            for field in wanted:
                assert found[field].dtype == torch.float32
                assert_near(found[field], wanted[field])


@pytest.mark.parametrize(
    ("space", "statistic"),
    # The variance of marginals over several batches is equal in expectation only: it has its own tests below.
    [point for point in itertools.product(SPACES, STATISTICS) if point != ("marginals", "variance")],
)
def test_batch_size_order_and_padding_change_nothing(space: SpaceName, statistic: StatisticName):
    whole = measure([batch_of(FORGET)], space=space, statistic=statistic)
    shuffled = [FORGET[index] for index in (4, 0, 6, 2, 5, 1, 3)]
    for batches in (
        batches_of(FORGET, 1),
        batches_of(shuffled, 3),
        [batch_of(shuffled, padding=9, pad_token_id=77)],
    ):
        assert_same(whole, measure(batches, space=space, statistic=statistic))


def test_variance_of_marginals_in_one_batch_does_not_depend_on_order_and_padding():
    whole = measure([batch_of(FORGET)], space="marginals", statistic="variance")
    other = measure([batch_of(FORGET[::-1], padding=5, pad_token_id=9)], space="marginals", statistic="variance")
    assert_same(whole, other)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("space", SPACES)
def test_gradient_checkpointing_changes_nothing(arch: Architecture, space: SpaceName, use_reentrant: bool):
    plain = measure([batch_of(FORGET)], arch=arch, space=space, statistic="variance")
    model = build_tiny_model(arch)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    first_layer = next(module for name, module in model.named_modules() if name == plain.modules[0])
    calls = []
    first_layer.register_forward_hook(lambda *_: calls.append(1))
    checkpointed = estimate_importance(
        model, [batch_of(FORGET)], None, space=space, statistic="variance", rank=3, target_modules=plain.modules
    )
    assert len(calls) == 2, "the block was not computed a second time: checkpointing was off"
    assert not model.training
    assert_same(plain, checkpointed)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_is_off_while_measuring(checkpointing: bool):
    model = build_tiny_model("gpt2")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    batch = batch_of(FORGET)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    first, second = (model(input_ids=ids, attention_mask=mask, use_cache=False).logits for _ in range(2))
    assert not torch.equal(first, second), "dropout does nothing in this model"
    importance = estimate_importance(model, [batch], None, preset="fila")
    assert model.training
    assert_same(measure([batch], arch="gpt2", space="full_weights", statistic="second_moment"), importance)


def test_works_inside_no_grad():
    with torch.no_grad():
        importance = measure([batch_of(FORGET)], space="full_weights", statistic="variance")
    assert_same(measure([batch_of(FORGET)], space="full_weights", statistic="variance"), importance)


def test_variance_of_marginals_converges_to_the_sample_variance_over_random_batchings():
    chosen = examples([(14, 4)] * 12)
    name = "model.layers.0.self_attn.v_proj"
    model = build_tiny_model("llama")
    wanted = statistic_of(gradients("llama", chosen)[name], "variance")
    wanted = torch.cat([wanted.sum(dim=1), wanted.sum(dim=0)])
    generator = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        order = torch.randperm(len(chosen), generator=generator).tolist()
        batches = batches_of([chosen[index] for index in order], 3)
        record = estimate_importance(model, batches, None, preset="marginal", target_modules=[name])[name].forget
        return torch.cat(list(vars(record).values())).double()

    draws = torch.stack([draw() for _ in range(100)])
    assert float(draws.min()) > 0, "a clamped draw would shift the mean"
    spread = draws.std(dim=0)
    assert float((spread / wanted).min()) > 0.01, "every draw is exact: nothing is tested"
    # A mean of 100 draws strays by a tenth of their spread; 4.5 times that, in one of 48 entries: chance 1 in 3000.
    assert float(((draws.mean(dim=0) - wanted).abs() / spread).max()) < 0.45


def test_examples_without_a_completion_token_are_counted_and_in_no_statistic():
    silent = batch_of(FORGET[:3] + RETAIN[:2])
    silent["labels"][3:] = NOT_SCORED
    first_token_only = batch_of(RETAIN[2:3])
    first_token_only["labels"][:] = NOT_SCORED
    first_token_only["labels"][0, 0] = first_token_only["input_ids"][0, 0]
    finished: list[int] = []
    importance = estimate_importance(
        build_tiny_model("llama"),
        [silent, first_token_only, batch_of(FORGET[3:])],
        None,
        preset="fila",
        progress=finished.append,
    )
    assert_same(measure([batch_of(FORGET)], space="full_weights", statistic="second_moment"), importance)
    counts = importance.metadata.forget
    scored_tokens = sum(len(tokens) - max(prompt_length, 1) for tokens, prompt_length in FORGET)
    assert (counts.example_count, counts.unscored_count, counts.token_count) == (len(FORGET), 3, scored_tokens)
    assert finished == [5, 1, 4]


def test_metadata_say_what_was_measured():
    model = build_tiny_model("gpt2")
    importance = estimate_importance(
        model, [batch_of(FORGET)], batches_of(RETAIN, 3), preset="vila", rank=5, data_sha256=("f", "r")
    )
    metadata = importance.metadata
    assert (metadata.statistic, metadata.space, metadata.rank) == ("variance", "lora_factors", 5)
    assert metadata.module_shapes["transformer.h.0.attn.c_attn"] == (96, 32)
    assert metadata.retain is not None
    assert (metadata.forget.data_sha256, metadata.retain.data_sha256) == ("f", "r")
    assert (metadata.forget.example_count, metadata.retain.example_count) == (7, 4)


@pytest.mark.parametrize("preset", IMPORTANCE_PRESETS)
def test_preset_is_its_point_of_the_grid(preset: str):
    model, (statistic, space, _) = build_tiny_model("llama"), IMPORTANCE_PRESETS[preset]
    named = estimate_importance(model, [batch_of(FORGET)], None, preset=preset, rank=3)
    assert_same(measure([batch_of(FORGET)], space=space, statistic=statistic), named, relative=1e-12)


def test_target_modules_keep_their_numbers_when_fewer_are_measured():
    every_one = measure([batch_of(FORGET)], space="lora_factors", statistic="variance")
    few = estimate_importance(
        build_tiny_model("llama"), [batch_of(FORGET)], None, preset="vila", rank=3, target_modules=["v_proj"]
    )
    assert few.modules == ["model.layers.0.self_attn.v_proj", "model.layers.1.self_attn.v_proj"]
    for name in few:
        for field, wanted in vars(every_one[name].forget).items():
            assert_near(getattr(few[name].forget, field), wanted, 2e-5)


@pytest.mark.parametrize("probe_std", [0.01, 3.0])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_probe_std_only_scales(statistic: StatisticName, probe_std: float):
    model, batches = build_tiny_model("llama"), [batch_of(FORGET)]
    unit, scaled = (
        estimate_importance(model, batches, None, space="lora_factors", statistic=statistic, probe_std=std)
        for std in (1.0, probe_std)
    )
    for name in unit:
        for field, wanted in vars(unit[name].forget).items():
            assert_near(getattr(scaled[name].forget, field), probe_std**2 * wanted, 1e-5)


@EVERY_POINT
def test_bfloat16_model_gives_float32_statistics_close_to_the_float32_models(
    space: SpaceName, statistic: StatisticName
):
    # The reference is a float32 model with the same (rounded) weights: what differs is the arithmetic alone.
    half = build_tiny_model("llama").bfloat16()
    single = build_tiny_model("llama").bfloat16().float()
    found, wanted = (
        estimate_importance(model, [batch_of(FORGET)], None, space=space, statistic=statistic)
        for model in (half, single)
    )
    for name in wanted:
        for field, value in vars(wanted[name].forget).items():
            tensor = getattr(found[name].forget, field)
            assert tensor.dtype == torch.float32
            # bfloat16 has 8 bits: a share of 2^-8 a rounding, a few dozen of them on the way, squared in the end.
            assert float((tensor - value).norm() / value.norm()) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "marginl"}, "unknown importance preset 'marginl'. Did you mean 'marginal'?"),
        ({"preset": "xyz"}, "Known presets: marginal, vila, fila, variance_full, second_moment_lora."),
        ({"preset": "vila", "space": "marginals"}, "not both"),
        ({"space": "marginals"}, "both a statistic and a space"),
        ({}, "both a statistic and a space"),
        ({"preset": "vila", "rank": 0}, "must both be positive"),
        ({"preset": "vila", "probe_std": 0.0}, "must both be positive"),
        ({"preset": "vila", "target_modules": ["q_prj"]}, "Did you mean 'q_proj'?"),
    ],
)
def test_wrong_choice_is_refused(options: dict, message: str):
    with pytest.raises(InputError) as refusal:
        estimate_importance(build_tiny_model("llama"), [batch_of(FORGET)], None, **options)
    assert message in str(refusal.value)


@pytest.mark.parametrize("preset", IMPORTANCE_PRESETS)
def test_empty_set_is_refused_by_name(preset: str):
    silent = batch_of(RETAIN)
    silent["labels"][:] = NOT_SCORED
    for retain in ([], [silent]):
        with pytest.raises(InputError, match="the retain set has no example with a completion token"):
            estimate_importance(build_tiny_model("llama"), [batch_of(FORGET)], retain, preset=preset)
    with pytest.raises(InputError, match="the forget set has no example"):
        estimate_importance(build_tiny_model("llama"), [], None, preset=preset)


@pytest.mark.parametrize("space", SPACES)
def test_single_example_has_a_second_moment_and_no_variance(space: SpaceName):
    model, one = build_tiny_model("llama"), [batch_of(RETAIN[:1])]
    with pytest.raises(InputError, match=r"the retain set has a single example .* a variance needs two"):
        estimate_importance(model, [batch_of(FORGET)], one, space=space, statistic="variance")
    importance = estimate_importance(model, one, None, space=space, statistic="second_moment", rank=3)
    for name, samples in gradients("llama", RETAIN[:1]).items():
        wanted = expected(name, samples, "second_moment", space, rank=3, probe_std=0.05, seed=0)
        for field, found in vars(importance[name].forget).items():
            assert_near(found, wanted[field])


@pytest.mark.parametrize("preset", ["marginal", "vila"])
def test_retain_set_of_another_model_is_that_models_and_the_map_stays_the_first_ones(preset: str):
    model, other, batches = build_tiny_model("llama"), build_tiny_model("llama", seed=1), batches_of(FORGET, 3)
    found = estimate_importance(model, batches, batches, retain_model=other, preset=preset)
    own, others = (estimate_importance(one, batches, batches, preset=preset) for one in (model, other))
    assert found.metadata == own.metadata
    for name, one in found.items():
        for part, wanted in ((one.forget, own[name].forget), (one.retain, others[name].retain)):
            assert all(torch.equal(tensor, getattr(wanted, field)) for field, tensor in vars(part).items())


def test_retain_model_with_other_layers_is_refused():
    model, batches = build_tiny_model("llama"), batches_of(FORGET, 3)
    for other, has in ((build_tiny_model("gpt2"), "none"), (build_tiny_model("llama", hidden=48), "one of shape")):
        with pytest.raises(InputError, match=rf"has shape \(32, 32\); the other model has {has}"):
            estimate_importance(model, batches, batches, retain_model=other, preset="fila")
