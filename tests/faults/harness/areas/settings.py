"""Settings: every key with every wrong type and every value out of bounds, by --set and by YAML; and broken YAML."""

import types
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tests.faults.harness.case import Case, Right, either, fails, refused, works
from tests.faults.harness.world import World
from unlora.audit.settings import AuditSettings
from unlora.run.settings import FineTuneSettings, UnlearnSettings
from unlora_research.sigma import SigmaSettings

WRONG: dict[Any, dict[str, Any]] = {
    int: {"text": "many", "fraction": 2.5, "list": [1], "section": {"a": 1}, "true": True},
    float: {"text": "much", "list": [1.0], "section": {"a": 1}, "nan": float("nan"), "infinite": float("inf")},
    bool: {"text": "maybe", "number": 2, "list": [True], "section": {"a": 1}},
    str: {"number": 5, "list": ["x"], "section": {"a": 1}, "true": True},
    list: {"text": "x", "number": 5, "section": {"a": 1}, "nested": [[[]]]},
    dict: {"text": "x", "number": 5, "list": ["x"]},
    Literal: {"unknown": "zzz", "number": 3, "list": ["x"], "section": {"a": 1}, "nothing in it": ""},
}


def leaves(settings: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key with a value, by its dotted name."""
    for name, field in settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{above}{name}.")
        else:
            yield above + name, field


def sections(settings: type[BaseModel]) -> list[str]:
    return [
        name
        for name, field in settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    ]


def wrong_values(field: FieldInfo) -> dict[str, Any]:
    """By kind: values that the field cannot take."""
    kinds = (
        [field.annotation]
        if get_origin(field.annotation) not in (Union, types.UnionType)
        else get_args(field.annotation)
    )
    plain = next(kind for kind in kinds if kind is not types.NoneType)
    base = get_origin(plain) or plain
    found = dict(WRONG[list if base is tuple else base])
    if types.NoneType not in kinds:
        found["null"] = None
    for bound in field.metadata:
        if isinstance(bound, Ge):
            found["below"] = bound.ge - 1
        if isinstance(bound, Gt):
            found["at the bound"] = bound.gt
            found["below"] = bound.gt - 1
        if isinstance(bound, Le):
            found["above"] = bound.le + 1
        if isinstance(bound, Lt):
            found["at the upper bound"] = bound.lt
    return found


def base_command(user: str, world: World) -> list[str]:
    return {
        "unlearn": world.unlearn(), "finetune": world.finetune(), "audit": [*world.audit(world.run), "--output", "out"],
        "study sigma": world.small_study(),
    }[user]  # fmt: skip


def by_set(user: str, key: str, value: Any, _place: Path, world: World) -> list[str]:
    return [*base_command(user, world), "--set", f"{key}={yaml_text(value)}"]


def yaml_text(value: Any) -> str:
    """A value as one would type it after `key=`."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")
    return text


def by_file(user: str, key: str, value: Any, place: Path, world: World) -> list[str]:
    nested = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    (place / "run.yaml").write_text(yaml.safe_dump(nested))
    command, *options = (
        ["unlearn", *world.usual(), "--output", "out"] if user == "unlearn" else base_command(user, world)
    )
    return [command, "run.yaml", *options] if user == "unlearn" else [command, options[0], "run.yaml", *options[1:]]


USERS: dict[str, type[BaseModel]] = {
    "unlearn": UnlearnSettings, "finetune": FineTuneSettings, "audit": AuditSettings, "study sigma": SigmaSettings,
}  # fmt: skip
BY_FLAG = ("model.name", "model.device", "data.forget", "data.retain", "data", "attacks", "methods", "sigmas")
"""Keys whose flag in the usual command a file cannot override."""


