"""Every cell of {statistic} x {space} x {gradient unit} x {reduction} against a plain loop, and where the sums lie."""

import gc
import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from tests.importance.reference import assert_near, batches_of, examples, expected, gradients
from tests.tiny import build_tiny_model
from unlora.artifacts import read_tensors, write_tensors
from unlora.errors import InputError, UnloraError
from unlora.importance import offload as offload_module
from unlora.importance.estimate import estimate_importance
from unlora.importance.importance_map import ImportanceMap
from unlora.importance.moments import GradientUnit, Reduction, StatisticName
from unlora.importance.offload import Offload
from unlora.importance.spaces import SpaceName

FORGET = examples(((9, 4), (5, 0), (12, 11), (14, 7), (4, 2)))  # Batches of 3 and 2: an unequal last one.
RETAIN = examples(((8, 3), (13, 5), (6, 1)), seed=2)
CELLS = list(
    itertools.product(get_args(StatisticName), get_args(SpaceName), get_args(GradientUnit), get_args(Reduction))
)


def samples_of(chosen: list, batch_size: int, unit: str, reduction: str) -> dict[str, Tensor]:
    """One gradient a sample, in float64: of each example, or the plain mean over each batch's examples."""
    each = gradients("llama", chosen, reduction=reduction)
    if unit == "example":
        return each
    return {name: torch.stack([part.mean(dim=0) for part in one.split(batch_size)]) for name, one in each.items()}


@pytest.mark.parametrize(("statistic", "space", "unit", "reduction"), CELLS)
def test_every_cell_equals_a_plain_loop(
    statistic: StatisticName, space: SpaceName, unit: GradientUnit, reduction: Reduction
):
    # By example, marginals know the variance exactly only within one batch; by batch, two batches are one pair.
    size = 5 if unit == "example" and space == "marginals" else 3
    importance = estimate_importance(
        build_tiny_model("llama"),
        batches_of(FORGET, size),
        batches_of(RETAIN, size if size == 5 else 2),
        statistic=statistic,
        space=space,
        gradient_unit=unit,
        reduction=reduction,
        rank=3,
        probe_std=0.2,
        seed=5,
    )
    for set_name, chosen, batch_size in (("forget", FORGET, size), ("retain", RETAIN, 2)):
        for name, samples in samples_of(chosen, batch_size, unit, reduction).items():
            wanted = expected(name, samples, statistic, space, rank=3, probe_std=0.2, seed=5)
            found = vars(getattr(importance[name], set_name))
            assert found.keys() == wanted.keys()
            for field in wanted:
                assert_near(found[field], wanted[field])
    metadata = importance.metadata
    assert metadata.retain is not None
    assert (metadata.gradient_unit, metadata.reduction) == (unit, reduction)
    counts = (metadata.forget.sample_count, metadata.retain.sample_count)
    assert counts == ((5, 3) if unit == "example" else (2, 2))
    assert (metadata.forget.example_count, metadata.retain.example_count) == (5, 3)


@pytest.mark.parametrize(("statistic", "space", "reduction"), sorted({(cell[0], cell[1], cell[3]) for cell in CELLS}))
def test_batches_of_one_example_are_examples(statistic: StatisticName, space: SpaceName, reduction: Reduction):
    by_example, by_batch = (
        estimate_importance(
            build_tiny_model("llama"),
            batches_of(FORGET, 1),
            None,
            statistic=statistic,
            space=space,
            gradient_unit=unit,
            reduction=reduction,
        )
        for unit in get_args(GradientUnit)
    )
    assert same(by_example, by_batch)


def test_sum_over_tokens_is_the_mean_times_their_number():
    chosen = examples(((9, 4),))
    mean, total = (
        estimate_importance(build_tiny_model("llama"), batches_of(chosen, 1), None, preset="fila", reduction=reduction)
        for reduction in get_args(Reduction)
    )
    for name in mean:
        assert_near(total[name].forget.values, 25 * mean[name].forget.values, 1e-5)  # pyright: ignore[reportAttributeAccessIssue]


def test_unscored_examples_take_no_part_in_the_mean_of_a_batch():
    batch = batches_of(FORGET[:3], 3)[0]
    batch["labels"][1] = -100
    found = estimate_importance(
        build_tiny_model("llama"), [batch], None, statistic="second_moment", space="full_weights", gradient_unit="batch"
    )
    reference = gradients("llama", [FORGET[0], FORGET[2]])
    for name in found:
        assert_near(found[name].forget.values, reference[name].mean(dim=0).square())  # pyright: ignore[reportAttributeAccessIssue]


def test_variance_of_a_single_batch_is_refused():
    with pytest.raises(InputError, match="the forget set has a single batch with a completion token; a variance needs"):
        estimate_importance(
            build_tiny_model("llama"), batches_of(FORGET, 5), None, preset="marginal", gradient_unit="batch"
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_unit": "exampel"}, "importance: unknown gradient_unit 'exampel'. Did you mean 'example'?"),
        (
            {"preset": None, "statistic": "varience", "space": "marginals"},
            "importance: unknown statistic 'varience'. Did you mean 'variance'?",
        ),
        (
            {"preset": None, "statistic": "variance", "space": "rows"},
            "importance: unknown space 'rows'. Known: full_weights, lora_factors, marginals.",
        ),
        ({"reduction": "max"}, "importance: unknown reduction 'max'. Known: mean, sum."),
        ({"offload": "disc"}, "importance: unknown offload 'disc'. Did you mean 'disk'?"),
    ],
)
def test_unknown_choice_is_refused(options: dict, message: str):
    unchecked = inspect.unwrap(estimate_importance)  # Outside the tests nothing checks the annotations.
    with pytest.raises(InputError) as refusal:
        unchecked(build_tiny_model("llama"), batches_of(FORGET, 5), None, **({"preset": "fila"} | options))
    assert str(refusal.value) == message


