"""Files in FP8, MXFP8, MXFP4 and integers, from importance to export: all goes by what their codes stand for."""

import functools
import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GptOssConfig, PreTrainedModel

from tests.taught import FORGET, PAD, RETAIN, Taught, build_taught, teach, write_jsonl
from tests.tiny import build_tiny_tokenizer
from unlora.errors import InputError
from unlora.models.score import score_completions
from unlora.recipes.export import export_adapter, export_merged
from unlora.recipes.unlearn import unlearn
from unlora.suites.tofu.scores import TOFU_FILE
from unlora_research.packed import (
    E2M1,
    INT4_GROUP,
    MX_BLOCK,
    pack_mxfp4,
    write_fp8,
    write_int4,
    write_int8,
    write_mxfp4,
    write_mxfp8,
    write_torchao,
)

Format = Literal["fp8", "mxfp8", "mxfp4", "int8", "int4", "torchao"]
WRITE = {
    "fp8": write_fp8, "mxfp8": write_mxfp8, "mxfp4": write_mxfp4, "int8": write_int8, "int4": write_int4,
    "torchao": write_torchao,
}  # fmt: skip
METHODS = {"int8": "compressed-tensors", "int4": "compressed-tensors"}
"""Format -> what config.json calls it, where that is another name."""
NEEDED = pytest.mark.skipif(find_spec("compressed_tensors") is None, reason="compressed-tensors is not installed")
TORCHAO = pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
INTEGERS = tuple(pytest.param(name, marks=NEEDED) for name in ("int8", "int4"))
FORMATS = ("fp8", "mxfp8", "mxfp4", *INTEGERS, pytest.param("torchao", marks=TORCHAO))


class Finished(NamedTuple):
    """A run on files of a format."""

    taught: Taught
    """With those files as the target."""
    whole: Path
    """The model that was rounded."""
    run: Path
    evaluation: dict[str, Any]


Finish = Callable[[Format], Finished]


def gpt_oss(vocabulary: int) -> PreTrainedModel:
    """A model of the class whose files are published in MXFP4: experts of interleaved gates, with biases."""
    config = GptOssConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=256,
        initializer_range=32**-0.5, bos_token_id=0, eos_token_id=0, pad_token_id=PAD,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).float()


