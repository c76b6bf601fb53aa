"""mlx-lm's form of an adapter is the same update, and mlx-lm agrees where it is installed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unlora.adapters.export import read_adapter, write_adapter
from unlora.adapters.factors import Factors
from unlora.consumers import llama_cpp, mlx
from unlora.consumers.mlx import MlxAdapter
from unlora.errors import InputError
from unlora.recipes.convert import Wanted, convert
from unlora.recipes.export import export_adapter


def test_factors_are_the_exported_update(finished_run: Path, tmp_path: Path):
    convert(finished_run, tmp_path / "mlx", MlxAdapter(), Wanted(check=False))
    export_adapter(finished_run, tmp_path / "peft")
    _, expected = read_adapter(tmp_path / "peft")
    found = load_file(tmp_path / "mlx" / "adapters.safetensors")
    settings = json.loads((tmp_path / "mlx" / "adapter_config.json").read_text())
    parameters = settings["lora_parameters"]
    assert settings["num_layers"] == 2
    assert parameters["rank"] == 8
    assert set(parameters["keys"]) == {name.split(".", 3)[3] for name in expected}
    assert len(found) == 2 * len(expected)
    for name, module in expected.items():
        update = parameters["scale"] * (found[f"{name}.lora_a"] @ found[f"{name}.lora_b"]).T
        torch.testing.assert_close(update, module.lora_b @ module.lora_a)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlx", "peft"]
    assert (tmp_path / "mlx" / "unlora.json").read_text() == (tmp_path / "peft" / "unlora.json").read_text()
    assert str(tmp_path) not in (tmp_path / "mlx" / "README.md").read_text()


def test_layers_that_mlx_calls_otherwise_are_refused(tmp_path: Path):
    factors = {"transformer.h.0.attn.c_attn": Factors(torch.ones(6, 2), torch.ones(2, 4))}
    write_adapter(tmp_path / "peft", factors, transposed=True, base_model=None, card="")
    with pytest.raises(InputError, match=r"transformer\.h\.0\.attn\.c_attn.*--merged"):
        MlxAdapter().write(tmp_path / "peft", tmp_path, tmp_path, "f32")


@pytest.mark.parametrize("rank", [None, 2])
def test_mlx_agrees(finished_run: Path, tmp_path: Path, rank: int | None):
    pytest.importorskip("mlx_lm")
    done = convert(finished_run, tmp_path / "mlx", MlxAdapter(), Wanted(rank=rank))
    assert done.agreement is not None
    assert done.agreement.largest < 1e-3
    assert done.agreement.forget[1] == pytest.approx(done.agreement.forget[0], rel=1e-3)


def test_a_missing_program_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mlx, "find_spec", lambda _name: None)
    assert MlxAdapter().missing() == 'mlx-lm is not installed: pip install "mlx[cpu]" mlx-lm'
    monkeypatch.setattr(llama_cpp.llama_runtime, "version", lambda: None)
    missing = llama_cpp.GgufAdapter(llama_cpp.GgufSettings()).missing()
    assert missing == "llama-cpp-python is not installed: pip install llama-cpp-python"