def every_key() -> Iterable[Case]:
    """Every key of every command with every kind of wrong value; keys that two commands share, once."""
    seen: set[str] = set()
    for user, settings in USERS.items():
        for number, (key, field) in enumerate(leaves(settings)):
            if (shared := f"{user if user in ('audit', 'study sigma') else ''}{key}") in seen or key.startswith(
                "world."
            ):
                continue
            seen.add(shared)
            for turn, (kind, value) in enumerate(wrong_values(field).items()):
                file = user in ("unlearn", "study sigma") and (number + turn) % 2 == 0 and key not in BY_FLAG
                make = partial(by_file if file else by_set, user, key, value)
                yield Case(f"{user} {key}: {kind}", make, refused(key.rpartition(".")[2]))
        for section in sections(settings):
            for kind, value in {"number": 5, "text": "x", "list": ["x"], "null": None}.items():
                if user != "finetune" and (section, kind) != ("world", "null"):
                    yield Case(f"{user} {section}: {kind}", partial(by_set, user, section, value), refused(section))
            yield Case(
                f"{user} {section}: unknown key",
                partial(by_set, user, f"{section}.nested.deep", 1),
                refused(f"{section}.nested"),
            )
        yield Case(f"{user}: unknown key", partial(by_set, user, "qqq", 1), refused("unknown key 'qqq'"))


def yaml_file(text: str | bytes, place: Path, world: World) -> list[str]:
    (place / "run.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    start = (
        [*QUICK_START, "--set", "evaluation.skip=false"]
        if b"retain_only" in (place / "run.yaml").read_bytes()
        else QUICK_START
    )
    return ["unlearn", "run.yaml", *world.usual(), *start, "--output", "out"]


QUICK_START = ["--set", "adapter.rank=4", "--set", "evaluation.skip=true", "--set", "training.batch_size=4"]
ALIASES = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + place)}: &{chr(98 + place)} [{', '.join(['*' + chr(97 + place)] * 8)}]\n" for place in range(8)
)
FILES: dict[str, tuple[str | bytes, Right]] = {
    "section twice": ("training: {epochs: 1}\nadapter: {rank: 4}\ntraining: {batch_size: 4}\n", refused("training", "line")),
    "key twice in a section": ("training:\n  epochs: 1\n  epochs: 2\n", refused("epochs", "line")),
    "key twice in braces": ("training: {epochs: 1, epochs: 2}\n", refused("epochs")),
    "key twice, once quoted": ("seed: 1\n'seed': 2\n", refused("seed")),
    "key twice far below": ("objective:\n  forget_parameters: {beta: 1, beta: 2}\n", refused("beta")),
    "unclosed list": ("training: [1\n", refused("run.yaml, line 2")),
    "unclosed quote": ("training: 'x\n", refused("run.yaml, line")),
    "tab as indent": ("training:\n\tepochs: 1\n", refused("run.yaml, line 2")),
    "indent is uneven": ("training:\n  epochs: 1\n   batch_size: 2\n", refused("run.yaml, line 3")),
    "no space after the colon": ("training:\n  epochs:1\n", refused("training")),
    "equals sign": ("training.epochs = 1\n", refused("run.yaml")),
    "dotted key": ("training.epochs: 1\n", refused("training.epochs")),
    "list": ("- training\n", refused("run.yaml", "list")),
    "text": ("training\n", refused("run.yaml")),
    "number": ("5\n", refused("run.yaml")),
    "two documents": ("seed: 1\n---\nseed: 2\n", refused("run.yaml")),
    "JSON with a comment": ('{"seed": 1 // one\n}', refused("run.yaml")),
    "Python object": ("seed: !!python/object/apply:os.system ['touch RAN']\n", refused("run.yaml")),
    "unknown tag": ("seed: !secret 5\n", refused("run.yaml")),
    "unknown alias": ("seed: *other\n", refused("run.yaml", "line 1")),
    "alias of itself": ("seed: &a [*a]\n", refused("seed")),
    "alias in a section": ("training: &t {epochs: 1}\nadapter: *t\n", refused("adapter")),
    "many aliases under a key": (ALIASES + "seed: *i\n", refused("run.yaml")),
    "many aliases as unknown keys": (ALIASES, refused("run.yaml")),
    "5,000 brackets": ("seed: " + "[" * 5000, refused("run.yaml")),
    "5,000 nested sections": ("{a: " * 5000, refused("run.yaml")),
    "number of 6,000 digits": ("seed: " + "9" * 6000 + "\n", refused("seed|run.yaml")),
    "long text as value": ("seed: " + "x" * 100_000 + "\n", refused("seed")),
    "long key": ("k" * 5000 + ": 1\n", refused("unknown key|run.yaml")),
    "key is a number": ("5: 1\n", refused("5")),
    "key is null": ("~: 1\n", refused("run.yaml")),
    "key is a list": ("[a]: 1\n", refused("run.yaml")),
    "key is a mapping": ("{a: 1}: 1\n", refused("run.yaml")),
    "key is true": ("on: 1\n", refused("run.yaml")),
    "key with control characters": ('"a\\e]0;t\\x07b": 1\n', refused("run.yaml|unknown key")),
    "value with control characters": ('data: {template: "a\\e]0;t\\x07b"}\n', refused("template")),
    "NUL in a path": ('evaluation: {retain_only: "./a\\0b"}\n', refused("NUL|null|retain_only")),
    "NUL byte": (b"seed: 1\0\n", refused("run.yaml")),
    "latin-1": ("model: {name: Où}\n".encode("latin-1"), refused("run.yaml")),
    "UTF-16 without a mark": ("seed: 1\n".encode("utf-16-le"), refused("run.yaml")),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), refused("run.yaml")),
    "date as seed": ("seed: 2024-01-01\n", refused("seed")),
    "time as seed": ("seed: 1:30\n", refused("seed")),
    "octal as seed": ("seed: 0o17\n", either("seed")),
    "leading zero in a seed": ("seed: 010\n", either("seed")),
    "binary as name": ("model: {base: !!binary aGVsbG8=}\n", refused("base|run.yaml")),
    "set as list": ("adapter: {target_modules: !!set {q_proj}}\n", either("target_modules|run.yaml")),
    "not a number as rate": ("training: {learning_rate: .nan}\n", refused("learning_rate")),
    "seed of 2^32": ("seed: 4294967296\n", refused("seed")),
    "negative seed": ("seed: -1\n", refused("seed")),
}  # fmt: skip


