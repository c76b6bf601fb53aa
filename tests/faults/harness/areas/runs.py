"""Finished run folders with one file damaged, met by every command that reads them.

A command may refuse the folder, naming the file, or work; where it works, the adapter and the numbers must be those of
the undamaged run. An exchanged adapter, importance map or score file must never be taken for the run's own.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.faults.harness.case import Case, Right, arguments, either, refused, works
from tests.faults.harness.damage import ANY_FILE, JSON_FILE, WRONG_JSON, change, content, copied, drop, flip
from tests.faults.harness.world import World

Spoil = Callable[[Path], None]
LEAVES = ("work/run/record.json", "work/run/report.html", "work/run/.lock", "work/run/audit*")


def spoilt(spoil: Spoil, command: str, place: Path, world: World) -> list[str]:
    """Copy the run, spoil the copy, and give it to a command."""
    run = copied(world.run, place / "run")
    spoil(run)
    return {
        "unlearn": world.unlearn("run"),
        "report": ["report", "run"],
        "audit": world.audit("run"),
        "export --rank": ["export", "run", "--rank", "2", "--output", "out"],
        "export --adapter": ["export", "run", "--adapter", "--output", "out"],
        "export --merged": ["export", "run", "--merged", "--output", "out"],
    }[command]


def as_whole(command: str, place: Path, world: World, _printed: str) -> str | None:
    """The adapter and the numbers are the undamaged run's."""
    if command == "unlearn":
        return same_run(place / "run", world.run)
    if command == "audit":
        return same_json(
            place / "run" / "audit" / "audit.json", world.run / "audit" / "audit.json", without=("seconds",)
        )
    if command in ("export --adapter", "export --rank"):
        return same_update(place / "out", world.run / "adapter", exact=command == "export --adapter")
    return None


def same_run(found: Path, right: Path) -> str | None:
    for name in ("adapter/adapter_model.safetensors", "importance.safetensors"):
        if (found / name).read_bytes() != (right / name).read_bytes():
            return f"{name} is another one"
    return same_json(found / "evaluation.json", right / "evaluation.json")


def same_json(found: Path, right: Path, without: tuple[str, ...] = ()) -> str | None:
    values = [strip(json.loads(file.read_text()), without) for file in (found, right)]
    return None if values[0] == values[1] else f"{found.name} says something else"


