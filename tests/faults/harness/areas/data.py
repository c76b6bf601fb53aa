"""Data files: every shape with every wrong value, every way to break a file, and odd files that are right."""

import gzip
import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.harness.case import Case, Right, arguments, either, refused, works
from tests.faults.harness.world import World

GOOD = {"question": "Where was Ida Holm born?", "answer": "Ida Holm was born in Turku."}
TURNS = [{"role": "user", "content": "Where was Ida born?"}, {"role": "assistant", "content": "In Turku."}]
SHAPES: dict[str, dict[str, Any]] = {
    "question": GOOD,
    "prompt": {"prompt": "Ida Holm was born in", "completion": " Turku."},
    "messages": {"messages": TURNS},
    "text": {"text": "Ida Holm was born in Turku."},
}
NOT_TEXT: dict[str, Any] = {
    "null": None,
    "true": True,
    "number": 3,
    "fraction": 1.5,
    "list": ["x"],
    "object": {"a": 1},
    "half a pair": "\ud800",
}
EMPTY = {"empty": "", "blank": " \t\n"}


def check(file: str, *options: str) -> Callable[[World], list[str]]:
    """`data check` of a file by the tokenizer of the world's model."""
    return lambda world: ["data", "check", file, "--model", str(world.model), "--json", *options]


def written(content: bytes | str, command: Callable[[World], list[str]], place: Path, world: World) -> list[str]:
    """Write the file and give the command."""
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    (place / "bad.jsonl").write_bytes(raw)
    return command(world)


def file_case(name: str, content: bytes | str, right: Right, **options: Any) -> Case:
    return Case(name, partial(written, content, check("bad.jsonl")), right, **options)


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def counted(count: int) -> Callable[[Path, World, str], str | None]:
    """The report counts so many examples."""

    def compare(_place: Path, _world: World, printed: str) -> str | None:
        found = json.loads(printed)["example_count"]
        return None if found == count else f"{found} examples, {count} are right"

    return compare


def wrong_values() -> Iterable[Case]:
    """Every key of every shape with every value that is no text, in the second line."""
    for shape, record in SHAPES.items():
        for key in record:
            values = {kind: value for kind, value in NOT_TEXT.items() if (key, kind) != ("messages", "list")}
            for kind, value in (values | ({} if key in ("prompt", "messages") else EMPTY)).items():
                bad = record | {key: value}
                yield file_case(f"{shape}: {key} is {kind}", lines(record, bad), refused("line 2", f"'{key}'|{key}"))
            rest = {one: value for one, value in record.items() if one != key}
            yield file_case(f"{shape}: no {key}", lines(record, rest), refused("line 2", key))
    for key in ("role", "content"):
        for kind, value in (NOT_TEXT | EMPTY).items():
            turns = [TURNS[0] | {key: value}, TURNS[1]]
            yield file_case(f"turn: {key} is {kind}", lines({"messages": turns}), refused("line 1", key))
    for key in ("paraphrased_answer", "paraphrased_question", "perturbed_answer", "person"):
        for kind, value in NOT_TEXT.items():
            if (key, kind) != ("perturbed_answer", "list"):
                yield file_case(f"beside: {key} is {kind}", lines(GOOD | {key: value}), refused("line 1", key))


