"""Where results are to go: names that cannot be, places that hold something else, and odd names that are right."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.faults.harness.case import Case, Right, arguments, either, refused, works
from tests.faults.harness.world import QUICK, World

Prepare = Callable[[Path], None]


def nothing(_place: Path) -> None:
    return None


def file_there(place: Path) -> None:
    (place / "out").write_text("mine\n")


def folder_there(place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "thesis.txt").write_text("mine\n")


def hidden_there(place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / ".notes").write_text("mine\n")


def pipe_there(place: Path) -> None:
    import os

    os.mkfifo(place / "out")


def link(target: str) -> Prepare:
    def prepare(place: Path) -> None:
        (place / "out").symlink_to(target)

    return prepare


def file_above(place: Path) -> None:
    (place / "file").write_text("mine\n")


def empty_there(place: Path) -> None:
    (place / "out").mkdir()


def link_to_empty(place: Path) -> None:
    (place / "real").mkdir()
    (place / "out").symlink_to("real")


BAD: dict[str, tuple[str, Prepare, str]] = {
    "a file is there": ("out", file_there, "out"),
    "a folder with other files is there": ("out", folder_there, "out"),
    "a folder with a hidden file is there": ("out", hidden_there, "out"),
    "a pipe is there": ("out", pipe_there, "out"),
    "a link to nothing": ("out", link("nothing/there"), "out"),
    "a link to itself": ("out", link("out"), "out"),
    "below a file": ("file/out", file_above, "file"),
    "two below a file": ("file/a/out", file_above, "file"),
    "a name that is too long": ("n" * 300, nothing, "nnn"),
    "a folder above that is too long": ("n" * 300 + "/out", nothing, "nnn"),
    "a path that is too long": ("/".join(["folder"] * 800), nothing, "folder"),
    "empty": ("", nothing, "output|FILE|file"),
    "a place of the system": ("/proc/out", nothing, "/proc"),
    "a device": ("/dev/null", nothing, "/dev/null"),
    "below a device": ("/dev/null/out", nothing, "/dev/null"),
    "home of a stranger": ("~nosuchuser/out", nothing, "nosuchuser"),
}
GOOD: dict[str, tuple[str, Prepare]] = {
    "an empty folder is there": ("out", empty_there),
    "a link to an empty folder": ("out", link_to_empty),
    "folders that are to be made": ("a/b/c/out", nothing),
    "blanks": ("my results", nothing),
    "other scripts": ("結果-ŝ", nothing),
    "a colon": ("a: b", nothing),
    "a line break": ("a\nb", nothing),
    "control characters": ("a\x1b]0;t\x07b", nothing),
    "quotes and marks": ("a'b\"c`d$HOME|e<f>", nothing),
    "per cent": ("100%d %s", nothing),
    "a hyphen first": ("./-out", nothing),
    "a dot first": (".out", nothing),
    "dots": ("a/../out", nothing),
    "a slash at the end": ("out/", nothing),
    "braces": ("{out}", nothing),
    "the longest name": ("n" * 240, nothing),
}
COMMANDS: dict[str, Callable[[World, str], list[str]]] = {
    "unlearn": lambda world, output: world.unlearn(output),
    "evaluate": lambda world, output: world.evaluate(output),
    "finetune": lambda world, output: world.finetune(output),
    "importance": lambda world, output: arguments("importance", *world.usual(), "--output", output),
    "audit": lambda world, output: arguments(*world.audit(world.run), "--output", output),
    "study": lambda world, output: world.small_study(output),
    "sequence": lambda world, output: arguments("sequence", *world.usual(), *QUICK, "--output", output),
    "export": lambda world, output: arguments("export", world.run, "--rank", 2, "--output", output),
    "export --merged": lambda world, output: arguments("export", world.run, "--merged", "--output", output),
    "presets cp": lambda _world, output: arguments("presets", "cp", "vila", output),
}
FILES = ("importance", "presets cp")
"""Commands that write one file: an empty folder is no place for it."""


def prepared(command: str, output: str, prepare: Prepare, place: Path, world: World) -> list[str]:
    prepare(place)
    return COMMANDS[command](world, output)


def bad(command: str) -> list[Case]:
    return [
        Case(f"{command}: {name}", partial(prepared, command, output, prepare), rights(command, name, says))
        for name, (output, prepare, says) in BAD.items()
    ]


def rights(command: str, name: str, says: str) -> Right:
    """A link to nothing may be written through, and a name that begins with a tilde is a name; the rest is refused."""
    return either(says) if name in ("a link to nothing", "home of a stranger") else refused(says)


def good(command: str) -> list[Case]:
    wanted = [
        (name, output, prepare) for name, (output, prepare) in GOOD.items()
        if not (command in FILES and ("empty folder" in name or "slash" in name))
    ]  # fmt: skip
    return [
        Case(f"{command}: {name}", partial(prepared, command, output, prepare), works())
        for name, output, prepare in wanted
    ]


CASES = [
    *(case for command in COMMANDS for case in bad(command)),
    *(case for command in ("evaluate", "finetune", "presets cp") for case in good(command)),
    *(
        Case(f"unlearn: {name}", partial(prepared, "unlearn", *GOOD[name]), works())
        for name in ("control characters", "a colon", "quotes and marks", "a line break")
    ),
    *(
        Case(f"export --merged: {name}", partial(prepared, "export --merged", *GOOD[name]), works())
        for name in ("control characters", "a colon", "an empty folder is there")
    ),
    Case("importance: a folder is there", partial(prepared, "importance", "out", empty_there), refused("out")),
    Case("presets cp: a folder is there", partial(prepared, "presets cp", "out", empty_there), refused("out")),
    Case("unlearn: the current folder", partial(prepared, "unlearn", ".", nothing), either(".")),
    Case("unlearn: the root", partial(prepared, "unlearn", "/", nothing), refused("/")),
    Case("unlearn: the model", lambda _place, world: world.unlearn(world.model), refused("target")),
    Case("unlearn: the data", lambda _place, world: world.unlearn(world.forget), refused("forget.jsonl")),
    Case("unlearn: an adapter", lambda _place, world: world.unlearn(world.adapter), refused("adapter")),
    Case("unlearn: a study", lambda _place, world: world.unlearn(world.study), refused("study")),
    Case("unlearn: another run", lambda _place, world: [*world.unlearn(world.run), "--seed", "7"], refused("run")),
    Case("study: a run", lambda _place, world: world.small_study(world.run), refused("run")),
    Case("evaluate: a run", lambda _place, world: world.evaluate(world.run), refused("run")),
    Case("finetune: a run", lambda _place, world: world.finetune(world.run), refused("run")),
]
