"""Adapter folders: every key of adapter_config.json, damaged and strange tensors, bases that are not there.

Where PEFT alone loads an adapter, unlora must give the number of a plain loop over it or refuse.
"""

import shutil
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
    "alpha_pattern", "base_model_name_or_path", "bias", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "layer_replication", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_bias",
    "lora_dropout", "modules_to_save", "peft_type", "r", "rank_pattern", "target_modules", "target_parameters",
    "task_type", "trainable_token_indices", "use_dora", "use_rslora",
)  # fmt: skip
WEIGHTS = "adapter_model.safetensors"


def spoilt(spoil: Spoil, how: str, place: Path, world: World) -> list[str]:
    """Copy the adapter, spoil the copy, and use it as the target or as what is laid over the target."""
    folder = copied(world.adapter, place / "adapter")
    change(folder / "adapter_config.json", base_model_name_or_path=str(world.model))
    (folder / "unlora.json").unlink(missing_ok=True)  # an adapter of somebody else's has none
    spoil(folder)
    data = ["--forget", world.forget, "--retain", world.retain]
    short = ["--set", "evaluation.max_new_tokens=4", "--output", "out"]
    return {
        "over": arguments("evaluate", "--model", world.model, "--adapter", "adapter", *data, *short),
        "target": arguments("evaluate", "--model", "adapter", *data, *short),
        "base": arguments("evaluate", "--model", "adapter", "--base", world.model, *data, *short),
        "plan": arguments("plan", "--model", "adapter", *data, "--tflops", 1),
        "check": arguments("data", "check", world.forget, "--model", "adapter"),
        "unlearn": [*world.unlearn(), "--model", "adapter"],
        "retain-only": [*world.evaluate(), "--retain-only", "adapter"],
    }[how]


def as_plain(how: str, place: Path, world: World, _printed: str) -> str | None:
    model = {"over": "unlearned", "retain-only": "retain_only"}.get(how, "target")
    if how in ("plan", "check", "unlearn"):
        return None
    return oracle.same_as_plain(place / "out", world.model, world.forget, adapter=place / "adapter", model=model)


def case(name: str, spoil: Spoil, right: Right, how: str) -> Case:
    if 0 in right.codes:
        right = Right(right.codes, right.says, partial(as_plain, how))
    # By the time the control is read, the target's scores are kept.
    leaves = ("work/out*",) if how == "retain-only" else ()
    return Case(f"{name} ({how})", partial(spoilt, spoil, how), right, leaves)


def config(**values: Any) -> Spoil:
    return lambda folder: change(folder / "adapter_config.json", **values)


def without(*keys: str) -> Spoil:
    return lambda folder: drop(folder / "adapter_config.json", *keys)


def file(name: str, damage: Spoil) -> Spoil:
    return lambda folder: damage(folder / name)


def tensors(edit: Callable[[dict[str, Any]], Any]) -> Spoil:
    def spoil(folder: Path) -> None:
        loaded = load_file(folder / WEIGHTS)
        edit(loaded)
        save_file({name: tensor.contiguous() for name, tensor in loaded.items()}, folder / WEIGHTS)

    return spoil


def first(loaded: dict[str, Any], part: str = "lora_A") -> str:
    return next(name for name in sorted(loaded) if part in name and "q_proj" in name)


NO = refused("adapter")
EITHER = either("adapter")
SAME = works()
NAN = refused("adapter|q_proj", "NaN|finite|not a number")


def more(name: str, shape: tuple[int, ...]) -> Spoil:
    return tensors(lambda loaded: loaded.update({name: torch.ones(shape)}))


