"""The audit in one plain sentence. It says what was shown by these attacks, never that the data is deleted."""

from collections.abc import Mapping

from unlora.audit.attack import AttackResult
from unlora.audit.attacker_table import in_words

STRONGEST_FIRST = ("relearning", "quantisation", "sampling", "context", "indirect", "wording", "membership", "level")
SCOPE = (
    "This is what these attacks found on these examples. It is no proof of deletion: another attack, or more of the "
    "same, may find more. It is no statement about any law or contract."
)


def verdict(results: Mapping[str, AttackResult]) -> str:
    """Say whether the knowledge shows, and whether more was lost than should be.

    Args:
        results: attack -> what it found, of those that were asked for.
    """
    tested = {name: result for name, result in results.items() if result.outcome != "not tested"}
    if not tested:
        return "Nothing was tested: every attack lacks something it needs."
    shows = [name for name, result in tested.items() if result.outcome == "fails" and not result.damage]
    lost = [name for name, result in tested.items() if result.outcome == "fails" and result.damage]
    unclear = [name for name, result in tested.items() if result.outcome == "unclear"]
    held = [name for name, result in tested.items() if result.outcome == "holds" and not result.damage]
    parts: list[str] = []
    if shows:
        first = min(shows, key=lambda name: STRONGEST_FIRST.index(name) if name in STRONGEST_FIRST else len(shows))
        others = f" ({', '.join(name for name in shows if name != first)} too)" if len(shows) > 1 else ""
        begin = "Not forgotten" if shows == ["level"] else "Suppressed, not gone"
        parts.append(f"{begin}: {tested[first].sentence}{others}.")
    elif held:
        parts.append(f"No return of the knowledge beyond the control was found by {_list(held, tested)}.")
    elif all(result.damage for result in tested.values()) and "level" not in tested:
        parts.append(f"Whether the knowledge is gone was not tested: {', '.join(tested)} look for damage alone.")
    if lost:
        parts.append(f"More was lost than should be: {'; '.join(tested[name].sentence for name in lost)}.")
    tried = sorted({name for result in tested.values() for name in result.attackers})
    if tried and "relearning" not in held:
        parts.append(f"Relearning was tried by {in_words(tried)}.")
    if unclear:
        parts.append(f"Cannot be told: {', '.join(unclear)}.")
    missing = [name for name, result in results.items() if result.outcome == "not tested"]
    if missing:
        parts.append(f"Not tested: {', '.join(missing)}.")
    return " ".join(parts)


def _list(names: list[str], results: Mapping[str, AttackResult]) -> str:
    # How hard the strongest attack tried, and which questions a target could be asked at all, is part of the statement.
    told = ("relearning", "indirect")
    return ", ".join(f"{name} ({results[name].tested})" if name in told else name for name in names)