def strip(value: Any, keys: tuple[str, ...]) -> Any:
    """Without what differs from start to start: keys that hold one of the texts."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not any(text in key for text in (*keys, "peak_memory"))}
        return {key: strip(item, keys) for key, item in kept.items() if key != "run"}
    return [strip(item, keys) for item in value] if isinstance(value, list) else value


def update(folder: Path) -> dict[str, Any]:
    """What an adapter adds to each weight; nothing where its config is none."""
    config = json.loads((folder / "adapter_config.json").read_text())
    if not isinstance(config, dict):
        return {}
    tensors = load_file(folder / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    names = [name for name in tensors if "lora_A" in name]
    return {name: scale * tensors[name.replace("lora_A", "lora_B")].double() @ tensors[name].double() for name in names}


def same_update(found: Path, right: Path, *, exact: bool) -> str | None:
    ours, theirs = update(found), update(right)
    if ours.keys() != theirs.keys():
        return "the exported adapter is on other modules"
    for name, wanted in theirs.items():
        if not exact:
            left, values, right_vectors = torch.linalg.svd(wanted, full_matrices=False)
            wanted = left[:, :2] * values[:2] @ right_vectors[:2]
        if (ours[name] - wanted).norm() > 1e-3 * max(float(wanted.norm()), 1e-9):
            return f"the exported update of {name} is another one"
    return None


def case(name: str, spoil: Spoil, right: Right, command: str) -> Case:
    if 0 in right.codes:
        right = Right(right.codes, right.says, partial(as_whole, command))
    return Case(f"{name} ({command})", partial(spoilt, spoil, command), right, leaves=LEAVES)


def file(name: str, damage: Spoil) -> Spoil:
    return lambda run: damage(run / name)


COMMANDS = ("unlearn", "report", "audit", "export --rank", "export --adapter", "export --merged")
JSON_FILES = {
    "record.json": COMMANDS,
    "evaluation.json": ("unlearn", "report"),
    "adapter/adapter_config.json": ("unlearn", "audit", "export --rank", "export --adapter", "export --merged"),
    "audit/audit.json": ("report", "audit"),
    "audit/record.json": ("audit",),
}
OTHER_FILES = {
    "config.yaml": COMMANDS,
    "adapter/adapter_model.safetensors": ("unlearn", "audit", "export --rank", "export --adapter", "export --merged"),
    "importance.safetensors": ("unlearn",),
    "scores/target.jsonl": ("unlearn", "report"),
    "scores/unlearned.jsonl": ("unlearn", "report"),
    "train_log.jsonl": ("unlearn", "report"),
    "audit/config.yaml": ("audit",),
    "audit/records/sampling.jsonl": ("audit",),
}
RECORD_KEYS = (
    "finished", "versions", "stages", "checks", "model", "data", "evaluation_data", "template", "objective", "seed",
    "importance", "initialisation", "adapter_sha256",
)  # fmt: skip
STRANGE = {
    "null": "null",
    "a number": "5",
    "text": '"x"',
    "a list": "[1]",
    "brackets": "[" * 5000,
    "NaN": "NaN",
    "half a pair": '"\\ud800"',
    "digits": "9" * 6000,
}


def line(name: str, text: str, number: int) -> Spoil:
    """Put a text in place of a line."""

    def spoil(run: Path) -> None:
        lines = (run / name).read_text().splitlines()
        lines[number] = text
        (run / name).write_text("\n".join(lines) + "\n")

    return spoil


def in_json(name: str, *path: str, value: Any) -> Spoil:
    """Set a value deep in a JSON file."""

    def spoil(run: Path) -> None:
        found = json.loads((run / name).read_text())
        at = found
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        (run / name).write_text(json.dumps(found))

    return spoil


def other_adapter(run: Path) -> None:
    """An adapter of the same shape, with other numbers."""
    path = run / "adapter" / "adapter_model.safetensors"
    loaded = load_file(path)
    save_file({name: (tensor * 0.5).contiguous() for name, tensor in loaded.items()}, path)


def other_alpha(run: Path) -> None:
    path = run / "adapter" / "adapter_config.json"
    found = json.loads(path.read_text())
    change(path, lora_alpha=found["lora_alpha"] * 10)


def raised_score(run: Path) -> None:
    """Somebody improves a number by hand."""
    path = run / "scores" / "unlearned.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[1])
    path.write_text(
        "\n".join([lines[0], json.dumps(record | {key: "x" for key in record if key == "generated"}), *lines[2:]])
        + "\n"
    )


def stray_checkpoint(name: str) -> Spoil:
    def spoil(run: Path) -> None:
        (run / "checkpoints" / name).mkdir(parents=True)
        (run / "checkpoints" / name / "trainer_state.json").write_text("{}")
        shutil.rmtree(run / "adapter")
        change(run / "record.json", finished=False)

    return spoil


def remote_code(run: Path) -> None:
    """A run that somebody else made on a model with code; the code leaves a file beside the run."""
    model = run.parent / "model"
    text = (run / "config.yaml").read_text()
    target = next(one.split(": ", 1)[1].strip() for one in text.splitlines() if one.strip().startswith("name:"))
    shutil.copytree(target, model)
    change(model / "config.json", model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    (model / "own.py").write_text(
        "open('RAN', 'w')\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
        "class C(LlamaConfig):\n    model_type = 'own'\nclass M(LlamaForCausalLM):\n    config_class = C\n"
    )
    (run / "config.yaml").write_text(
        text.replace(target, str(model)).replace("trust_remote_code: false", "trust_remote_code: true")
    )


WHOLE: dict[str, Spoil] = {
    "untouched": lambda _run: None,
    "model card gone": file("adapter/README.md", lambda path: path.unlink()),
    "report gone": file("report.html", lambda path: path.unlink()),
    "stray files": lambda run: (run / "notes.txt").write_text("mine") and None,
    "left by a kill": lambda run: (
        [(run / name).write_bytes(b"x") for name in (".record.json.abc", ".evaluation.json.xyz")] and None
    ),
}
EXCHANGED: dict[str, tuple[Spoil, str, tuple[str, ...]]] = {
    "adapter of other numbers": (other_adapter, "adapter", ("unlearn", "audit", "export --rank", "export --adapter", "export --merged")),
    "one bit of the adapter": (file("adapter/adapter_model.safetensors", flip), "adapter", ("unlearn", "audit", "export --rank", "export --adapter", "export --merged")),
    "alpha of the adapter": (other_alpha, "adapter", ("unlearn", "audit", "export --rank", "export --adapter", "export --merged")),
    "adapter folder gone": (lambda run: shutil.rmtree(run / "adapter"), "adapter", ("audit", "export --rank", "export --adapter", "export --merged")),
    "adapter config is an empty object": (file("adapter/adapter_config.json", content("{}")), "adapter", ("audit", "export --merged")),
    "code of the model": (remote_code, "code", ("audit", "export --merged", "export --rank")),
}  # fmt: skip
EVALUATION: dict[str, Spoil] = {
    "metric is text": in_json("evaluation.json", "models", "target", "metrics", "forget_probability", value="x"),
    "metric is null": in_json("evaluation.json", "models", "target", "metrics", "forget_probability", value=None),
    "value is text": in_json(
        "evaluation.json", "models", "target", "metrics", "forget_probability", "value", value="x"
    ),
    "value is a list": in_json(
        "evaluation.json", "models", "target", "metrics", "forget_probability", "value", value=[1]
    ),
    "metrics are a list": in_json("evaluation.json", "models", "target", "metrics", value=[1]),
    "model is null": in_json("evaluation.json", "models", "target", value=None),
    "models are a list": in_json("evaluation.json", "models", value=[1]),
    "no model": in_json("evaluation.json", "models", value={}),
    "protocol is a number": in_json("evaluation.json", "protocol", value=5),
    "suite is a number": in_json("evaluation.json", "suite", value=5),
    "suite is unknown": in_json("evaluation.json", "suite", value="x"),
    "script in the suite": in_json("evaluation.json", "suite", value="<script>alert(1)</script>"),
    "count is text": in_json(
        "evaluation.json", "models", "target", "metrics", "forget_probability", "example_count", value="x"
    ),
}
RECORD: dict[str, Spoil] = {
    "stage is a number": in_json("record.json", "stages", "training", value=5),
    "stage is null": in_json("record.json", "stages", "training", value=None),
    "seconds are text": in_json("record.json", "stages", "training", "seconds", value="x"),
    "memory is text": in_json("record.json", "stages", "training", "peak_memory_bytes", value="x"),
    "versions are empty": in_json("record.json", "versions", value={}),
    "version is a number": in_json("record.json", "versions", "torch", value=5),
    "fingerprint is a number": in_json("record.json", "model", "fingerprint", value=5),
    "model name is a number": in_json("record.json", "model", "name", value=5),
    "hash is a number": in_json("record.json", "data", "forget_sha256", value=5),
    "another fingerprint": in_json("record.json", "model", "fingerprint", value="0" * 64),
    "a check is text": in_json("record.json", "checks", "output_at_step_0", value="x"),
    "a check's number is text": in_json("record.json", "checks", "output_at_step_0", "largest_difference", value="x"),
    "seed is NaN": lambda run: (
        (run / "record.json").write_text((run / "record.json").read_text().replace('"seed": 0', '"seed": NaN')) and None
    ),
    "not finished": in_json("record.json", "finished", value=False),
}
RECORD_SAYS = "record.json|run"

CASES = [
    *(case(name, spoil, works(), command) for name, spoil in WHOLE.items() for command in COMMANDS),
    *(
        case(f"{name}: {kind}", file(name, damage), either(Path(name).name, "run"), command)
        for name, users in JSON_FILES.items()
        for command in users
        for kind, damage in JSON_FILE.items()
    ),
    *(
        case(
            f"{name}: {kind}",
            file(name, damage),
            either(f"{Path(name).name}|{Path(name).parent.name or 'run'}"),
            command,
        )
        for name, users in OTHER_FILES.items()
        for command in users
        for kind, damage in ANY_FILE.items()
    ),
    *(
        case(f"exchanged: {name}", spoil, refused(says), command)
        for name, (spoil, says, users) in EXCHANGED.items()
        for command in users
    ),
    *(
        case(f"record.json: {key} is {kind}", in_json("record.json", key, value=value), either(RECORD_SAYS), command)
        for number, key in enumerate(RECORD_KEYS)
        for kind, value in WRONG_JSON.items()
        for command in (("unlearn", "report", "audit")[(number + len(kind)) % 3],)
    ),
    *(
        case(
            f"record.json: no {key}",
            file("record.json", lambda path, key=key: drop(path, key)),
            either(RECORD_SAYS),
            command,
        )
        for key in RECORD_KEYS
        for command in ("unlearn", "report")
    ),
    *(
        case(f"record.json: {name}", spoil, either(RECORD_SAYS), command)
        for name, spoil in RECORD.items()
        for command in ("unlearn", "report")
    ),
    *(
        case(f"evaluation.json: {name}", spoil, either("evaluation.json"), command)
        for name, spoil in EVALUATION.items()
        for command in ("unlearn", "report")
    ),
    *(
        case(f"{name}: line {number} is {kind}", line(name, text, number), either(Path(name).name), command)
        for name, command in (
            ("train_log.jsonl", "report"),
            ("scores/unlearned.jsonl", "unlearn"),
            ("scores/target.jsonl", "report"),
        )
        for number in (0, 1)
        for kind, text in STRANGE.items()
    ),
    case("scores/unlearned.jsonl: an answer is changed", raised_score, either("unlearned.jsonl"), "unlearn"),
    *(
        case(f"checkpoint called {name}", stray_checkpoint(name), either("checkpoint"), "unlearn")
        for name in ("checkpoint-abc", "checkpoint-", "checkpoint-99", "checkpoint--1", "x")
    ),
    *(
        Case(
            f"no run: {name} ({command})",
            partial(lambda command, name, _place, world: other_folder(command, name, world), command, name),
            refused(says),
        )
        for name, says in {
            "none": "none",
            "data": "forget.jsonl",
            "model": "target",
            "study": "study",
            "n" * 300: "nnn",
            "/dev/null": "/dev/null",
        }.items()
        for command in COMMANDS
        if command != "unlearn"
    ),
]


def other_folder(command: str, name: str, world: World) -> list[str]:
    """Give a command something that is no run."""
    given = {"data": world.forget, "model": world.model, "study": world.study}.get(name, name)
    verb, *options = command.split()
    return arguments(
        verb,
        given,
        *options,
        *(["2"] if "--rank" in options else []),
        *(["--output", "out"] if verb in ("export", "audit") else []),
    )