TENSORS: dict[str, tuple[Spoil, Right]] = {
    "none": (tensors(lambda loaded: loaded.clear()), NO),
    "one missing": (tensors(lambda loaded: loaded.pop(first(loaded))), NO),
    "all of a layer missing": (tensors(lambda loaded: [loaded.pop(name) for name in list(loaded) if ".layers.1." in name]), NO),
    "all B missing": (tensors(lambda loaded: [loaded.pop(name) for name in list(loaded) if "lora_B" in name]), NO),
    "one more": (more("base_model.model.model.layers.0.self_attn.x_proj.lora_A.weight", (4, 32)), NO),
    "a layer more": (more("base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight", (4, 32)), NO),
    "other names": (tensors(lambda loaded: loaded.update({f"x.{name}": loaded.pop(name) for name in list(loaded)})), NO),
    "names without prefix": (tensors(lambda loaded: loaded.update({name.removeprefix("base_model.model."): loaded.pop(name) for name in list(loaded)})), NO),
    "names of an adapter called default": (tensors(lambda loaded: loaded.update({name.replace(".weight", ".default.weight"): loaded.pop(name) for name in list(loaded)})), EITHER),
    "rank of another": (tensors(lambda loaded: loaded.update({first(loaded): torch.ones(8, 32)})), NO),
    "width of another": (tensors(lambda loaded: loaded.update({first(loaded): torch.ones(4, 64)})), NO),
    "transposed": (tensors(lambda loaded: loaded.update({first(loaded): torch.ones(32, 4)})), NO),
    "scalar": (tensors(lambda loaded: loaded.update({first(loaded): torch.tensor(1.0)})), NO),
    "NaN": (tensors(lambda loaded: loaded[first(loaded)].view(-1)[3].fill_(float("nan"))), NAN),
    "infinite": (tensors(lambda loaded: loaded[first(loaded, "lora_B")].view(-1)[3].fill_(float("inf"))), NAN),
    "integers": (tensors(lambda loaded: loaded.update({first(loaded): torch.ones(4, 32, dtype=torch.int32)})), EITHER),
    "float64": (tensors(lambda loaded: loaded.update({first(loaded): loaded[first(loaded)].double()})), EITHER),
    "bfloat16": (tensors(lambda loaded: loaded.update({name: tensor.bfloat16() for name, tensor in loaded.items()})), EITHER),
    "nought": (tensors(lambda loaded: [tensor.zero_() for tensor in loaded.values()]), SAME),
    "vast": (tensors(lambda loaded: loaded[first(loaded, "lora_B")].fill_(1e6)), EITHER),
}  # fmt: skip


def pickle_alone(folder: Path) -> None:
    torch.serialization.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()


