"""Model folders: every key of config.json, code, every damage of safetensors, shards, other classes.

Where transformers alone loads a folder, unlora must give the number of a plain loop over it or refuse; where it does
not, unlora must refuse. The cache holds the undamaged model's scores: they must not be given for the damaged one.
"""

import json
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.faults.harness import oracle
from tests.faults.harness.case import Case, Right, arguments, either, refused, works
from tests.faults.harness.damage import ANY_FILE, JSON_FILE, WRONG_JSON, change, content, copied, drop
from tests.faults.harness.world import World

Spoil = Callable[[Path], None]
KEYS = (
    "architectures", "attention_bias", "attention_dropout", "bos_token_id", "dtype", "eos_token_id", "head_dim",
    "hidden_act", "hidden_size", "initializer_range", "intermediate_size", "max_position_embeddings", "mlp_bias",
    "model_type", "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "pad_token_id", "pretraining_tp",
    "rms_norm_eps", "rope_parameters", "tie_word_embeddings", "use_cache", "vocab_size",
)  # fmt: skip


def spoilt(spoil: Spoil, command: str, place: Path, world: World) -> list[str]:
    """Copy the model, spoil the copy, and give it to a command; the cache knows the undamaged one."""
    folder = copied(world.model, place / "model")
    spoil(folder)
    if world.cache.is_dir():
        shutil.copytree(world.cache, place.parent / "cache", dirs_exist_ok=True)
    data = ("--forget", world.forget, "--retain", world.retain)
    return {
        "evaluate": arguments("evaluate", "--model", "model", *data, "--set", "evaluation.max_new_tokens=4", "--output", "out"),
        "unlearn": [*world.unlearn(), "--model", "model"],
        "plan": arguments("plan", "--model", "model", *data, "--tflops", 1),
        "check": arguments("data", "check", world.forget, "--model", "model"),
        "finetune": [*world.finetune(), "--model", "model"],
        "importance": arguments("importance", "--model", "model", *data, "--output", "out.safetensors"),
    }[command]  # fmt: skip


def as_plain(place: Path, world: World, _printed: str) -> str | None:
    return oracle.same_as_plain(place / "out", place / "model", world.forget)


def case(name: str, spoil: Spoil, right: Right, command: str = "evaluate") -> Case:
    make = partial(spoilt, spoil, command)
    return Case(f"{name}" if command == "evaluate" else f"{name} ({command})", make, right)


EITHER = either("model", check=as_plain)
SAME = works(as_plain)
NO = refused("model")


def config(**values: Any) -> Spoil:
    return lambda folder: change(folder / "config.json", **values)


def without(*keys: str) -> Spoil:
    return lambda folder: drop(folder / "config.json", *keys)


def file(name: str, damage: Spoil) -> Spoil:
    return lambda folder: damage(folder / name)


def tensors(edit: Callable[[dict[str, Any]], Any]) -> Spoil:
    """Load the tensors, edit them, save them."""

    def spoil(folder: Path) -> None:
        loaded = load_file(folder / "model.safetensors")
        edit(loaded)
        save_file(
            {name: tensor.contiguous() for name, tensor in loaded.items()},
            folder / "model.safetensors",
            {"format": "pt"},
        )

    return spoil


def header(edit: Callable[[dict[str, Any]], Any]) -> Spoil:
    """Edit the header of the safetensors file; the data stays as it is."""

    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        raw = path.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        found = json.loads(raw[8 : 8 + length])
        new = json.dumps(edit(found) or found).encode()
        path.write_bytes(struct.pack("<Q", len(new)) + new + raw[8 + length :])

    return spoil


def raw(edit: Callable[[bytes], bytes]) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(edit(path.read_bytes()))

    return spoil


EMBEDDING, HEAD, QUERY, NORM = (
    "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.self_attn.q_proj.weight", "model.norm.weight",
)  # fmt: skip


def set_all(name: str, value: float) -> Spoil:
    return tensors(lambda loaded: loaded[name].fill_(value))


