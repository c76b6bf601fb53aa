"""The file: nothing lost on the way, and everything that does not fit refused."""

import itertools
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.importance.reference import batch_of, batches_of, examples
from tests.tiny import build_tiny_model
from unlora.artifacts import read_tensors, write_tensors
from unlora.errors import InputError
from unlora.importance.estimate import IMPORTANCE_PRESETS, estimate_importance
from unlora.importance.importance_map import ImportanceMap
from unlora.models.fingerprint import fingerprint
from unlora.models.target_modules import find_target_modules

FORGET, RETAIN = examples(), examples(seed=2)


def measured(preset: str = "marginal", *, retain: bool = True) -> ImportanceMap:
    return estimate_importance(
        build_tiny_model("llama"),
        [batch_of(FORGET)],
        batches_of(RETAIN, 3) if retain else None,
        preset=preset,
        rank=4,
        data_sha256=("abc", None),
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "importance.safetensors"
    measured().save(path)
    return path


@pytest.mark.parametrize(("preset", "retain"), list(itertools.product(IMPORTANCE_PRESETS, (True, False))))
def test_saved_map_comes_back_bit_for_bit(preset: str, retain: bool, tmp_path: Path):
    importance = measured(preset, retain=retain)
    path = tmp_path / "new" / "importance.safetensors"
    importance.save(path)
    loaded = ImportanceMap.load(path)
    assert loaded.metadata == importance.metadata
    assert loaded.modules == importance.modules == list(find_target_modules(build_tiny_model("llama")))
    for name in importance:
        for set_name in ("forget", "retain"):
            before, after = getattr(importance[name], set_name), getattr(loaded[name], set_name)
            assert type(before) is type(after)
            if before is not None:
                assert all(torch.equal(tensor, getattr(after, field)) for field, tensor in vars(before).items())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_truncated_file_is_refused(saved: Path):
    content = saved.read_bytes()
    for size in (0, 5, 200, len(content) - 1):
        saved.write_bytes(content[:size])
        with pytest.raises(InputError, match="not a complete safetensors file"):
            ImportanceMap.load(saved)


def test_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        ImportanceMap.load(tmp_path / "importance.safetensors")


def test_other_files_are_refused(tmp_path: Path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(InputError, match="not one that unlora wrote"):
        ImportanceMap.load(path)
    write_tensors(path, {"weight": torch.ones(2)}, {"kind": "adapter"})
    with pytest.raises(InputError, match="not an importance file"):
        ImportanceMap.load(path)
    path.write_text(json.dumps({"kind": "importance"}))
    with pytest.raises(InputError, match="not a complete safetensors file"):
        ImportanceMap.load(path)


@pytest.mark.parametrize("version", [0, 2, None])
def test_other_schema_version_is_refused(version: int | None, saved: Path):
    tensors, header = read_tensors(saved)
    write_tensors(saved, tensors, header | {"schema_version": version})
    with pytest.raises(InputError, match=f"schema version {version}; this unlora reads 1"):
        ImportanceMap.load(saved)


def test_header_with_a_wrong_or_missing_entry_is_refused(saved: Path):
    tensors, header = read_tensors(saved)
    write_tensors(saved, tensors, header | {"space": "marginal"})
    with pytest.raises(InputError, match="Did you mean 'marginals'"):
        ImportanceMap.load(saved)
    del header["model_fingerprint"]
    write_tensors(saved, tensors, header)
    with pytest.raises(InputError, match="'model_fingerprint' is missing"):
        ImportanceMap.load(saved)


def test_file_without_one_of_its_tensors_is_refused(saved: Path):
    tensors, header = read_tensors(saved)
    name = "model.layers.0.mlp.up_proj|retain|columns"
    del tensors[name]
    write_tensors(saved, tensors, header)
    with pytest.raises(InputError, match=r"incomplete; tensor 'model.layers.0.mlp.up_proj\|retain\|columns'"):
        ImportanceMap.load(saved)


@pytest.mark.parametrize("preset", list(IMPORTANCE_PRESETS))
def test_tensor_that_is_not_what_the_header_says_is_refused(preset: str, tmp_path: Path):
    path = tmp_path / "importance.safetensors"
    measured(preset).save(path)
    tensors, header = read_tensors(path)
    for name, tensor in list(tensors.items())[:4]:
        for other in (tensor[:-1], tensor.unsqueeze(0), tensor.to(torch.int64)):
            write_tensors(path, tensors | {name: other}, header)
            with pytest.raises(
                InputError, match=rf"tensor '{re.escape(name)}' is .*; by the header it is floating-point"
            ):
                ImportanceMap.load(path)


@pytest.mark.parametrize("evidence", [None, 5, "x", [], {"model.layers.0.mlp.up_proj": 3}])
def test_evidence_of_another_kind_is_refused(evidence: object, saved: Path):
    tensors, header = read_tensors(saved)
    write_tensors(saved, tensors, header | {"evidence": evidence})
    with pytest.raises(InputError, match="evidence: must be a mapping of modules to mappings"):
        ImportanceMap.load(saved)


def test_header_holds_what_others_need_to_judge_the_file(saved: Path):
    with safe_open(saved, framework="pt") as file:
        header = json.loads(file.metadata()["unlora"])
    assert header["kind"] == "importance"
    assert header["model_fingerprint"] == fingerprint(build_tiny_model("llama"))
    assert (header["gradient_unit"], header["reduction"]) == ("example", "mean")
    assert header["forget"]["data_sha256"] == "abc"
    assert header["forget"]["example_count"] == len(FORGET)


def shapes(**options) -> dict[str, tuple[int, int]]:
    targets = find_target_modules(build_tiny_model("llama", **options))
    return {name: (target.d_out, target.d_in) for name, target in targets.items()}


def refuse(
    importance: ImportanceMap,
    module_shapes: dict[str, tuple[int, int]],
    *,
    model_fingerprint: str | None = None,
    rank: int | None = None,
) -> None:
    importance.refuse_unless_fits(module_shapes, fingerprint=model_fingerprint, rank=rank, where="map.safetensors")


@pytest.mark.parametrize("preset", IMPORTANCE_PRESETS)
def test_map_fits_its_own_model_and_fewer_of_its_modules(preset: str):
    importance, all_shapes = measured(preset), shapes()
    refuse(importance, all_shapes, model_fingerprint=fingerprint(build_tiny_model("llama")), rank=4)
    refuse(importance, dict(list(all_shapes.items())[:3]))


def test_map_of_another_model_is_refused():
    with pytest.raises(InputError, match=r"map.safetensors: measured on another model \(weights"):
        refuse(measured(), shapes(), model_fingerprint=fingerprint(build_tiny_model("llama", seed=1)))
    with pytest.raises(InputError, match=r"'model.layers.0.self_attn.q_proj' was measured with shape \(32, 32\)"):
        refuse(measured(), shapes(hidden=64))


def test_map_of_other_modules_is_refused():
    with pytest.raises(InputError, match=r"no importance for target module 'model.layers.2.* \(7 missing\)"):
        refuse(measured(), shapes(layers=3))


def test_map_of_virtual_factors_of_another_rank_is_refused():
    with pytest.raises(InputError, match="virtual factors of rank 4, the adapter's rank is 8"):
        refuse(measured("vila"), shapes(), rank=8)


@pytest.mark.parametrize("preset", ["marginal", "fila"])
def test_map_without_a_rank_fits_every_rank(preset: str):
    refuse(measured(preset), shapes(), rank=8)