def pickle_beside(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(b"not a pickle")


def code_beside(folder: Path) -> None:
    (folder / "modeling.py").write_text("open('RAN', 'w')\n")
    change(folder / "adapter_config.json", auto_mapping={"base_model_class": "M", "parent_library": "modeling"})


def base_in_loop(folder: Path) -> None:
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    change(folder / "adapter_config.json", base_model_name_or_path=str(other))
    change(other / "adapter_config.json", base_model_name_or_path=str(folder))


CONFIGS: dict[str, tuple[Spoil, Right]] = {
    "untouched": (lambda _folder: None, SAME),
    "alpha": (config(lora_alpha=80), SAME),
    "alpha is a fraction": (config(lora_alpha=8.5), EITHER),
    "alpha is NaN": (config(lora_alpha=float("nan")), refused("adapter")),
    "rank of another": (config(r=8), NO),
    "rank of 2^40": (config(r=2**40), NO),
    "fewer modules": (config(target_modules=["q_proj"]), NO),
    "more modules": (config(target_modules=["q_proj", "v_proj", "up_proj", "down_proj", "k_proj", "o_proj", "gate_proj", "lm_head"]), NO),
    "unknown module": (config(target_modules=["zz_proj"]), NO),
    "all linear layers": (config(target_modules="all-linear"), EITHER),
    "pattern": (config(target_modules=r".*\.(self_attn|mlp)\..*_proj"), EITHER),
    "bad pattern": (config(target_modules="("), NO),
    "pattern that takes long to match": (config(target_modules="(a+)+" * 12 + "$"), NO),
    "layers picked": (config(layers_to_transform=[0]), NO),
    "scaling by the root": (config(use_rslora=True), EITHER),
    "DoRA without its tensors": (config(use_dora=True), NO),
    "bias without its tensors": (config(bias="all"), EITHER),
    "lora_bias without its tensors": (config(lora_bias=True), NO),
    "saved module without its tensors": (config(modules_to_save=["lm_head"]), NO),
    "unknown saved module": (config(modules_to_save=["zz"]), EITHER),
    "dropout": (config(lora_dropout=0.5), EITHER),
    "alpha by module": (config(alpha_pattern={"q_proj": 80}), EITHER),
    "rank by module": (config(rank_pattern={"q_proj": 2}), NO),
    "layers repeated": (config(layer_replication=[[0, 2], [0, 2]]), NO),
    "starts by pissa": (config(init_lora_weights="pissa"), NO),
    "starts by pissa in 4 steps": (config(init_lora_weights="pissa_niter_4"), NO),
    "starts by olora": (config(init_lora_weights="olora"), NO),
    "starts by corda": (config(init_lora_weights="corda"), NO),
    "starts by loftq": (config(init_lora_weights="loftq"), NO),
    "starts by eva": (config(init_lora_weights="eva"), EITHER),
    "starts by orthogonal": (config(init_lora_weights="orthogonal"), EITHER),
    "starts by gaussian": (config(init_lora_weights="gaussian"), EITHER),
    "starts in an unknown way": (config(init_lora_weights="magic"), NO),
    "another kind": (config(peft_type="IA3"), NO),
    "unknown kind": (config(peft_type="MAGIC"), NO),
    "prompt tuning": (config(peft_type="PROMPT_TUNING", num_virtual_tokens=4), NO),
    "small letters": (config(peft_type="lora"), EITHER),
    "another task": (config(task_type="SEQ_CLS"), EITHER),
    "unknown key": (config(unknown_key=1), EITHER),
    "of a later PEFT": (config(peft_version="99.0.0"), EITHER),
    "no rank": (without("r"), NO),
    "no alpha": (without("lora_alpha"), EITHER),
    "no modules": (without("target_modules"), EITHER),
    "no kind": (without("peft_type"), NO),
    "pickle alone": (pickle_alone, NO),
    "pickle beside": (pickle_beside, SAME),
    "code beside": (code_beside, either("adapter|code")),
    "weights alone": (lambda folder: (folder / "adapter_config.json").unlink(), NO),
    "empty folder": (lambda folder: (shutil.rmtree(folder), folder.mkdir()) and None, NO),
    "a file": (lambda folder: (shutil.rmtree(folder), folder.write_text("x")) and None, NO),
}  # fmt: skip
BASES: dict[str, tuple[Spoil, Right]] = {
    "missing": (config(base_model_name_or_path="/none/model"), refused("none")),
    "null": (config(base_model_name_or_path=None), NO),
    "empty": (config(base_model_name_or_path=""), NO),
    "a number": (config(base_model_name_or_path=5), NO),
    "a list": (config(base_model_name_or_path=["x"]), NO),
    "long": (config(base_model_name_or_path="n" * 300), refused("nnn")),
    "not named": (without("base_model_name_or_path"), NO),
    "the adapter itself": (lambda folder: config(base_model_name_or_path=str(folder))(folder), NO),
    "two adapters in a loop": (base_in_loop, refused("adapter|other")),
    "web address": (config(base_model_name_or_path="https://huggingface.co/x/y"), refused("huggingface.co/x/y")),
    "control characters": (config(base_model_name_or_path="a\x1b]0;t\x07b"), refused("a")),
}

CASES = [
    *(
        case(f"config: {key} is {kind}", config(**{key: value}), EITHER, "over" if number % 2 else "target")
        for number, key in enumerate(KEYS)
        for kind, value in WRONG_JSON.items()
        if key != "base_model_name_or_path"
    ),
    *(
        case(f"adapter_config.json: {name}", file("adapter_config.json", damage), NO, how)
        for name, damage in JSON_FILE.items()
        for how in ("over", "target")
    ),
    *(
        case(f"{WEIGHTS}: {name}", file(WEIGHTS, damage), NO, "over")
        for name, damage in (ANY_FILE | {"web page": content("<html>")}).items()
    ),
    *(case(f"tensors: {name}", spoil, right, "over") for name, (spoil, right) in TENSORS.items()),
    *(
        case(f"tensors: {name}", TENSORS[name][0], TENSORS[name][1], how)
        for name in ("NaN", "one missing", "a layer more")
        for how in ("target", "unlearn", "retain-only")
    ),
    *(case(f"folder: {name}", spoil, right, "over") for name, (spoil, right) in CONFIGS.items()),
    # PEFT takes the leading part out of the base in the same way each time: as a target, that is the model.
    *(
        case(f"folder: {name}", spoil, works() if name == "starts by pissa" else right, "target")
        for name, (spoil, right) in CONFIGS.items()
        if name
        in (
            "untouched",
            "alpha",
            "bad pattern",
            "starts by pissa",
            "saved module without its tensors",
            "unknown kind",
            "layers picked",
            "pattern that takes long to match",
            "code beside",
        )
    ),
    *(
        case(f"base: {name}", spoil, right, how)
        for name, (spoil, right) in BASES.items()
        for how in ("target", "plan", "check")
    ),
    case("folder: untouched", lambda _folder: None, works(), "base"),
    case("base: missing, another given", BASES["missing"][0], works(), "base"),
    Case(
        "an adapter over itself",
        lambda _place, world: arguments(*world.evaluate(), "--model", world.adapter, "--adapter", world.adapter),
        either("adapter"),
    ),
    Case(
        "a model as adapter",
        lambda _place, world: arguments(*world.evaluate(), "--adapter", world.model),
        refused("adapter_config.json"),
    ),
    Case(
        "a base for a model", lambda _place, world: arguments(*world.evaluate(), "--base", world.model), refused("base")
    ),
    *(
        Case(
            f"name: {name}",
            lambda _place, world, given=given: arguments(*world.evaluate(), "--adapter", given),
            refused("adapter|nnn|none"),
        )
        for name, given in {
            "missing": "none",
            "long": "n" * 300,
            "empty": "",
            "below a file": "/etc/passwd/x",
            "control characters": "adapter\x1b]0;t\x07",
        }.items()
    ),
]