def seed_is(seed: int, rank: int = 4) -> Any:
    """What the run wrote down is what the file said."""

    def compare(place: Path, _world: World, _printed: str) -> str | None:
        written = yaml.safe_load((place / "out" / "config.yaml").read_text())
        found = written["seed"], written["adapter"]["rank"]
        return None if found == (seed, rank) else f"seed and rank {found}, {(seed, rank)} are right"

    return compare


GOOD_FILES: dict[str, tuple[str | bytes, Right]] = {
    "empty": ("", works(seed_is(0))),
    "comments alone": ("# nothing\n", works(seed_is(0))),
    "largest seed": ("seed: 4294967295\n", works(seed_is(2**32 - 1))),
    "byte order mark": (b"\xef\xbb\xbfseed: 3\n", works(seed_is(3))),
    "Windows line ends": ("seed: 3\r\ntraining:\r\n  epochs: 1\r\n", works(seed_is(3))),
    "JSON": ('{"seed": 3, "training": {"epochs": 1}}', works(seed_is(3))),
    "an alias": ("x: &x 3\n".replace("x: ", "seed: ") + "evaluation: {batch_size: *x}\n", works(seed_is(3))),
    "end of document": ("seed: 3\n...\n", works(seed_is(3))),
}


def with_sets(*texts: str) -> Any:
    def make(_place: Path, world: World) -> list[str]:
        return [
            "unlearn",
            *world.usual(),
            *QUICK_START,
            *(part for text in texts for part in ("--set", text)),
            "--output",
            "out",
        ]

    return make


