"""The table of attackers is the only list: settings, messages and the page go by it."""

import re
from pathlib import Path

import pytest

from tests.audit import own_attackers
from unlora.audit.attacker_table import ATTACKERS, DEFAULT_ATTACKERS, LESSONS, in_words, make_attacker
from unlora.audit.attackers import FullAttacker, LoraAttacker
from unlora.audit.settings import SCALES, AuditSettings
from unlora.errors import InputError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "audit.md"


def test_every_row_makes_what_its_name_says() -> None:
    assert make_attacker("lora_2e-3_few") == LoraAttacker(2e-3, "few")
    assert make_attacker("full_1e-4_retain") == FullAttacker(1e-4, "retain")
    for name in ATTACKERS:
        kind, rate, lesson = name.split("_")
        made = make_attacker(name)
        assert isinstance(made, {"lora": LoraAttacker, "full": FullAttacker}[kind])
        assert (made.learning_rate, made.learns_from) == (float(rate), lesson)


def test_a_plain_audit_tries_some_of_them_and_a_full_one_all() -> None:
    assert set(DEFAULT_ATTACKERS) < set(ATTACKERS)
    assert AuditSettings().relearning.attackers == list(DEFAULT_ATTACKERS)
    assert SCALES["full"]["relearning"]["attackers"] == list(ATTACKERS)


def test_the_page_names_every_kind_rate_and_lesson_and_the_default_set() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in ATTACKERS:
        kind, rate, lesson = name.split("_")
        assert re.search(rf"^\| `{kind}` \|.*\b{re.escape(rate)}\b", page, re.MULTILINE), name
        assert re.search(rf"^\| `{lesson}` \| {re.escape(LESSONS[lesson])}", page, re.MULTILINE), name
    (default,) = re.findall(r"<!-- default attackers -->(.*?)<!-- end -->", page, re.DOTALL)
    assert re.findall(r"`([^`]+)`", default) == list(DEFAULT_ATTACKERS)


def test_ones_own_is_made_and_what_is_none_is_refused() -> None:
    assert make_attacker(own_attackers.ALL) == own_attackers.All(5e-3, "full", 4)
    place = own_attackers.__name__
    for name, message in [
        ("lora_5e-4_fewe", "Did you mean 'lora_5e-4_few'"),
        (f"{place}:dataclass", "must be a dataclass that subclasses"),
        (f"{place}:NoRate", "cannot be made"),
        (f"{place}:Nobody", "has no 'Nobody'"),
    ]:
        with pytest.raises(InputError, match=message):
            make_attacker(name)
    with pytest.raises(InputError, match=r"relearning\.attackers: unknown attacker 'lora'"):
        AuditSettings.from_mapping({"relearning": {"attackers": ["lora"]}})
    with pytest.raises(InputError, match=r"known_attackers: unknown attacker"):
        AuditSettings.from_mapping({"known_attackers": ["lora"]})


def test_those_that_differ_in_their_rate_alone_are_named_together() -> None:
    assert in_words(["lora_5e-4_few", "full_1e-4_few", "lora_2e-3_few", "own:Kind"]) == (
        "lora at 5e-4 2e-3 on few, full at 1e-4 on few, own:Kind"
    )