def taught_mixture(folder: Path) -> Taught:
    data = [write_jsonl(folder / "forget.jsonl", FORGET), write_jsonl(folder / "retain.jsonl", RETAIN)]
    tokenizer = build_tiny_tokenizer(
        [f"Question: {question}\nAnswer: {answer}" for question, answer in FORGET + RETAIN]
    )
    model = gpt_oss(len(tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teach(model, tokenizer, data)
    model.save_pretrained(folder / "target")
    tokenizer.save_pretrained(folder / "target")
    return Taught(folder / "target", *data)


def finish(format: Format, folder: Path) -> Finished:
    folder.mkdir()
    taught = taught_mixture(folder) if format == "mxfp4" else build_taught(folder, hidden=64)
    packed = WRITE[format](taught.target, folder / "packed")
    settings = taught.settings(
        model={"name": str(packed)}, training={"learning_rate": 1e-2, "epochs": 8, "batch_size": 4, "save_steps": 100}
    )
    evaluation = unlearn(settings, folder / "run")
    return Finished(taught._replace(target=packed), taught.target, folder / "run", evaluation)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finish:
    """Read only."""
    folder = tmp_path_factory.mktemp("packed")
    return functools.cache(lambda format: finish(format, folder / format))


def log_probs(model: Any, taught: Taught) -> list[float]:
    """Mean of each answer to forget, by a model that transformers or PEFT has loaded."""
    sequences = [(one.input_ids, one.prompt_length) for one in taught.tokens(taught.forget)]
    return [one.mean_log_prob for one in score_completions(model, sequences, pad_token_id=PAD)]


def measured(found: Finished) -> list[float]:
    scores = TOFU_FILE.load(found.run / "scores" / "unlearned.jsonl")
    return [one.mean_log_prob for one in scores.sets["forget"]]


def plain(folder: Path) -> Any:
    """As transformers reads the files by itself, which on a CPU it multiplies out."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("format", FORMATS)
def test_forgets_and_says_what_it_was_read_out_of(finished: Finish, format: Format):
    found = finished(format)
    before, after = (found.evaluation["models"][role]["metrics"] for role in ("target", "unlearned"))
    assert before["forget_probability"]["value"] > 0.8
    assert after["forget_probability"]["value"] < 0.5 * before["forget_probability"]["value"]
    assert after["retain_probability"]["value"] > 0.7 * before["retain_probability"]["value"]
    record = json.loads((found.run / "record.json").read_text())
    assert record["model"]["multiplied_out"] == METHODS.get(format, format)
    assert record["checks"]["base_weights_unchanged"] is True
    assert (record["reach"]["experts"] > 0) == (format == "mxfp4")


@pytest.mark.parametrize("format", FORMATS)
def test_merged_model_gives_the_answers_that_were_measured(finished: Finish, format: Format, tmp_path: Path):
    found = finished(format)
    export_merged(found.run, tmp_path / "merged")
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())
    assert log_probs(plain(tmp_path / "merged"), found.taught) == pytest.approx(measured(found), abs=1e-4)


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
@pytest.mark.parametrize("format", FORMATS)
def test_adapter_gives_the_answers_that_were_measured_by_the_lines_of_its_card(
    finished: Finish, format: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = finished(format)
    adapter = tmp_path / "adapter"
    if format == "mxfp4":  # Its adapter is on experts, and is handed over as the run holds it.
        with pytest.raises(InputError, match="factors of experts"):
            export_adapter(found.run, adapter)
        adapter = found.run / "adapter"
    else:
        export_adapter(found.run, adapter)
    without = log_probs(found.taught.load().model, found.taught)
    names: dict[str, Any] = {}
    monkeypatch.chdir(adapter)
    exec((adapter / "README.md").read_text().split("```python\n")[1].split("```")[0], names)
    assert isinstance(names["model"], PeftModel)
    assert log_probs(names["model"], found.taught) == pytest.approx(measured(found), abs=1e-4)
    assert math.dist(without, measured(found)) > 0.5


def test_codes_of_mxfp4_stand_for_what_the_model_multiplies_with(finished: Finish):
    """The oracle reads the codes as OCP defines them; the model was read by transformers."""
    found = finished("mxfp4")
    files, whole = (load_file(one / "model.safetensors") for one in (found.taught.target, found.whole))
    model = found.taught.load().model
    names = [name.removesuffix("_blocks") for name in files if name.endswith("_blocks")]
    assert len(names) == 4
    for name in names:
        weight = read_codes(files[f"{name}_blocks"], files[f"{name}_scales"]).transpose(1, 2)
        assert torch.equal(model.get_parameter(name), weight)
        assert 0 < float((weight - whole[name]).norm() / whole[name].norm()) < 0.15


def read_codes(blocks: Tensor, scales: Tensor) -> Tensor:
    """Byte by byte, without unlora and transformers."""
    levels = [*E2M1, *(-level for level in E2M1)]
    numbers = [[levels[code & 15], levels[code >> 4]] for code in blocks.flatten().tolist()]
    exponents = scales.flatten().to(torch.float64) - 127
    return (torch.tensor(numbers).reshape(-1, 32) * 2 ** exponents[:, None]).float().reshape(*blocks.shape[:2], -1)


def test_packing_takes_the_nearest_code_and_cuts_above_the_largest():
    row = torch.tensor([[7.9, 5.1, -5.0, 2.5, -0.26, 0.25, 0.75, 1.26, *[0.0] * 24]])
    packed = pack_mxfp4(row)
    expected = [6.0, 6.0, -4.0, 2.0, -0.5, 0.0, 1.0, 1.5]
    assert read_codes(packed.blocks[None], packed.scales[None])[0, 0, :8].tolist() == expected
    assert packed.scales.tolist() == [[127]]
    nothing = pack_mxfp4(torch.zeros(1, 32))
    assert not read_codes(nothing.blocks[None], nothing.scales[None]).any()


def test_codes_of_mxfp8_stand_for_what_the_model_multiplies_with(finished: Finish):
    """The oracle reads the bytes as OCP defines them: one sign, four bits of exponent (bias 7), three of mantissa."""
    found = finished("mxfp8")
    files, whole = (load_file(one / "model.safetensors") for one in (found.taught.target, found.whole))
    model = found.taught.load().model
    numbers = [e4m3(byte) for byte in range(256)]
    names = [name.removesuffix("_scale_inv") for name in files if name.endswith("_scale_inv")]
    assert len(names) == 14
    for name in names:
        codes = torch.tensor([numbers[byte] for byte in files[name].view(torch.uint8).flatten().tolist()])
        exponents = files[f"{name}_scale_inv"].flatten().to(torch.float64) - 127
        weight = (codes.reshape(-1, MX_BLOCK) * 2 ** exponents[:, None]).float().reshape(files[name].shape)
        assert torch.equal(model.get_parameter(name), weight)
        assert 0 < float((weight - whole[name]).norm() / whole[name].norm()) < 0.05


def e4m3(byte: int) -> float:
    """Number that a byte of float8 e4m3fn stands for."""
    exponent, mantissa = byte >> 3 & 15, byte & 7
    size = mantissa / 8 * 2**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return math.nan if byte & 127 == 127 else -size if byte >> 7 else size


@pytest.mark.parametrize("format", INTEGERS)
def test_integers_stand_for_themselves_times_the_scale_of_their_row_or_group(finished: Finish, format: Format):
    found, bits = finished(format), {"int8": 8, "int4": 4}[format]
    files = load_file(found.taught.target / "model.safetensors")
    model = found.taught.load().model
    names = [name.removesuffix("_packed") for name in files if name.endswith("_packed")]
    assert len(names) == 14
    for name in names:
        words = [word & 0xFFFFFFFF for word in files[f"{name}_packed"].flatten().tolist()]
        numbers = [word >> place & 2**bits - 1 for word in words for place in range(0, 32, bits)]
        codes = torch.tensor([number - 2 ** (bits - 1) for number in numbers])
        rows, columns = files[f"{name}_shape"].tolist()
        groups = codes.reshape(rows, -1, INT4_GROUP if bits == 4 else columns)
        weight = (groups * files[f"{name}_scale"][..., None]).reshape(rows, columns)
        torch.testing.assert_close(model.get_parameter(name), weight, rtol=1e-7, atol=0)


@TORCHAO
def test_tensors_of_torchao_stand_for_their_integers_times_the_scale_of_their_row(finished: Finish):
    found = finished("torchao")
    files = load_file(found.taught.target / "model.safetensors")
    model = found.taught.load().model
    names = [name for name in files if name.endswith("qdata")]
    assert len(names) == 14
    for name in names:
        weight = files[name].float() * files[name.removesuffix("qdata") + "scale"].float().reshape(-1, 1)
        layer = model.get_submodule(name.rpartition("._weight")[0])
        torch.testing.assert_close(layer.weight, weight, rtol=1e-7, atol=0)
        assert type(layer.weight.data) is Tensor
