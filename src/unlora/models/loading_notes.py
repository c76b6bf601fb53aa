"""What the user of a model should know of how it was loaded, in sentences."""

from unlora.models.merge import MergeCheck
from unlora.models.quantised import Bits
from unlora.reach import percent


def format_note(name: str, format: str | None, merge: MergeCheck | None) -> tuple[str, ...]:
    """Say that the files of a model hold other numbers than the run goes on with; nothing where they do not."""
    if format is None:
        return ()
    return (
        f"{name}: its files hold the weights as {format}; the run goes on in full precision with the numbers that "
        "they stand for" + ("" if merge is None else ", the adapter merged into those"),
    )


def rounding_note(name: str, bits: Bits | None, share: float | None) -> tuple[str, ...]:
    """Say what share of the weights is rounded, nothing where none is asked to be: fused experts stay as they are."""
    if bits is None or share is None:
        return ()
    rest = "" if share == 1 else "; the others, such as fused experts, stay as they are and take the memory they took"
    return (f"{name}: {percent(share)} of the weights (embedding and head not counted) are rounded to {bits}{rest}",)