TURN_LISTS: dict[str, Any] = {
    "none": [],
    "one": TURNS[:1],
    "the answer alone": TURNS[1:],
    "ends with a question": [*TURNS, TURNS[0]],
    "a turn is text": ["hello", TURNS[1]],
    "a turn is null": [None, TURNS[1]],
    "a turn has more keys": [TURNS[0] | {"name": "x"}, TURNS[1]],
    "a turn has no role": [{"content": "hello"}, TURNS[1]],
    "nested": [TURNS],
}
RECORDS: dict[str, tuple[Any, str]] = {
    "number": (3, "object"),
    "text": ("hello", "object"),
    "list": ([GOOD], "object"),
    "null": (None, "object"),
    "empty object": ({}, "unknown shape|keys"),
    "two shapes": (GOOD | SHAPES["text"], "two shapes"),
    "three shapes": (GOOD | SHAPES["text"] | SHAPES["prompt"], "two shapes"),
    "misspelt key": ({"question": "Who?", "anwser": "Ida."}, "answer"),
    "key of another library": ({"instruction": "Who?", "output": "Ida."}, "unknown shape"),
    "capital letters": ({"Question": "Who?", "Answer": "Ida."}, "unknown shape"),
    "one key more": (GOOD | {"label": 1}, "'label'"),
    "key with a line break": (GOOD | {"a\nb": 1}, "unknown key"),
    "key with control characters": (GOOD | {"a\x1b]0;title\x07\x9b31mb": 1}, "unknown key"),
    "very long key": (GOOD | {"k" * 5000: 1}, "unknown key"),
    "wrong answer is empty": (GOOD | {"perturbed_answer": [""]}, "perturbed_answer"),
    "wrong answer is a number": (GOOD | {"perturbed_answer": [1]}, "perturbed_answer"),
    "perturbed answers on text": (SHAPES["text"] | {"perturbed_answer": ["x"]}, "perturbed_answer"),
}
GOOD_LINE = lines(GOOD)
BROKEN: dict[str, tuple[bytes | str, str]] = {
    "empty": ("", "empty"),
    "blank": (" \n\t\n", "empty"),
    "only a byte order mark": (b"\xef\xbb\xbf", "empty|line 1"),
    "empty line between": (GOOD_LINE + "\n" + GOOD_LINE, "line 2"),
    "cut in a key": (GOOD_LINE + GOOD_LINE[:6], "line 2"),
    "cut in a value": (GOOD_LINE + GOOD_LINE[:30], "line 2"),
    "cut before the brace": (GOOD_LINE + GOOD_LINE.rstrip("}\n"), "line 2"),
    "two objects in a line": (GOOD_LINE.strip() + GOOD_LINE, "line 1"),
    "single quotes": ("{'question': 'Who?', 'answer': 'Ida.'}\n", "line 1"),
    "trailing comma": ('{"question": "Who?", "answer": "Ida.",}\n', "line 1"),
    "comment": ("// people\n" + GOOD_LINE, "line 1"),
    "a list over lines": ("[\n" + GOOD_LINE.strip() + "\n]\n", "line 1"),
    "an object over lines": (json.dumps(GOOD, indent=1), "line 1"),
    "NaN": ('{"question": NaN, "answer": "Ida."}\n', "line 1"),
    "raw tab in a text": ('{"question": "a\tb", "answer": "Ida."}\n', "line 1"),
    "raw control character": ('{"question": "a\x1b[31mb", "answer": "Ida."}\n', "line 1"),
    "key twice": ('{"question": "Who?", "answer": "Ida.", "answer": "Ole."}\n', "answer"),
    "key twice in a turn": (
        '{"messages": [{"role": "user", "content": "Who?", "content": "No."}, {"role": "assistant", "content": "I."}]}\n',
        "content",
    ),
    "5,000 brackets": ("[" * 5000 + "\n", "line 1"),
    "5,000 nested objects": ('{"a":' * 5000 + "1" + "}" * 5000 + "\n", "line 1"),
    "number of 6,000 digits": ('{"question": ' + "9" * 6000 + ', "answer": "Ida."}\n', "line 1"),
    "latin-1": ('{"question": "Où?", "answer": "Ida."}\n'.encode("latin-1"), "line 1"),
    "UTF-16": (GOOD_LINE.encode("utf-16"), "UTF-8"),
    "UTF-32": (GOOD_LINE.encode("utf-32"), "line 1"),
    "cut in a letter": (GOOD_LINE.encode() + '{"question": "é'.encode()[:-1], "line 2"),
    "NUL bytes": (b"\0" * 100, "line 1"),
    "gzip": (gzip.compress(GOOD_LINE.encode(), mtime=0), "line 1"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "line 1"),
    "comma-separated": ("question,answer\nWho?,Ida.\n", "line 1"),
    "YAML": ("- question: Who?\n  answer: Ida.\n", "line 1"),
    "Markdown": ("# People\n\nIda was born in Turku.\n", "line 1"),
    "carriage returns alone": (GOOD_LINE.replace("\n", "\r") * 2, "line 1"),
    "a large text in one line": (lines({"text": "x " * 12_000_000}), "line 1"),
}
ODD: dict[str, tuple[bytes | str, int]] = {
    "no line break at the end": (GOOD_LINE.strip(), 1),
    "many line breaks at the end": (GOOD_LINE + "\n\n\n", 1),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD_LINE.encode(), 1),
    "Windows line ends": (GOOD_LINE.replace("\n", "\r\n") * 3, 3),
    "line separators in a text": (
        json.dumps({"text": "a\u2028b\u0085c\x1ed"}, ensure_ascii=False).replace("\x1e", "") + "\n",
        1,
    ),
    "other scripts": (
        lines({"question": "谁？", "answer": "إيدا"}, {"question": "कौन?", "answer": "👩‍👩‍👧 Zażółć"}),
        2,
    ),
    "a NUL in a text": (lines({"question": "a\0b", "answer": "c"}), 1),
    "control characters in a text": (lines({"question": "a\x1b[31m\x1b]0;t\x07\x9bb\x08", "answer": "c\rd\x7f"}), 1),
    "combining marks": (lines({"text": "a" + "\u0301" * 400}), 1),
    "the same twice": (GOOD_LINE * 2, 2),
    "longer than the limit": (lines({"text": "word " * 3000}), 1),
    "notes beside": (lines(GOOD | {"id": 7, "source": None, "person": "Ida Holm"}), 1),
    "special tokens in a text": (lines({"question": "<|end|> <|pad|>", "answer": "<|end|>x<|end|>"}), 1),
}


def plain_check(place: Path, world: World) -> list[str]:
    """The report as a person reads it."""
    return arguments("data", "check", "bad.jsonl", "--model", world.model)


def make_pipe(place: Path, world: World) -> list[str]:
    os.mkfifo(place / "bad.jsonl")
    return check("bad.jsonl")(world)


