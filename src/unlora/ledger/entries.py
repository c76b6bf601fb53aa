"""What stands in an entry of the ledger, one class a kind. No texts of records: only hashes of them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from unlora.errors import InputError

Files = dict[str, str]
"""Path from the ledger's folder -> SHA-256 of the file."""


class LedgerPart(BaseModel):
    """A part of an entry."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, protected_namespaces=())


class TheModel(LedgerPart):
    """The model that requests are about."""

    name: str
    """A hub id, "embedded", or the way to its folder from the ledger's."""
    base: str | None
    """Of an adapter whose config does not say, named alike."""
    fingerprint: str
    source: dict[str, Any]
    """How it was loaded, as in record.json."""


class RecordSet(LedgerPart):
    """A set of records, without their texts."""

    sha256: str
    """Of the contents in their order."""
    example_count: int
    records: list[str]
    """Salted hashes of the words of question and answer, and of their paraphrases."""
    questions: list[str]
    """The same of the questions alone."""


class Probability(LedgerPart):
    """Mean probability of the true answers, the geometric mean over an answer's tokens (TOFU)."""

    target: float
    """In the model without any adapter."""
    now: float
    """In the model as it was then, with all requests that were in force."""


class Composition(LedgerPart):
    """The adapter that does what all requests in force ask for."""

    folder: str
    rank: int
    of: list[int]
    """Numbers of the requests."""
    adapter_sha256: str
    files: Files


class LedgerEntry(LedgerPart):
    """What every entry has."""

    entry: int
    """Its number, from 0."""
    time: str
    """When it was written: UTC, ISO 8601."""
    unlora: str
    """Version."""
    previous: str
    hash: str

    def own_files(self) -> Files:
        """The files that the entry vouches for as long as the ledger lasts."""
        return {}


class Beginning(LedgerEntry):
    """The first entry."""

    kind: Literal["model"]
    model: TheModel
    salt: str
    """Goes into the hashes of records: equal records of two ledgers have other hashes."""


class Request(LedgerEntry):
    """A deletion request that was carried out. Its number is that of its entry."""

    kind: Literal["request"]
    forget: RecordSet
    retain_sha256: str | None
    probability: Probability
    level: str | None
    """Where the adapter ended beside the level that it aimed at."""
    rank: int
    """Of its own update."""
    made_from: str
    """Hash of settings, records and the composition before it: the same command, started again, finds it done."""
    files: Files
    composed: Composition
    joins: list[int] = []
    """Requests whose records are among its own, and whose updates it took out: they were forgotten anew with it."""

    def own_files(self) -> Files:
        return self.files


class RollBack(LedgerEntry):
    """A request that was taken back."""

    kind: Literal["rollback"]
    request: int
    composed: Composition | None
    """None: no request is in force, the model is as it was."""


class RequestAsked(LedgerPart):
    """What the model gives to the records of one request."""

    request: int
    probability: Probability


class Settling(LedgerEntry):
    """All requests in force, made weaker together, to the level that they had gone past."""

    kind: Literal["settling"]
    level: float
    """Mean answer probability over the records of all of them that was aimed at."""
    strength: float
    """What every update is multiplied with from here on, in (0, 1)."""
    asked: list[RequestAsked]
    """Each request in force, afterwards."""
    composed: Composition


class Recheck(LedgerEntry):
    """A request that was asked about again, of the model as it was then."""

    kind: Literal["check"]
    request: int
    probability: Probability
    adapter_sha256: str | None
    """Of the composition that was asked."""


class Audit(LedgerEntry):
    """An audit of the composition, kept in the ledger."""

    kind: Literal["audit"]
    request: int
    verdict: str
    adapter_sha256: str
    """Of the composition that was attacked."""
    files: Files

    def own_files(self) -> Files:
        return self.files


_ENTRY: TypeAdapter[Beginning | Request | RollBack | Settling | Recheck | Audit] = TypeAdapter(
    Annotated[Beginning | Request | RollBack | Settling | Recheck | Audit, Field(discriminator="kind")]
)


def read_entry(link: dict[str, Any], where: str) -> LedgerEntry:
    """Turn a link of the chain into an entry.

    Raises:
        InputError: it is none, or one of a later version of unlora.
    """
    try:
        return _ENTRY.validate_python(link)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, problem["loc"]))
        raise InputError(
            f"{where}: entry {link.get('entry')} is none that this version of unlora knows ({key}: {problem['msg']})."
        ) from None
