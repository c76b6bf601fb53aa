"""What every attack has: a question, a cost known beforehand, and a result with its records."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from unlora.audit.bench import Workbench
from unlora.audit.cost import Cost
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject

Outcome = Literal["fails", "holds", "unclear", "not tested"]
"""fails: knowledge, or damage, beyond the control was shown; holds: none was; unclear: the control is missing or the
examples are too few to tell; not tested: something it needs is not there."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float | None
    """None: could not be computed (see `note`)."""
    low: float | None = None
    """Lower end of the interval."""
    high: float | None = None
    """Upper end."""
    example_count: int = 0
    """Examples behind it."""
    unscored_count: int = 0
    """Examples that gave no score."""
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """A number as it changes while an attack goes on."""

    panel: str
    """Curves of one panel are drawn on common axes."""
    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class AttackResult:
    """What an attack found."""

    outcome: Outcome
    sentence: str
    """The finding in plain words, with its numbers."""
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    """Name -> number; names end in the role they belong to where there are several."""
    tested: str = ""
    """On what: "40 forget questions, 12 steps, 1 seed"."""
    curves: tuple[Curve, ...] = ()
    x_label: str = ""
    y_label: str = ""
    records: tuple[Mapping[str, Any], ...] = ()
    """Example by example, what was asked, what was answered, each score; NaN is unscored."""
    attackers: tuple[str, ...] = ()
    """Who tried, of those that count; empty where an attack is one."""
    damage: bool = False
    """What failed is not that knowledge shows, but that more was lost than should be."""


class Attack(ABC):
    """One way to bring the knowledge back, or to show what else was lost."""

    name: ClassVar[str]
    question: ClassVar[str]
    """What it finds out, as a question."""

    @abstractmethod
    def lacks(self, subject: AuditSubject, settings: AuditSettings) -> str | None:
        """Say what is missing and how to give it; None when it can be run."""

    @abstractmethod
    def cost(self, subject: AuditSubject, settings: AuditSettings) -> Cost:
        """Work to be done when nothing is cached."""

    @abstractmethod
    def run(self, bench: Workbench) -> AttackResult:
        """Do it.

        Raises:
            UnloraError: the work failed; what was finished before is cached.
        """
