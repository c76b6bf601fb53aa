"""The suites there are, and their names: "tofu", "muse:news@FOLDER", "wmdp:bio,chem", "rwku:NAME", "held_out"."""

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from unlora.errors import InputError, nearest
from unlora.own_code import import_own

if TYPE_CHECKING:
    from unlora.suites.suite import Suite


class SuiteRow(NamedTuple):
    """One suite."""

    home: str
    """module:Class; imported when the suite is asked for."""
    pattern: str
    """Of its names; a named group is the setting that this part of the name stands for."""
    forms: tuple[str, ...]
    """What its names look like, for messages."""
    brings_data: bool = True
    """Whether it has questions of its own, and does not ask about the sets of the run."""


SUITES: dict[str, SuiteRow] = {
    "tofu": SuiteRow("unlora.suites.tofu.suite:Tofu", "tofu", ("tofu",), brings_data=False),
    "muse": SuiteRow(
        "unlora.suites.muse.suite:Muse",
        r"muse:(?P<corpus>news|books)(@(?P<folder>.+))?",
        ("muse:news", "muse:books (with @FOLDER for local files)"),
    ),
    "wmdp": SuiteRow(
        "unlora.suites.wmdp.suite:Wmdp",
        r"wmdp(:(?P<tasks>[^@]+)|@(?P<file>.+))?",
        ("wmdp", "wmdp:bio,cyber", "wmdp@FILE"),
    ),
    "rwku": SuiteRow(
        "unlora.suites.rwku.suite:Rwku",
        r"rwku:(?P<subject>[^@]+)(@(?P<folder>.+))?",
        ("rwku:NAME", "rwku:all (with @FOLDER for local files)"),
    ),
    "held_out": SuiteRow("unlora.suites.held_out.suite:HeldOut", "held_out", ("held_out",), brings_data=False),
}
"""To add a suite: a file with its class, and a row here."""


class NamedSuite(NamedTuple):
    """What somebody wrote for a suite."""

    kind: str
    """A key of `SUITES`, or "module:Class"."""
    settings: dict[str, Any]
    """What the name says, and what was said beside it."""
    name: str
    """As it was written."""

    @property
    def brings_data(self) -> bool:
        """Whether it has questions of its own, as every suite of the user's has."""
        return self.is_own or SUITES[self.kind].brings_data

    @property
    def is_own(self) -> bool:
        """Whether it is a class of the user's."""
        return self.kind not in SUITES

    @property
    def label(self) -> str:
        """The name without its place."""
        return self.name.partition("@")[0]

    @property
    def folder(self) -> str:
        """A name for its files."""
        return re.sub(r"[^\w.-]+", "-", self.label)

    def find_class(self) -> "type[Suite]":
        """Import the suite's class.

        Raises:
            InputError: of the user's own, it cannot be imported or is no suite.
        """
        if self.is_own:
            return _own_class(self.kind)
        module, _, name = SUITES[self.kind].home.partition(":")
        return getattr(importlib.import_module(module), name)


def _own_class(kind: str) -> "type[Suite]":
    from unlora.suites.suite import Suite

    suite = import_own(kind, "suite")
    if not (isinstance(suite, type) and issubclass(suite, Suite)):
        raise InputError(f"suite '{kind}': must subclass unlora.suites.suite.Suite.")
    missing = [*sorted(suite.__abstractmethods__)]
    missing += [one for one in ("name", "score_file") if not hasattr(suite, one)]
    if missing:
        raise InputError(f"suite '{kind}': has no {', '.join(missing)}.")
    return suite


def read_name(text: str) -> NamedSuite:
    """Read what names a suite: a form of the table's, or "module:Class", which is imported when it is asked for.

    Raises:
        InputError: there is no such suite, with what there is.
    """
    for kind, row in SUITES.items():
        match = re.fullmatch(row.pattern, text)
        if match is not None:
            settings: dict[str, Any] = {key: value for key, value in match.groupdict().items() if value}
            return NamedSuite(kind, settings, text)
    module, colon, name = text.partition(":")
    if (
        colon
        and module not in SUITES
        and not nearest(module, SUITES)
        and f"{module}.{name}".replace(".", "_").isidentifier()
    ):
        return NamedSuite(text, {}, text)
    *forms, last = [form for row in SUITES.values() for form in row.forms]
    raise InputError(f"'{text}' is not one of {', '.join(forms)}, {last} or module:Class.{_hint(text)}")


def _hint(text: str) -> str:
    """Propose a name that is accepted: a suite's key alone ("rwku", "muse") need not be one."""
    word = re.split("[:@]", text)[0]
    meant = [word] if word in SUITES else [kind for kind in SUITES if nearest(word, [kind])]
    spelt = [name for kind in meant if re.fullmatch(SUITES[kind].pattern, name := kind + text[len(word) :])]
    forms = [form.partition(" ")[0] for kind in meant for form in SUITES[kind].forms]
    found = nearest(text, spelt) or nearest(text, forms)
    return found or (f" Did you mean '{forms[0]}'?" if forms else "")


def read_suite(written: str | Mapping[str, Any]) -> NamedSuite:
    """Read a suite as a configuration names it: by its name, or {name: NAME, SETTING: VALUE} with settings of its own.

    Raises:
        InputError: no such suite, or a mapping without a name.
    """
    if isinstance(written, str):
        return read_name(written)
    name = written.get("name")
    if not isinstance(name, str):
        raise InputError("names no suite; write {name: muse:news, batch_size: 4}.")
    found = read_name(name)
    return found._replace(settings=found.settings | {key: value for key, value in written.items() if key != "name"})


def read_suites(written: Sequence[str | Mapping[str, Any]]) -> list[NamedSuite]:
    """Read the suites of a configuration.

    Raises:
        InputError: no such suite, or one that is named twice.
    """
    found = [read_suite(one) for one in written]
    labels = [one.label for one in found]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"names {label} twice; one evaluation asks it once.")
    return found
