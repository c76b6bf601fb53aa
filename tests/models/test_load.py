"""Loading, merging and fingerprints, and every way a folder can be wrong."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedModel

from tests.tiny import ARCHITECTURES, Architecture, build_tiny_model, save_tiny
from unlora.errors import InputError
from unlora.models import locate
from unlora.models.embedded import HUB_ID
from unlora.models.fingerprint import fingerprint
from unlora.models.load import LoadedModel, ModelSource, load_model, load_tokenizer
from unlora.models.skeleton import load_skeleton

CPU = torch.device("cpu")
PROBE = torch.arange(24).reshape(2, 12)


def loaded(path: Path | str, **options: Any) -> LoadedModel:
    return load_model(str(path), device=CPU, **options)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The hub cannot be reached; the dictionary returned stands for earlier downloads."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError

    downloads: dict[str, str] = {}
    monkeypatch.setattr(locate.HfApi, "model_info", refuse)
    monkeypatch.setattr(
        locate,
        "try_to_load_from_cache",
        lambda name, _, revision=None: downloads.get(f"{name}@{revision}" if revision else name),
    )
    return downloads


def logits(model: PreTrainedModel | PeftModel) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=PROBE).logits


def save_adapter(folder: Path, base: Path, *, arch: Architecture = "llama", **settings: Any) -> torch.Tensor:
    """Write an adapter with random factors for the model in `base`; return what base and adapter compute."""
    config = LoraConfig(
        target_modules="all-linear", r=4, init_lora_weights=False, fan_in_fan_out=arch == "gpt2", **settings
    )
    torch.manual_seed(5)
    wrapped = get_peft_model(loaded(base).model, config)
    wrapped.eval().save_pretrained(str(folder))
    return logits(wrapped)


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_folder_loads_as_it_was_saved(arch: Architecture, tmp_path: Path):
    result = loaded(save_tiny(tmp_path, arch))
    original = build_tiny_model(arch, vocab_size=result.model.config.vocab_size)
    assert torch.equal(logits(result.model), logits(original))
    assert not result.model.training
    assert not any(parameter.requires_grad for parameter in result.model.parameters())
    assert (result.source.kind, result.source.base, result.source.dtype) == ("folder", None, "float32")


def test_sharded_folder_is_the_same_model(tmp_path: Path):
    whole = loaded(save_tiny(tmp_path / "whole"))
    sharded = loaded(save_tiny(tmp_path / "sharded", max_shard_size="20KB"))
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert fingerprint(whole.model) == fingerprint(sharded.model)


def test_dtype_is_the_one_asked_for(tmp_path: Path):
    result = loaded(save_tiny(tmp_path), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in result.model.parameters()} == {torch.bfloat16}
    assert result.source.dtype == "bfloat16"


def test_loading_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    save_adapter(tmp_path / "adapter", save_tiny(tmp_path / "base"))
    capfd.readouterr()
    loaded(tmp_path / "adapter")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma3"])
def test_adapter_is_merged_into_its_base(arch: Architecture, tmp_path: Path):
    base = save_tiny(tmp_path / "base", arch)
    expected = save_adapter(tmp_path / "adapter", base, arch=arch)
    result = loaded(tmp_path / "adapter")
    torch.testing.assert_close(logits(result.model), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(loaded(base).model), expected, atol=0.1)
    assert (result.source.kind, result.source.base) == ("adapter", str(base))
    assert not any("lora" in name for name, _ in result.model.named_modules())


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_target_that_changed_its_base_at_its_start_is_what_peft_loads(start: str, tmp_path: Path):
    """PEFT takes the same leading part out of the base at each load, so base and adapter together are one model."""
    base = save_tiny(tmp_path / "base")
    save_adapter(tmp_path / "adapter", base)
    unchanged = logits(loaded(tmp_path / "adapter").model)
    edit_json(tmp_path / "adapter" / "adapter_config.json", init_lora_weights=start)
    expected = logits(PeftModel.from_pretrained(loaded(base).model, str(tmp_path / "adapter")).eval())
    result = loaded(tmp_path / "adapter")
    torch.testing.assert_close(logits(result.model), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(unchanged, expected, atol=1e-2)


def test_base_of_an_adapter_can_be_given(tmp_path: Path):
    base = save_tiny(tmp_path / "base")
    expected = save_adapter(tmp_path / "adapter", base)
    moved = base.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"its base cannot be loaded \(--base"):
        loaded(tmp_path / "adapter")
    result = loaded(tmp_path / "adapter", base=str(moved))
    torch.testing.assert_close(logits(result.model), expected, atol=1e-4, rtol=1e-4)
    assert result.source.base == str(moved)


def test_tokenizer_of_the_adapter_folder_wins(tmp_path: Path):
    base = save_tiny(tmp_path / "base")
    save_adapter(tmp_path / "adapter", base)
    assert loaded(tmp_path / "adapter").tokenizer.chat_template is None
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(tmp_path / "adapter")
    assert loaded(tmp_path / "adapter").tokenizer.chat_template == "{{ messages }}"


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_fingerprint_ignores_the_adapter(arch: Architecture):
    plain = fingerprint(build_tiny_model(arch))
    config = LoraConfig(target_modules="all-linear", init_lora_weights=False, fan_in_fan_out=arch == "gpt2")
    wrapped = get_peft_model(build_tiny_model(arch), config)
    assert fingerprint(wrapped) == plain
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.add_(1.0)
    assert fingerprint(wrapped) == plain
    wrapped.merge_adapter()
    assert fingerprint(wrapped) != plain


@pytest.mark.parametrize("change", ["one weight", "dtype", "seed"])
def test_fingerprint_sees_every_change(change: str):
    model = build_tiny_model("gpt2", seed=1 if change == "seed" else 0)
    if change == "one weight":
        with torch.no_grad():
            model.get_parameter("transformer.h.1.mlp.c_proj.bias")[3] += 1e-7
    elif change == "dtype":
        model = model.bfloat16()
    assert fingerprint(model) != fingerprint(build_tiny_model("gpt2"))


@pytest.mark.parametrize(
    ("values", "same"),
    [
        ({"hidden_act": "relu"}, False),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}, False),
        ({"rms_norm_eps": 0.01}, False),
        ({"_name_or_path": "elsewhere", "transformers_version": "4.0.0", "dtype": "bfloat16"}, True),
        ({"use_cache": False, "architectures": ["Another"]}, True),
    ],
)
def test_fingerprint_is_of_what_the_config_computes(values: dict[str, Any], same: bool, tmp_path: Path):
    """Equal weights: only the logits decide whether it is another model, and with them the fingerprint."""
    folder = save_tiny(tmp_path)
    before = loaded(folder)
    edit_json(folder / "config.json", **values)
    after = loaded(folder)
    assert torch.equal(logits(before.model), logits(after.model)) is same
    assert (before.fingerprint == after.fingerprint) is same


def test_fingerprint_counts_tied_weights_once():
    tied, untied = build_tiny_model("gpt2"), build_tiny_model("gpt2")
    head = untied.get_submodule("lm_head")
    head.weight = torch.nn.Parameter(head.get_parameter("weight").detach().clone())
    assert fingerprint(tied) != fingerprint(untied)


def truncate(folder: Path, name: str = "model.safetensors") -> None:
    weights = folder / name
    weights.write_bytes(weights.read_bytes()[:-1000])


def drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def reshape_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors") | {"model.norm.weight": torch.zeros(7)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def need_remote_code(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="own", auto_map={"AutoConfig": "own.Config"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "model.safetensors: not a complete safetensors file .*not fully covered"),
        (drop_tensor, "lack model.norm.weight"),
        (reshape_tensor, "lack model.norm.weight, or hold it in another shape"),
        (need_remote_code, "allow it with --trust-remote-code"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON"),
        (lambda folder: (folder / "config.json").write_text("null"), "config.json: must be a JSON object"),
        (lambda folder: (folder / "generation_config.json").write_text("[]"), "generation_config.json: must be a JSON"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("[]"), "tokenizer_config.json: must be a JSON"),
        (lambda folder: edit_json(folder / "config.json", model_type="own"), "model type `own`"),
        (lambda folder: edit_json(folder / "config.json", model_type="t5"), "Unrecognized configuration class"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no file named model.safetensors"),
        (lambda folder: [file.unlink() for file in folder.glob("tokenizer*")], "cannot be loaded"),
    ],
)
def test_damaged_folder_is_refused_in_one_line(damage: Any, message: str, tmp_path: Path):
    folder = save_tiny(tmp_path / "model")
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        loaded(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def other_base(base: Path, adapter: Path) -> None:
    edit_json(adapter / "adapter_config.json", base_model_name_or_path=str(save_tiny(base.parent / "phi", "phi")))


def other_type(base: Path, adapter: Path) -> None:
    config = IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
    get_peft_model(loaded(base).model, config).save_pretrained(str(adapter))


def random_start(base: Path, adapter: Path) -> None:
    """Each load is another model (findings/peft-pissa-niter.sh)."""
    edit_json(adapter / "adapter_config.json", init_lora_weights="pissa_niter_4")


def larger_adapter(base: Path, adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    key = next(name for name in tensors if "layers.1.self_attn.q_proj.lora_A" in name)
    tensors[key.replace("layers.1", "layers.2")] = tensors[key].clone()
    save_file(tensors, adapter / "adapter_model.safetensors")


def smaller_adapter(base: Path, adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if "layers.1" not in name},
        adapter / "adapter_model.safetensors",
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_base, "does not fit the base"),
        (other_type, "of type IA3; only LoRA"),
        (random_start, "started with pissa_niter_4"),
        (larger_adapter, "does not fit the base .*layers.2"),
        (smaller_adapter, "does not fit the base .*layers.1"),
        (lambda _, adapter: edit_json(adapter / "adapter_config.json", r=5), "does not fit the base .*size mismatch"),
        (lambda _, adapter: edit_json(adapter / "adapter_config.json", base_model_name_or_path=None), "--base"),
        (lambda _, adapter: (adapter / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
        (lambda _, adapter: (adapter / "adapter_model.safetensors").write_bytes(b"x" * 99), "not a complete"),
        (lambda _, adapter: truncate(adapter, "adapter_model.safetensors"), "model.safetensors: not a complete"),
        (lambda _, adapter: (adapter / "adapter_config.json").write_text("{"), "not valid JSON"),
    ],
)
def test_damaged_adapter_is_refused_in_one_line(damage: Any, message: str, tmp_path: Path):
    base, adapter = save_tiny(tmp_path / "base"), tmp_path / "adapter"
    save_adapter(adapter, base)
    damage(base, adapter)
    with pytest.raises(InputError, match=message) as caught:
        loaded(adapter)
    assert "\n" not in str(caught.value)


def test_base_without_adapter_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="is only for an adapter"):
        loaded(save_tiny(tmp_path), base="embedded")


def test_file_in_place_of_a_folder_is_refused(tmp_path: Path):
    (tmp_path / "model.gguf").touch()
    with pytest.raises(InputError, match="give the folder"):
        loaded(tmp_path / "model.gguf")


@pytest.mark.parametrize("name", ["./models/mine", "/no/such/folder", "a/b/c"])
def test_missing_folder_is_refused_without_asking_the_hub(name: str):
    with pytest.raises(InputError, match="no such folder"):
        loaded(name)


@pytest.mark.parametrize(
    ("name", "advice"),
    [("someone/model", "cannot be reached"), (HUB_ID, "'embedded' in place"), ("embeded", "mean 'embedded'")],
)
def test_unreachable_hub_is_named(name: str, advice: str, no_hub: dict[str, str]):
    with pytest.raises(InputError, match=advice):
        loaded(name)


def test_earlier_download_serves_when_the_hub_is_unreachable(no_hub: dict[str, str], tmp_path: Path):
    no_hub["someone/model"] = str(save_tiny(tmp_path) / "config.json")
    result = loaded("someone/model")
    assert result.source == ModelSource("someone/model", "hub", None, "float32", trust_remote_code=False)
    assert fingerprint(result.model) == fingerprint(loaded(tmp_path).model)


def test_tokenizer_loads_alone_as_with_the_model(tmp_path: Path):
    base = save_tiny(tmp_path / "base", chat=True)
    save_adapter(tmp_path / "adapter", base)
    expected = loaded(base).tokenizer
    for name, given in ((base, None), (tmp_path / "adapter", None), (tmp_path / "adapter", str(base))):
        tokenizer = load_tokenizer(str(name), base=given)
        assert tokenizer("Where is Mira?")["input_ids"] == expected("Where is Mira?")["input_ids"]
        assert tokenizer.chat_template == expected.chat_template
    with pytest.raises(InputError, match="is only for an adapter"):
        load_tokenizer(str(base), base="embedded")


def test_tokenizer_is_given_the_context_of_the_model(tmp_path: Path):
    save_tiny(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["model_max_length"] = 10**30  # What transformers writes for a tokenizer that was never told.
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_model(str(tmp_path), device=torch.device("cpu")).tokenizer.model_max_length == 256
    assert load_tokenizer(str(tmp_path)).model_max_length == 256


def test_a_config_of_layers_without_end_is_refused_before_one_is_built(tmp_path: Path):
    folder = save_tiny(tmp_path / "llama", "llama")
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 10**7}
    (folder / "config.json").write_text(json.dumps(config))
    skeleton = partial(load_skeleton, base=None, dtype=torch.float32, trust_remote_code=False)
    for read in (load_tokenizer, loaded, skeleton):
        with pytest.raises(InputError, match=r"its config speaks of 10,000,000 layers; no model has over 10,000\.$"):
            read(str(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["q_proj", "k_proj", "o_proj"])
def test_one_weight_that_is_no_number_is_refused(tmp_path: Path, part: str, value: float):
    """The logits of a NaN in q_proj or k_proj are finite, and another model's."""
    folder = save_tiny(tmp_path / "llama", "llama")
    weights = load_file(folder / "model.safetensors")
    key = f"model.layers.0.self_attn.{part}.weight"
    weights[key].view(-1)[5] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"{re.escape(key)} holds NaN or infinity; its files are damaged\.$"):
        loaded(folder)