TENSORS: dict[str, tuple[Spoil, Right]] = {
    "length of nought": (raw(lambda data: b"\0" * 8 + data[8:]), NO),
    "length beyond the file": (raw(lambda data: struct.pack("<Q", 10**6) + data[8:]), NO),
    "length beyond all memory": (raw(lambda data: struct.pack("<Q", 2**63) + data[8:]), NO),
    "7 bytes": (raw(lambda data: data[:7]), NO),
    "the length alone": (raw(lambda data: data[:8]), NO),
    "half a header": (raw(lambda data: data[:400]), NO),
    "header without data": (raw(lambda data: data[: 8 + struct.unpack("<Q", data[:8])[0]]), NO),
    "header is a list": (header(lambda _found: [1, 2]), NO),
    "header is text": (header(lambda _found: "x"), NO),
    "header is no JSON": (raw(lambda data: data[:8] + b"#" + data[9:]), NO),
    "bytes at the end": (raw(lambda data: data + b"\0" * 64), NO),
    "unknown format": (header(lambda found: found[QUERY].update(dtype="X32")), NO),
    "other format": (header(lambda found: found[QUERY].update(dtype="I32")), EITHER),
    "shape beyond the data": (header(lambda found: found[QUERY].update(shape=[64, 64])), NO),
    "negative shape": (header(lambda found: found[QUERY].update(shape=[-32, 32])), NO),
    "shape is text": (header(lambda found: found[QUERY].update(shape="x")), NO),
    "offsets overlap": (header(lambda found: found[QUERY].update(data_offsets=found[EMBEDDING]["data_offsets"])), NO),
    "offsets beyond the file": (header(lambda found: found[QUERY].update(data_offsets=[10**9, 10**9 + 4096])), NO),
    "offsets backwards": (header(lambda found: found[QUERY].update(data_offsets=[4096, 0])), NO),
    "no offsets": (header(lambda found: found[QUERY].pop("data_offsets") and None), NO),
    "metadata is a number": (header(lambda found: found.update(__metadata__=5)), NO),
    "no metadata": (header(lambda found: found.pop("__metadata__", 0) and None), EITHER),
    "tensor missing": (tensors(lambda loaded: loaded.pop(QUERY)), refused("q_proj|model")),
    "head missing": (tensors(lambda loaded: loaded.pop(HEAD)), refused("lm_head|model")),
    "embedding missing": (tensors(lambda loaded: loaded.pop(EMBEDDING)), refused("embed_tokens|model")),
    "norm missing": (tensors(lambda loaded: loaded.pop(NORM)), refused("norm|model")),
    "layer missing": (tensors(lambda loaded: [loaded.pop(name) for name in list(loaded) if ".layers.1." in name]), refused("layers.1|model")),
    "no tensor": (tensors(lambda loaded: loaded.clear()), NO),
    "tensor more": (tensors(lambda loaded: loaded.update({"model.extra.weight": torch.ones(3)})), EITHER),
    "layer more": (tensors(lambda loaded: loaded.update({QUERY.replace(".0.", ".2."): torch.ones(32, 32)})), EITHER),
    "other names": (tensors(lambda loaded: loaded.update({f"x.{name}": loaded.pop(name) for name in list(loaded)})), NO),
    "transposed": (tensors(lambda loaded: loaded.update({"model.layers.0.mlp.up_proj.weight": torch.ones(32, 64)})), refused("up_proj|model")),
    "too wide": (tensors(lambda loaded: loaded.update({QUERY: torch.ones(32, 33)})), refused("q_proj|model")),
    "scalar": (tensors(lambda loaded: loaded.update({QUERY: torch.tensor(1.0)})), refused("q_proj|model")),
    "no rows": (tensors(lambda loaded: loaded.update({QUERY: torch.ones(0, 32)})), refused("q_proj|model")),
    "integers": (tensors(lambda loaded: loaded.update({QUERY: torch.ones(32, 32, dtype=torch.int64)})), EITHER),
    "booleans": (tensors(lambda loaded: loaded.update({QUERY: torch.ones(32, 32, dtype=torch.bool)})), EITHER),
    "float64": (tensors(lambda loaded: loaded.update({QUERY: loaded[QUERY].double()})), EITHER),
    "bfloat16": (tensors(lambda loaded: loaded.update({name: tensor.bfloat16() for name, tensor in loaded.items()})), SAME),
    "float16": (tensors(lambda loaded: loaded.update({name: tensor.half() for name, tensor in loaded.items()})), SAME),
    "float8": (tensors(lambda loaded: loaded.update({QUERY: loaded[QUERY].to(torch.float8_e4m3fn)})), EITHER),
    "one NaN": (tensors(lambda loaded: loaded[QUERY].view(-1)[5].fill_(float("nan"))), EITHER),
    "NaN in the head": (set_all(HEAD, float("nan")), EITHER),
    "NaN in a norm": (set_all(NORM, float("nan")), EITHER),
    "infinite": (tensors(lambda loaded: loaded[QUERY].view(-1)[5].fill_(float("inf"))), EITHER),
    "nought in the head": (set_all(HEAD, 0.0), SAME),
    "nought in the embedding": (set_all(EMBEDDING, 0.0), SAME),
    "vast weights": (set_all(HEAD, 1e30), EITHER),
}  # fmt: skip