def same(first: ImportanceMap, second: ImportanceMap) -> bool:
    """Bit for bit; NaN equals NaN."""
    return all(first[name].evidence == second[name].evidence for name in first) and all(
        torch.equal(one.view(torch.int32), two.view(torch.int32))
        for name in first
        for record, other in ((first[name].forget, second[name].forget), (first[name].retain, second[name].retain))
        if record is not None
        for one, two in zip(vars(record).values(), vars(other).values(), strict=True)
    )


def full(tmp_path: Path, offload: Offload, statistic: StatisticName = "variance", size: int = 2) -> ImportanceMap:
    return estimate_importance(
        build_tiny_model("llama", hidden=64),
        batches_of(FORGET, size),
        batches_of(RETAIN, size),
        statistic=statistic,
        space="full_weights",
        offload=offload,
        scratch=tmp_path / "scratch",
    )


@pytest.mark.parametrize("statistic", get_args(StatisticName))
def test_place_of_the_sums_changes_no_bit_and_leaves_no_file(statistic: StatisticName, tmp_path: Path):
    beside, host, disk = (full(tmp_path, offload, statistic) for offload in get_args(Offload))
    assert same(beside, host)
    assert same(beside, disk)
    assert list((tmp_path / "scratch").iterdir()) == []
    disk.save(tmp_path / "map.safetensors")
    assert same(beside, ImportanceMap.load(tmp_path / "map.safetensors"))


def test_disk_takes_the_users_cache_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path))
    parents = []
    make = offload_module.tempfile.TemporaryDirectory
    monkeypatch.setattr(
        offload_module.tempfile, "TemporaryDirectory", lambda **chosen: parents.append(chosen["dir"]) or make(**chosen)
    )
    estimate_importance(build_tiny_model("llama"), batches_of(FORGET, 5), None, preset="fila", offload="disk")
    assert parents == [tmp_path]
    assert list(tmp_path.iterdir()) == []


def test_files_are_removed_when_the_measurement_fails(tmp_path: Path):
    def breaking() -> Iterator[dict[str, Tensor]]:
        yield batches_of(FORGET, 2)[0]
        assert any((tmp_path / "scratch").iterdir()), "nothing was written: the test tests nothing"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        estimate_importance(
            build_tiny_model("llama"), breaking(), None, preset="fila", offload="disk", scratch=tmp_path / "scratch"
        )
    assert list((tmp_path / "scratch").iterdir()) == []


def test_full_disk_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnloraError, match="cannot be written"):
        estimate_importance(
            build_tiny_model("llama"),
            batches_of(FORGET, 5),
            None,
            preset="fila",
            offload="disk",
            scratch=tmp_path / "file" / "below",
        )


def live_bytes(but: set[int]) -> int:
    """Bytes of all tensors that Python holds, each storage once, without the storages at the addresses `but`."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(size for address, size in storages.items() if address not in but)


@pytest.mark.parametrize(
    ("offload", "statistic", "copies"),
    # In units of all layers' weights: the finished forget map, and the running sums of the retain set.
    [("none", "second_moment", 2), ("host", "second_moment", 2), ("host", "variance", 3), ("disk", "variance", 0)],
)
def test_memory_is_one_finished_map_and_one_set_of_sums(
    offload: Offload, statistic: StatisticName, copies: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    backed_by_files: set[int] = set()
    map_file = torch.from_file

    def mapped(*chosen, **options) -> Tensor:
        tensor = map_file(*chosen, **options)
        backed_by_files.add(tensor.untyped_storage().data_ptr())
        return tensor

    monkeypatch.setattr(torch, "from_file", mapped)
    model = build_tiny_model("llama", hidden=64)
    seen: list[int] = []

    def watched() -> Iterator[dict[str, Tensor]]:
        yield from batches_of(RETAIN, 2)
        seen.append(live_bytes(backed_by_files))

    before = live_bytes(backed_by_files)
    importance = estimate_importance(
        model,
        batches_of(FORGET, 2),
        watched(),
        statistic=statistic,
        space="full_weights",
        offload=offload,
        scratch=tmp_path,
    )
    weights = 4 * sum(d_out * d_in for d_out, d_in in importance.metadata.module_shapes.values())
    largest = 4 * max(d_out * d_in for d_out, d_in in importance.metadata.module_shapes.values())
    (most,) = (after - before for after in seen)
    # What comes on top: rows of the halves, a batch.
    assert copies * weights <= most < copies * weights + largest
    assert len(backed_by_files) == (2 * len(importance) if offload == "disk" else 0)


def test_older_file_without_evidence_is_read(tmp_path: Path):
    importance = full(tmp_path, "none")
    path = tmp_path / "old.safetensors"
    importance.save(path)
    tensors, header = read_tensors(path)
    header["forget"].pop("sample_count")
    assert len(header.pop("evidence")) == len(importance)
    write_tensors(tmp_path / "older.safetensors", tensors, header)
    loaded = ImportanceMap.load(tmp_path / "older.safetensors")
    name = loaded.modules[0]
    assert loaded[name].evidence is None
    assert torch.equal(loaded[name].forget.values, importance[name].forget.values)  # pyright: ignore[reportAttributeAccessIssue]