@pytest.mark.parametrize("twice", [True, False])
def test_adapter_with_a_grown_vocabulary_grows_its_base(twice: bool, tmp_path: Path):
    """A trainer that adds tokens saves their embeddings in the adapter, under further names too if it is told to."""
    base = save_tiny(tmp_path / "base")
    model = loaded(base).model
    count = model.config.vocab_size
    model.resize_token_embeddings(count + 3, mean_resizing=False)
    config = LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], init_lora_weights=False)
    wrapped = get_peft_model(model, config).eval()
    wrapped.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=twice)
    ids = torch.tensor([[3, count, 5, count + 2]])
    with torch.no_grad():
        expected = wrapped(input_ids=ids).logits
        found = loaded(tmp_path / "adapter", base=str(base)).model(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_grown_vocabulary_without_its_embeddings_is_refused(tmp_path: Path):
    base = save_tiny(tmp_path / "base")
    model = loaded(base).model
    model.resize_token_embeddings(model.config.vocab_size + 3, mean_resizing=False)
    wrapped = get_peft_model(model, LoraConfig(target_modules=["q_proj", "lm_head"], init_lora_weights=False))
    wrapped.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    with pytest.raises(InputError, match=r"was trained with a vocabulary of \d+ entries and the base .* has \d+"):
        loaded(tmp_path / "adapter", base=str(base))


def test_revision_of_a_hub_model_is_its_own_download(no_hub: dict[str, str], tmp_path: Path):
    main, old = save_tiny(tmp_path / "main"), save_tiny(tmp_path / "old", seed=1)
    no_hub |= {"org/name": str(main / "config.json"), "org/name@v1": str(old / "config.json")}
    assert fingerprint(loaded("org/name@v1").model) == fingerprint(loaded(old).model)
    assert fingerprint(loaded("org/name").model) == fingerprint(loaded(main).model)
    with pytest.raises(InputError, match=r"model 'org/name@v2': .*nor was it in this revision downloaded before"):
        loaded("org/name@v2")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"metadata": {}}, "model.safetensors.index.json"),
        ({"metadata": {}, "weight_map": {"lm_head.weight": "../outside.safetensors"}}, "outside"),
        ({"metadata": {}, "weight_map": 5}, "model.safetensors.index.json"),
    ],
    ids=["no map", "climbs out", "no mapping"],
)
def test_index_of_shards_that_cannot_be_right_is_refused(tmp_path: Path, index: dict[str, Any], message: str):
    folder = save_tiny(tmp_path / "model", max_shard_size="20KB")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=message):
        loaded(folder)
