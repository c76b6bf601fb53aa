"""How suites are named."""

import pytest

from unlora.errors import InputError
from unlora.suites.table import SUITES, read_name, read_suite, read_suites
from unlora.suites.wmdp.suite import Wmdp


@pytest.mark.parametrize(
    ("text", "kind", "settings", "label", "folder"),
    [
        ("tofu", "tofu", {}, "tofu", "tofu"),
        ("muse:news", "muse", {"corpus": "news"}, "muse:news", "muse-news"),
        ("muse:books@data/muse", "muse", {"corpus": "books", "folder": "data/muse"}, "muse:books", "muse-books"),
        ("wmdp", "wmdp", {}, "wmdp", "wmdp"),
        ("wmdp:bio,mmlu", "wmdp", {"tasks": "bio,mmlu"}, "wmdp:bio,mmlu", "wmdp-bio-mmlu"),
        ("rwku:Stephen King", "rwku", {"subject": "Stephen King"}, "rwku:Stephen King", "rwku-Stephen-King"),
        ("rwku:all@RWKU", "rwku", {"subject": "all", "folder": "RWKU"}, "rwku:all", "rwku-all"),
        ("wmdp@my questions.jsonl", "wmdp", {"file": "my questions.jsonl"}, "wmdp", "wmdp"),
    ],
)
def test_a_name_says_settings(text: str, kind: str, settings: dict, label: str, folder: str) -> None:
    named = read_name(text)
    assert (named.kind, named.settings, named.label, named.folder) == (kind, settings, label, folder)


def test_tasks_of_a_name_are_a_list() -> None:
    assert Wmdp.from_mapping(read_name("wmdp:bio,mmlu").settings).tasks == ["bio", "mmlu"]


def test_settings_may_stand_beside_a_name() -> None:
    named = read_suite({"name": "muse:news", "batch_size": 2, "folder": "here"})
    assert named.settings == {"corpus": "news", "batch_size": 2, "folder": "here"}
    with pytest.raises(InputError, match="names no suite; write"):
        read_suite({"batch_size": 2})


def test_what_is_named_twice_is_refused() -> None:
    assert [one.label for one in read_suites(["muse:news", "muse:books"])] == ["muse:news", "muse:books"]
    with pytest.raises(InputError, match="names muse:news twice"):
        read_suites(["muse:news@a", {"name": "muse:news@b"}])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("rwku", "rwku:all"),
        ("rkwu", "rwku:NAME"),
        ("rkwu:Stephen_King", "rwku:Stephen_King"),
        ("wmpd:bio", "wmdp:bio"),
        ("rwku@RWKU", "rwku:NAME"),
        ("muse", "muse:news"),
        ("muse:new", "muse:news"),
        ("muse:book", "muse:books"),
        ("mues:news", "muse:news"),
        ("tofu:forget10", "tofu"),
        ("wmpd", "wmdp"),
    ],
)
def test_what_is_proposed_is_no_name_that_was_just_refused(text: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"Did you mean '{meant}'"):
        read_name(text)
    assert read_name(meant).kind in SUITES


def test_nothing_is_proposed_for_a_name_that_is_like_none() -> None:
    with pytest.raises(InputError, match=r"module:Class\.$"):
        read_name("hellaswag")


@pytest.mark.parametrize("kind", SUITES)
def test_every_row_leads_to_its_class(kind: str) -> None:
    form = SUITES[kind].forms[0].partition(" ")[0]
    assert read_name(form).find_class().name == kind