SETS: dict[str, tuple[tuple[str, ...], Right]] = {
    "no equals sign": (("training.epochs",), refused("--set training.epochs")),
    "nothing": (("",), refused("--set")),
    "equals alone": (("=",), refused("--set =")),
    "no key": (("=1",), refused("--set =1")),
    "dot at the end": (("training.=1",), refused("--set training.=1")),
    "dot at the start": ((".epochs=1",), refused("--set .epochs=1")),
    "two dots": (("training..epochs=1",), refused("--set training..epochs=1")),
    "only dots": (("...=1",), refused("--set ...=1")),
    "deep key": (("a.b.c.d.e.f=1",), refused("unknown key 'a'")),
    "2,000 dots": ((".".join(["a"] * 2000) + "=1",), refused("a")),
    "long value": (("seed=" + "x" * 50_000,), refused("seed")),
    "deep brackets": (("seed=" + "[" * 3000,), refused("seed|--set")),
    "digits": (("seed=" + "9" * 6000,), refused("seed|--set")),
    "two documents": (("seed=1\n---\n2",), refused("seed|--set")),
    "key twice in braces": (("training={epochs: 1, epochs: 2}",), refused("epochs")),
    "control characters": (("data.template=a\x1b]0;t\x07b",), refused("template")),
    "section, then key": (("training=5", "training.epochs=1"), refused("training")),
    "key of another section": (("training.rank=4",), refused("adapter.rank")),
    "misspelt section": (("trainig.epochs=1",), refused("training")),
    "misspelt key": (("training.epocs=1",), refused("training.epochs")),
    "hyphen for underscore": (("training.batch-size=1",), refused("training.batch_size")),
    "true as a number": (("training.epochs=true",), refused("training.epochs")),
    "coverage without importance": (("adapter.coverage=0.5", "importance.initialisation=plain"), refused("adapter.coverage")),
    "dropout": (("adapter.lora_dropout=0.5",), refused("adapter.lora_dropout")),
    "unknown module": (("adapter.target_modules=[q_prj]",), refused("q_prj")),
    "module is a bad pattern": (("adapter.target_modules=['(']",), refused("(")),
    "no module": (("adapter.target_modules=[]",), refused("target")),
    "module that takes long to match": (("adapter.target_modules=['" + "(a+)+" * 20 + "$']",), refused("target|matches no")),
    "rank beyond a layer": (("adapter.rank=1000",), refused("adapter.rank")),
    "rank beyond all numbers": (("adapter.rank=100000000000000000000",), refused("adapter.rank")),
    "batch beyond all numbers": (("training.batch_size=99999999999999999999", "training.epochs=1"), either("training.batch_size")),
    "accumulation beyond all numbers": (("training.gradient_accumulation_steps=99999999999999999999", "training.epochs=1"), either("training.gradient_accumulation_steps")),
    "epochs beyond all numbers": (("training.epochs=99999999999999999999",), refused("training.epochs")),
    "save_steps beyond all numbers": (("training.save_steps=99999999999999999999", "training.epochs=1"), either("training.save_steps")),
    "max_length beyond all numbers": (("data.max_length=99999999999999999999", "training.epochs=1"), either("data.max_length")),
    "importance batch beyond all numbers": (("importance.batch_size=99999999999999999999", "training.epochs=1"), either("importance.batch_size")),
    "examples beyond all numbers": (("importance.max_retain_examples=99999999999999999999", "training.epochs=1"), either("importance.max_retain_examples")),
    "largest alpha": (("adapter.alpha=1e308", "training.epochs=1"), either("adapter.alpha", codes=(1, 2))),
    "largest rate": (("training.learning_rate=1e38", "training.epochs=1"), fails("finite|diverged|not a number|no probability")),
    "large rate": (("training.learning_rate=1e30", "training.epochs=1"), fails("finite|diverged|not a number|no probability")),
    "smallest rate": (("training.learning_rate=1e-320", "training.epochs=1"), works()),
    "unknown forget term": (("objective.forget=ilh",), refused("ihl")),
    "unknown retain term": (("objective.retain=nl",), refused("nll")),
    "term of a missing module": (("objective.forget=no_such_module:Loss",), refused("no_such_module")),
    "term of a missing class": (("objective.forget=json:Nothing",), refused("json")),
    "term that is no term": (("objective.forget=json:JSONDecoder",), refused("json:JSONDecoder")),
    "term with two colons": (("objective.forget=a:b:c",), refused("a:b:c")),
    "unknown parameter": (("objective.forget=npo", "objective.forget_parameters.bta=1"), refused("bta")),
    "parameter is text": (("objective.forget=npo", "objective.forget_parameters.beta=x"), refused("beta")),
    "parameter is not a number": (("objective.forget=npo", "objective.forget_parameters.beta=.nan"), refused("beta")),
    "parameter is negative": (("objective.forget=npo", "objective.forget_parameters.beta=-1"), refused("beta")),
    "parameter is null": (("objective.forget=npo", "objective.forget_parameters.beta=null"), refused("beta")),
    "refusals of a term that reads none": (("objective.refusals=none.jsonl",), refused("objective.refusals")),
    "missing refusals": (("objective.forget=idk", "objective.refusals=none.jsonl"), refused("none.jsonl")),
    "importance file of another start": (("importance.initialisation=plain", "importance.file=x"), refused("importance.file")),
    "missing importance file": (("importance.file=none.safetensors",), refused("none.safetensors")),
    "published arithmetic of marginals": (("importance.initialisation=importance", "importance.arithmetic=published"), refused("importance.arithmetic")),
    "unknown device": (("model.device=gpu",), refused("gpu")),
    "device that is not there": (("model.device=cuda:99",), refused("cuda")),
    "strange device": (("model.device=cpu:-1",), refused("cpu:-1")),
    "base of a model that is no adapter": (("model.base=x",), refused("base")),
    "retain-only model is missing": (("evaluation.retain_only=./none", "evaluation.skip=false"), refused("none")),
    "retain-only scores are missing": (("evaluation.retain_only=none.jsonl", "evaluation.skip=false"), refused("none.jsonl")),
    "retain-only base without a model": (("evaluation.retain_only_base=x", "evaluation.skip=false", "training.epochs=1"), either("retain_only_base")),
}  # fmt: skip

