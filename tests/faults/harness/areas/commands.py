"""Commands and flags: what is missing, misspelt, out of bounds, given twice or contradicts itself."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.harness.case import Case, Right, arguments, either, refused, works
from tests.faults.harness.world import World

USUAL: dict[str, Callable[[World], list[str]]] = {
    "unlearn": lambda world: world.unlearn(),
    "importance": lambda world: arguments("importance", *world.usual(), "--output", "out"),
    "evaluate": lambda world: world.evaluate(),
    "finetune": lambda world: world.finetune(),
    "plan": lambda world: arguments("plan", *world.usual(), "--tflops", 1),
    "sequence": lambda world: arguments("sequence", *world.usual(), "--output", "out"),
    "audit": lambda world: arguments(*world.audit(world.run), "--output", "out"),
    "export": lambda world: arguments("export", world.run, "--rank", 2, "--output", "out"),
    "study": lambda world: world.small_study(),
    "data check": lambda world: arguments("data", "check", world.forget, "--model", world.model),
    "report": lambda _world: ["report", "none"],
    "presets cp": lambda _world: ["presets", "cp", "vila", "out"],
    "presets ls": lambda _world: ["presets", "ls"],
    "doctor": lambda _world: ["doctor"],
}
REQUIRED: dict[str, tuple[str, ...]] = {
    "unlearn": ("--model", "--forget", "--output"),
    "importance": ("--model", "--forget", "--output"),
    "evaluate": ("--model", "--forget", "--output"),
    "finetune": ("--model", "--data", "--output"),
    "plan": ("--model", "--forget"),
    "sequence": ("--model", "--forget", "--output"),
    "study": ("--output",),
}
Numbers = dict[str, tuple[str, ...]]
OUT_OF_BOUNDS: dict[str, Numbers] = {
    "unlearn": {"--seed": ("-1", "1.5", "x", "4294967296", "", "1e3", "9" * 30), "--num-processes": ("0", "-1", "x")},
    "importance": {"--seed": ("-1", "x", "4294967296")},
    "sequence": {"--seed": ("-1", "x", "4294967296"), "--mode": ("x",)},
    "finetune": {"--seed": ("-1", "x", "4294967296"), "--epochs": ("0", "-1", "x", "1.5"), "--learning-rate": ("0", "-1", "x", "nan", "inf"), "--method": ("x", "")},
    "audit": {"--seed": ("-1", "x", "4294967296"), "--attack": ("x", "")},
    "plan": {"--devices": ("0", "-1", "x", "1.5"), "--memory": ("0", "-1GB", "x", "nan", "inf", "GB", "", "1e400"), "--tflops": ("0", "-1", "x", "nan", "inf")},
    "export": {"--rank": ("0", "-1", "x", "1.5")},
    "study": {"--jobs": ("0", "-1", "x")},
    "data check": {"--max-length": ("0", "7", "-1", "x", "1.5"), "--template": ("x", "")},
    "evaluate": {"--dtype": ("float31", "int8"), "--template": ("x",), "--protocol": ("x",), "--device": ("gpu", "cuda:x", "cuda:99", "", "mps:9")},
}  # fmt: skip
WRONG_SUITES = (
    "",
    "x",
    "tofu:x",
    "muse",
    "muse:",
    "muse:music",
    "muse:news@none",
    "wmdp:none",
    "wmdp@none",
    "wmdp:",
    "wmdp:bio,none",
    "WMDP",
    "tofu,wmdp",
)


def flags(command: str, *more: str) -> Callable[[Path, World], list[str]]:
    return lambda _place, world: [*USUAL[command](world), *more]


def without(command: str, flag: str) -> Callable[[Path, World], list[str]]:
    """The usual command less one flag and its value."""

    def make(_place: Path, world: World) -> list[str]:
        found = USUAL[command](world)
        place = found.index(flag)
        return found[:place] + found[place + 2 :]

    return make


def plainly(*parts: Any) -> Callable[[Path, World], list[str]]:
    return lambda _place, _world: arguments(*parts)


def ends(*parts: str) -> Callable[[Path, World], list[str]]:
    """A flag at the end, its value missing."""
    return lambda _place, world: [*USUAL[parts[0]](world), parts[1]]


def same_sets(command: str, _place: Path, world: World) -> list[str]:
    """The forget set is to be kept as well."""
    return [*USUAL[command](world), "--retain", str(world.forget)]


def overlapping(place: Path, world: World) -> list[str]:
    """One record of the forget set is in the retain set."""
    (place / "retain.jsonl").write_text(world.retain.read_text() + world.forget.read_text().splitlines()[0] + "\n")
    return [*world.unlearn(), "--retain", "retain.jsonl"]


OTHERS: dict[str, tuple[Callable[[Path, World], list[str]], Right]] = {
    "unknown command": (plainly("unlern"), refused("unlern")),
    "command in capitals": (plainly("UNLEARN"), refused("UNLEARN")),
    "empty command": (plainly(""), refused("No such command|''")),
    "unknown flag before": (plainly("--verbose", "doctor"), refused("--verbose")),
    "data without command": (plainly("data", "chek", "x"), refused("chek")),
    "presets without command": (plainly("presets", "show"), refused("show")),
    "data check of nothing": (plainly("data", "check"), refused("FILE")),
    "report of nothing": (plainly("report"), refused("RUN")),
    "audit of nothing": (plainly("audit"), refused("RUN")),
    "export of nothing": (plainly("export"), refused("RUN")),
    "export of everything": (lambda _place, world: arguments("export", world.run, "--adapter", "--merged", "--output", "out"), either("--merged|--adapter|one")),
    "export without a form": (lambda _place, world: arguments("export", world.run, "--output", "out"), either("--adapter")),
    "export to a public base that is none": (lambda _place, world: arguments("export", world.run, "--public-base", "--output", "out"), refused("adapter|base")),
    "export of a rank beyond the layers": (lambda _place, world: arguments("export", world.run, "--rank", 10**6, "--output", "out"), either("rank")),
    "study without a name": (plainly("study", "--output", "out"), refused("NAME")),
    "unknown study": (plainly("study", "sigmas", "--output", "out"), refused("sigmas")),
    "study that climbs": (plainly("study", "../sigma", "--output", "out"), refused("../sigma")),
    "study with a missing file": (lambda _place, _world: ["study", "sigma", "none.yaml", "--quick", "--output", "out"], refused("none.yaml")),
    "unknown preset to copy": (plainly("presets", "cp", "vlia", "out"), refused("vila")),
    "preset that climbs": (plainly("presets", "cp", "../../vila", "out"), refused("../../vila")),
    "preset to copy, no file": (plainly("presets", "cp", "vila"), refused("FILE")),
    "missing config": (lambda _place, world: ["unlearn", "none.yaml", *world.usual(), "--output", "out"], refused("none.yaml")),
    "config is a folder": (lambda place, world: ["unlearn", str(place), *world.usual(), "--output", "out"], refused(" folder|directory|cannot be read")),
    "config is the data": (lambda _place, world: ["unlearn", str(world.forget), *world.usual(), "--output", "out"], refused("forget.jsonl")),
    "two configs": (lambda _place, world: ["unlearn", "a.yaml", "b.yaml", *world.usual(), "--output", "out"], refused("b.yaml")),
    "config with a long name": (lambda _place, world: ["unlearn", "n" * 300, *world.usual(), "--output", "out"], refused("nnn")),
    "flag for its value": (lambda _place, world: ["unlearn", "--model", "--forget", str(world.forget), "--output", "out"], refused("--|forget")),
    "number of processes alone": (flags("unlearn", "--num-processes", "2"), either("--accelerate-config|processes", codes=(0, 2))),
    "unknown engine": (flags("unlearn", "--accelerate-config", "dpp"), refused("dpp")),
    "missing engine file": (flags("unlearn", "--accelerate-config", "none.yaml"), refused("none.yaml")),
    "adapter of the suite is missing": (flags("evaluate", "--adapter", "none"), refused("none")),
    "retain-only is missing": (flags("evaluate", "--retain-only", "./none"), refused("none")),
    "retain-only is data": (lambda _place, world: [*world.evaluate(), "--retain-only", str(world.forget)], refused("forget.jsonl")),
    "retain-only is a log of nothing": (lambda place, world: ((place / "log.json").write_text("{}"), [*world.evaluate(), "--retain-only", "log.json"])[1], refused("log.json")),
    "audit: holdout is missing": (flags("audit", "--holdout", "none.jsonl"), refused("none.jsonl")),
    "audit: control is missing": (flags("audit", "--retain-only", "./none"), refused("none")),
    "audit: base without control": (flags("audit", "--retain-only-base", "./none"), either("retain_only_base|retain-only-base|none")),
    "audit: holdout is the forget set": (lambda _place, world: [*world.audit(world.run), "--output", "out", "--attack", "membership", "--holdout", str(world.forget)], either("forget.jsonl|holdout")),
    "audit of a folder that is no run": (lambda _place, world: ["audit", str(world.model), "--output", "out"], refused("target")),
    "forget and retain are one": (partial(same_sets, "unlearn"), either("forget.jsonl|retain")),
    "forget and retain are one (plan)": (partial(same_sets, "plan"), either("forget.jsonl|retain")),
    "forget and retain share a record": (overlapping, works()),
    "sequence: one request twice": (lambda _place, world: arguments("sequence", *world.usual(), "--forget", world.forget, "--output", "out"), refused("forget.jsonl")),
    "sequence: request and retain are one": (partial(same_sets, "sequence"), refused("forget.jsonl|retain")),
    "finetune: everything is left out": (lambda _place, world: [*world.finetune(), "--exclude", str(world.forget)], refused("forget.jsonl|exclude|no example")),
    "finetune: nothing is left out": (lambda _place, world: [*world.finetune(), "--exclude", str(world.retain)], refused("retain.jsonl|exclude|none")),
    "importance: no importance to measure": (flags("importance", "--preset", "plain"), refused("plain|initialisation")),
    "quantisation without a GPU": (flags("unlearn", "--set", "model.quantisation=4bit"), either("quantisation")),
    "help": (plainly("--help"), works()),
    "version": (plainly("--version"), works()),
    "presets": (plainly("presets", "ls"), works()),
}  # fmt: skip

CASES = [
    *(Case(f"{command}: unknown flag", flags(command, "--nonsense"), refused("--nonsense")) for command in USUAL),
    *(
        Case(f"{command}: misspelt flag with a value", flags(command, "--outptu=x"), refused("--outptu"))
        for command in USUAL
    ),
    *(
        Case(f"{command}: one argument too many", flags(command, "one", "two"), refused("one|two"))
        for command in USUAL
        if command != "data check"
    ),
    *(
        Case(f"{command}: no {flag}", without(command, flag), refused(flag, "issing"))
        for command, found in REQUIRED.items()
        for flag in found
    ),
    *(
        Case(f"{command}: {flag} without value", ends(command, flag), refused(flag))
        for command, found in REQUIRED.items()
        for flag in found
    ),
    *(
        Case(
            f"{command}: {flag} {value!r}",
            flags(command, flag, value),
            refused(f"{flag}|{flag[2:].replace('-', '_')}|{value or flag}"),
        )
        for command, numbers in OUT_OF_BOUNDS.items()
        for flag, values in numbers.items()
        for value in values
    ),
    *(
        Case(
            f"evaluate: suite {suite!r}",
            flags("evaluate", "--suite", suite),
            refused(suite.partition("@")[0].partition(":")[0] or "suite"),
        )
        for suite in WRONG_SUITES
    ),
    *(Case(name, make, right) for name, (make, right) in OTHERS.items()),
]