def sharded(edit: Callable[[dict[str, Any], Path], Any], text: str | None = None) -> Spoil:
    """Split the tensors over two files with an index, then edit the index, or put a text in its place."""

    def spoil(folder: Path) -> None:
        loaded = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(loaded)
        index: dict[str, Any] = {"metadata": {"total_size": 0}, "weight_map": {}}
        for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
            shard = f"model-0000{number}-of-00002.safetensors"
            save_file({name: loaded[name] for name in part}, folder / shard, {"format": "pt"})
            index["weight_map"] |= dict.fromkeys(part, shard)
        edit(index, folder)
        (folder / "model.safetensors.index.json").write_text(json.dumps(index) if text is None else text)

    return spoil


FIRST = "model-00001-of-00002.safetensors"


def move_out(index: dict[str, Any], folder: Path) -> None:
    """Let the index climb out of the folder."""
    (folder / FIRST).rename(folder.parent / "other.safetensors")
    index["weight_map"] = {
        name: "../other.safetensors" if shard == FIRST else shard for name, shard in index["weight_map"].items()
    }


SHARDS: dict[str, tuple[Spoil, Right]] = {
    "as they should be": (sharded(lambda _index, _folder: None), SAME),
    "first missing": (sharded(lambda _index, folder: (folder / FIRST).unlink()), NO),
    "both missing": (sharded(lambda _index, folder: [one.unlink() for one in folder.glob("model-*")]), NO),
    "first cut": (sharded(lambda _index, folder: (folder / FIRST).write_bytes((folder / FIRST).read_bytes()[:5000])), NO),
    "first empty": (sharded(lambda _index, folder: (folder / FIRST).write_bytes(b"")), NO),
    "index is a list": (sharded(lambda _index, _folder: None, "[1]"), NO),
    "index is null": (sharded(lambda _index, _folder: None, "null"), NO),
    "index without weight_map": (sharded(lambda index, _folder: index.pop("weight_map")), NO),
    "weight_map is a list": (sharded(lambda index, _folder: index.update(weight_map=[1])), NO),
    "weight_map is empty": (sharded(lambda index, _folder: index.update(weight_map={})), NO),
    "file is a number": (sharded(lambda index, _folder: index["weight_map"].update({QUERY: 5})), NO),
    "tensor not in the index": (sharded(lambda index, _folder: index["weight_map"].pop(QUERY)), EITHER),
    "tensor in the other file": (sharded(lambda index, _folder: index["weight_map"].update({QUERY: FIRST})), EITHER),
    "index without metadata": (sharded(lambda index, _folder: index.pop("metadata")), EITHER),
    "index climbs out of the folder": (sharded(move_out), either("model|..", check=as_plain)),
    "names nothing": (sharded(lambda index, _folder: index["weight_map"].update({QUERY: "none.safetensors"})), NO),
}  # fmt: skip

CODE = "open({mark!r}, 'w').write('ran')\nfrom transformers import LlamaConfig, LlamaForCausalLM\nclass C(LlamaConfig):\n    model_type = 'own'\nclass M(LlamaForCausalLM):\n    config_class = C\n"