AUDIT_SETS: dict[str, tuple[str, str]] = {
    "no k": ("sampling.k=[]", "sampling.k"),
    "k is nought": ("sampling.k=[0]", "sampling.k"),
    "k is negative": ("sampling.k=[-1]", "sampling.k"),
    "k is text": ("sampling.k=[x]", "sampling.k"),
    "no attack": ("attacks=[]", "attacks"),
    "unknown attack": ("attacks=[x]", "attacks"),
    "unknown format": ("quantisation.formats=[int3]", "quantisation.formats"),
    "unknown attacker": ("relearning.attackers=[some]", "relearning.attackers"),
    "no seed": ("relearning.seeds=[]", "relearning.seeds"),
    "negative seed": ("relearning.seeds=[-1]", "relearning.seeds"),
    "seed of 2^32": ("relearning.seeds=[4294967296]", "relearning.seeds"),
    "seed of 2^32 for all": ("seed=4294967296", "seed"),
    "missing holdout": ("holdout=none.jsonl", "none.jsonl"),
    "missing people": ("same_person=none.jsonl", "none.jsonl"),
    "missing control": ("retain_only=./none", "none"),
}
STUDY_SETS: dict[str, tuple[str, str]] = {
    "no seed": ("seeds=[]", "seeds"),
    "negative seed": ("seeds=[-1]", "seeds"),
    "seed of 2^32": ("seeds=[4294967296]", "seeds"),
    "unknown method": ("methods=[vlia]", "vila"),
    "no method": ("methods=[]", "methods"),
    "negative sigma": ("sigmas=[-1]", "sigma"),
    "no sigma": ("sigmas=[]", "sigmas"),
    "no rate": ("learning_rates=[]", "learning_rates"),
    "negative rate": ("learning_rates=[-1]", "learning_rate"),
    "world without people": ("world.people=0", "people"),
    "world of fewer people than are forgotten": ("world.people=1", "people"),
    "world without layers": ("world.layers=0", "layers"),
    "world of width nought": ("world.hidden_size=0", "hidden_size"),
}


def audit_with(setting: str, _place: Path, world: World) -> list[str]:
    return [*world.audit(world.run), "--set", setting, "--output", "out"]


def study_with(setting: str, _place: Path, world: World) -> list[str]:
    return [*world.small_study(), "--set", setting]


def preset_with(name: str, _place: Path, world: World) -> list[str]:
    return [*world.unlearn(), "--preset", name]


CASES = [
    *every_key(),
    *(Case(f"YAML: {name}", partial(yaml_file, text), right) for name, (text, right) in FILES.items()),
    *(Case(f"good YAML: {name}", partial(yaml_file, text), right) for name, (text, right) in GOOD_FILES.items()),
    *(
        Case(f"--set: {name}", with_sets(*texts), right, leaves=("work/out*",) if 1 in right.codes else ())
        for name, (texts, right) in SETS.items()
    ),
    *(
        Case(f"audit --set: {name}", partial(audit_with, text), refused(says))
        for name, (text, says) in AUDIT_SETS.items()
    ),
    *(
        Case(f"study --set: {name}", partial(study_with, text), refused(says))
        for name, (text, says) in STUDY_SETS.items()
    ),
    *(
        Case(f"preset {name!r}", partial(preset_with, name), refused("preset"))
        for name in ("vlia", "", "../vila", "vila.yaml", "VILA", "a\x1bb")
    ),
]