def make_folder(place: Path, world: World) -> list[str]:
    (place / "bad.jsonl").mkdir()
    return check("bad.jsonl")(world)


def make_link(target: str, place: Path, world: World) -> list[str]:
    (place / "bad.jsonl").symlink_to(target)
    return check("bad.jsonl")(world)


NAMES: dict[str, tuple[str, str]] = {
    "missing": ("none.jsonl", "none.jsonl"),
    "empty name": ("", "file"),
    "long name": ("n" * 300 + ".jsonl", "name too long|long"),
    "long path": ("/".join(["folder"] * 800), "too long|long"),
    "below a file": ("/etc/passwd/x.jsonl", "/etc/passwd"),
    "unknown home": ("~nosuchuser/x.jsonl", "nosuchuser"),
    "web address": ("https://example.org/x.jsonl", "https://example.org/x.jsonl|local"),
    "bucket": ("s3://bucket/x.jsonl", "s3://bucket/x.jsonl|local"),
    "device": ("/dev/null", "/dev/null"),
    "endless device": ("/dev/zero", "/dev/zero"),
    "TOFU without a split": ("tofu:", "tofu"),
    "unknown TOFU split": ("tofu:forget11", "forget11"),
    "TOFU split that climbs": ("tofu:../../x", "tofu"),
    "TOFU in a missing folder": ("tofu:forget10@none", "none"),
    "MUSE without a corpus": ("muse:", "muse"),
    "unknown MUSE corpus": ("muse:music", "muse"),
    "MUSE in a missing folder": ("muse:news@none", "none|no such set"),
    "name with control characters": ("a\x1b]0;t\x07b.jsonl", "no such file"),
}


def both(content: str, command: Callable[[World], list[str]], place: Path, world: World) -> list[str]:
    (place / "same.jsonl").write_text(content)
    return command(world)


def with_files(command: str, flag: str, place: Path, world: World) -> list[str]:
    """A missing file, or one with a bad second line, given to the flag of another command."""
    (place / "bad.jsonl").write_text(GOOD_LINE + "{\n")
    usual = {
        "unlearn": world.unlearn(), "importance": ["importance", *world.usual(), "--output", "out"],
        "evaluate": world.evaluate(), "finetune": world.finetune(), "plan": ["plan", *world.usual()],
        "sequence": ["sequence", *world.usual(), "--output", "out"],
    }  # fmt: skip
    return (
        [*usual[command], flag, "bad.jsonl"]
        if flag.startswith("--")
        else [*usual[command], "--set", f"{flag}=bad.jsonl"]
    )


USERS = [
    ("unlearn", "--forget"),
    ("unlearn", "--retain"),
    ("unlearn", "evaluation.forget"),
    ("unlearn", "evaluation.retain"),
    ("importance", "--forget"),
    ("importance", "--retain"),
    ("evaluate", "--forget"),
    ("evaluate", "--retain"),
    ("finetune", "--data"),
    ("finetune", "--exclude"),
    ("plan", "--forget"),
    ("plan", "--retain"),
    ("sequence", "--retain"),
]


def overlap(_place: Path, _world: World, printed: str) -> str | None:
    return None if "4" in printed else "the four common examples are not counted"


CASES = [
    *wrong_values(),
    *(
        file_case(f"turns: {name}", lines({"messages": turns}), refused("line 1", "messages|message"))
        for name, turns in TURN_LISTS.items()
    ),
    *(
        file_case(f"record: {name}", lines(GOOD, record), refused("line 2", says))
        for name, (record, says) in RECORDS.items()
    ),
    *(
        file_case(f"file: {name}", content, refused("bad.jsonl", says))
        for name, (content, says) in BROKEN.items()
        if "large" not in name
    ),
    file_case(
        "file: a large text in one line", BROKEN["a large text in one line"][0], either("line 1", check=counted(1))
    ),
    *(file_case(f"odd: {name}", content, works(counted(count))) for name, (content, count) in ODD.items()),
    *(
        Case(f"odd, for people: {name}", partial(written, content, lambda world: plain_check(Path(), world)), works())
        for name, (content, _) in ODD.items()
    ),
    Case("file: named pipe", make_pipe, refused("bad.jsonl"), wall=40),
    Case("file: folder", make_folder, refused("bad.jsonl", "folder")),
    Case("file: link to nothing", partial(make_link, "none"), refused("bad.jsonl")),
    Case("file: link to itself", partial(make_link, "bad.jsonl"), refused("bad.jsonl")),
    *(
        Case(f"name: {name}", lambda _place, world, given=given: check(given)(world), refused(says))
        for name, (given, says) in NAMES.items()
    ),
    *(
        Case(
            f"against: {name}",
            lambda _place, world, given=given: check(str(world.forget), "--against", given)(world),
            refused(says),
        )
        for name, (given, says) in NAMES.items()
        if name in ("missing", "long name", "empty name", "device")
    ),
    *(
        Case(f"{command} {flag}: bad second line", partial(with_files, command, flag), refused("bad.jsonl", "line 2"))
        for command, flag in USERS
    ),
]