def own_code(*, known_type: bool) -> Spoil:
    """A model that brings code along; the code leaves a file in the folder above."""

    def spoil(folder: Path) -> None:
        kind = {} if known_type else {"model_type": "own"}
        change(folder / "config.json", **kind, auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
        (folder / "own.py").write_text(CODE.format(mark=str(folder.parent / "RAN")))

    return spoil


def code_stayed(place: Path, world: World, printed: str) -> str | None:
    if (place / "RAN").exists():
        return "the code ran without the flag"
    return as_plain(place, world, printed)


def only_pickle(folder: Path) -> None:
    torch.serialization.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def two_kinds(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not a pickle")


def encoder(folder: Path) -> None:
    """A model that reads both sides of a token."""
    from transformers import BertConfig, BertForMaskedLM

    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": 384,
    }
    (folder / "model.safetensors").unlink()
    BertForMaskedLM(BertConfig(**sizes)).save_pretrained(folder)


def encoder_decoder(folder: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    (folder / "model.safetensors").unlink()
    T5ForConditionalGeneration(
        T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    ).save_pretrained(folder)


def classifier(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    made = LlamaConfig.from_pretrained(folder, num_labels=2)
    (folder / "model.safetensors").unlink()
    LlamaForSequenceClassification(made).save_pretrained(folder)


FOLDERS: dict[str, tuple[Spoil, Right]] = {
    "untouched": (lambda _folder: None, SAME),
    "another activation": (config(hidden_act="relu"), SAME),
    "another rotary base": (config(rope_parameters={"rope_type": "default", "rope_theta": 100.0}), SAME),
    "another epsilon": (config(rms_norm_eps=0.5), SAME),
    "another head size": (config(head_dim=16), NO),
    "sliding window of two": (config(sliding_window=2), EITHER),
    "activation that is not known": (config(hidden_act="swoosh"), NO),
    "rotary embedding that is not known": (config(rope_parameters={"rope_type": "spiral", "rope_theta": 1e4}), NO),
    "rotary embedding that lacks a factor": (config(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}), NO),
    "linear rotary scaling": (config(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}), SAME),
    "heads that do not divide": (config(num_attention_heads=5, head_dim=None), NO),
    "key heads that do not divide": (config(num_key_value_heads=3), NO),
    "more layers": (config(num_hidden_layers=3), refused("layers.2|model")),
    "fewer layers": (config(num_hidden_layers=1), EITHER),
    "larger vocabulary": (config(vocab_size=400), NO),
    "smaller vocabulary": (config(vocab_size=100), NO),
    "vocabulary beyond all memory": (config(vocab_size=10**12), NO),
    "layers without end": (config(num_hidden_layers=10**7), NO),
    "shorter context than the answers": (config(max_position_embeddings=4), either("model|forget.jsonl", check=as_plain)),
    "dtype misspelt": (config(dtype="float31"), NO),
    "dtype in capitals": (config(dtype="FLOAT32"), EITHER),
    "dtype with torch": (config(dtype="torch.float32"), EITHER),
    "model type misspelt": (config(model_type="lama"), NO),
    "model type that climbs": (config(model_type="../llama"), NO),
    "another model type": (config(model_type="mistral", architectures=["MistralForCausalLM"]), EITHER),
    "a type of another shape": (config(model_type="gpt2", architectures=["GPT2LMHeadModel"]), NO),
    "no model type": (without("model_type"), NO),
    "no sizes": (without("hidden_size", "intermediate_size"), NO),
    "tied head": (config(tie_word_embeddings=True), EITHER),
    "NaN as epsilon": (file("config.json", lambda path: path.write_text(path.read_text().replace("1e-06", "NaN"))), EITHER),
    "key twice in the config": (file("config.json", lambda path: path.write_text(path.read_text().replace('"hidden_act"', '"hidden_act": "relu",\n  "hidden_act"')) and None), EITHER),
    "config as a list of one": (file("config.json", lambda path: path.write_text(f"[{path.read_text()}]") and None), NO),
    "4 bits said, none there": (config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), NO),
    "8 bits said, none there": (config(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}), NO),
    "gptq said": (config(quantization_config={"quant_method": "gptq", "bits": 4}), NO),
    "awq said": (config(quantization_config={"quant_method": "awq", "bits": 4}), NO),
    "fp8 said": (config(quantization_config={"quant_method": "fp8"}), EITHER),
    "unknown quantisation": (config(quantization_config={"quant_method": "magic"}), NO),
    "quantisation without method": (config(quantization_config={"bits": 4}), NO),
    "quantisation is text": (config(quantization_config="4bit"), NO),
    "code of its own": (own_code(known_type=False), refused("model", "code")),
    "code beside a known type": (own_code(known_type=True), either("code", check=code_stayed)),
    "pickle alone": (only_pickle, NO),
    "pickle beside": (two_kinds, SAME),
    "encoder": (encoder, refused("causal|bert")),
    "encoder and decoder": (encoder_decoder, refused("model")),
    "classifier": (classifier, NO),
    "empty folder": (lambda folder: (shutil.rmtree(folder), folder.mkdir()) and None, NO),
    "a file": (lambda folder: (shutil.rmtree(folder), folder.write_text("x")) and None, NO),
    "weights alone": (lambda folder: [one.unlink() for one in folder.iterdir() if one.suffix == ".json"] and None, NO),
}  # fmt: skip

NAMES: dict[str, tuple[str, str]] = {
    "missing folder": ("./none", "none"),
    "missing folder below": ("../none/x", "none"),
    "empty": ("", "model"),
    "long": ("n" * 300, "n"),
    "long path": ("./" + "/".join(["folder"] * 800), "long"),
    "unknown home": ("~nosuchuser/x", "nosuchuser"),
    "id that is not in the cache": ("nobody/nothing", "nobody/nothing"),
    "id with three parts": ("a/b/c", "a/b/c"),
    "id with blanks": ("a b/c d", "a b/c d"),
    "id that ends with a slash": ("nobody/nothing/", "nobody/nothing"),
    "web address": ("https://huggingface.co/nobody/nothing", "huggingface.co/nobody/nothing"),
    "control characters": ("a\x1b]0;t\x07b", "model|a"),
    "letters of other scripts": ("модель/模型", "модель/模型"),
    "misspelt embedded": ("embeded", "embeded"),
    "the file of the weights": ("FILE", "model.safetensors"),
    "data file": ("DATA", "forget.jsonl"),
    "device": ("/dev/null", "/dev/null"),
    "pattern": ("*", "*"),
}


def named(name: str, command: str, _place: Path, world: World) -> list[str]:
    given = {"FILE": str(world.model / "model.safetensors"), "DATA": str(world.forget)}.get(name, name)
    usual = {
        "evaluate": world.evaluate(),
        "plan": ["plan", *world.usual()],
        "check": ["data", "check", str(world.forget)],
    }
    return [*usual[command], "--model", given]


MORE_COMMANDS = {
    "heads that do not divide", "activation that is not known", "dtype misspelt", "encoder", "gptq said", "vocabulary beyond all memory",
}  # fmt: skip
TRAINED = {"heads that do not divide", "4 bits said, none there", "activation that is not known", "larger vocabulary"}

CASES = [
    *(
        case(f"config: {key} is {kind}", config(**{key: value}), EITHER)
        for key in KEYS
        for kind, value in WRONG_JSON.items()
    ),
    *(case(f"config: no {key}", without(key), EITHER) for key in KEYS),
    *(case(f"config.json: {name}", file("config.json", damage), NO) for name, damage in JSON_FILE.items()),
    *(
        case(f"generation_config.json: {name}", file("generation_config.json", damage), EITHER)
        for name, damage in JSON_FILE.items()
    ),
    *(
        case(f"model.safetensors: {name}", file("model.safetensors", damage), NO)
        for name, damage in (
            ANY_FILE | {"pointer of git-lfs": JSON_FILE["pointer of git-lfs"], "web page": content("<html>")}
        ).items()
    ),
    *(case(f"tensors: {name}", spoil, right) for name, (spoil, right) in TENSORS.items()),
    *(case(f"shards: {name}", spoil, right) for name, (spoil, right) in SHARDS.items()),
    *(case(f"folder: {name}", spoil, right) for name, (spoil, right) in FOLDERS.items()),
    *(
        case(f"folder: {name}", spoil, either("model", codes=(0, 2)) if name in MORE_COMMANDS else right, "plan")
        for name, (spoil, right) in FOLDERS.items()
        if name in MORE_COMMANDS
    ),
    *(case(f"folder: {name}", spoil, NO, "unlearn") for name, (spoil, right) in FOLDERS.items() if name in TRAINED),
    *(
        case(f"tensors: {name}", TENSORS[name][0], refused("q_proj|model"), command)
        for name in ("one NaN", "infinite", "tensor missing", "length beyond the file")
        for command in ("unlearn", "finetune", "importance")
    ),
    *(
        Case(f"name: {name} ({command})", partial(named, given, command), refused(says))
        for name, (given, says) in NAMES.items()
        for command in ("evaluate", "plan", "check")
    ),
]
