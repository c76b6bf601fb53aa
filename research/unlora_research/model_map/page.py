"""The map as a page, and what differs between two maps."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from unlora.reach import percent
from unlora_research.model_map.verdict import LOGITS, MEANINGS, NATS, PLANNED, Verdict

SHOWN = 6
"""Names of what is left out, in a row."""
NOTES = {
    "dbrx": "DBRX keeps its experts in two dimensions and reads them past PEFT's wrapper (an AttributeError in the "
    "first forward pass\nwhere a tensor of them is a target), so that no adapter on them can act.",
    "gemma4_assistant": "`gemma4_assistant` and `gemma4_unified_assistant` compute from the states of the model that "
    "they assist: they read no text, and\nnothing can be unlearned in them alone.",
    "longcat_flash": "LongCat-Flash has slices in its experts' first tensor for those that hand a token on as it "
    "is: no token is multiplied with them,\nand they are left out as what the loss does not depend on.",
    "inkling_text": "Inkling's routed experts are reached one by one. Its shared ones, which every token passes, are "
    "tensors of their own form and\nare left out, named as fused experts.",
}
"""What a row cannot say, by model type."""


def page(record: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    """Return docs/models.md."""
    counts = Counter(one.outcome for one in verdicts)
    built = len(verdicts) - counts["not built"]
    fine = counts["works"] + counts["partly"]
    starts = " and ".join(f"`{one}`" for one in record["starts"])
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    summary = "\n".join(f"| {MEANINGS[outcome]} | {counts[outcome]} |" for outcome in MEANINGS if counts[outcome])
    return f"""# Which models work

Of the {record["known"]} model types of `AutoModelForCausalLM` and `AutoModelForImageTextToText`, {len(verdicts)} were
tried, as tiny models with random weights, one process each.
Each was measured (importance), unlearned for {record["steps"]} steps from two starts ({starts}),
scored alone and in padded batches, its adapter loaded in plain PEFT in the class that config.json names, and exported
with the adapter merged.

Of these, transformers itself builds {built} that read text alone; {fine} of them
({percent(fine / max(built, 1))}) work. "Works" means: the logits of plain PEFT and of the merged model equal those of
the adapter's factors added to the weights by hand, to {LOGITS:.0e} of the largest logit (float32); scores alone and in
padded batches agree with the model's own forward pass to {NATS:.0e} nats{_scored(verdicts)}. {_planned(verdicts)}

Decoders that count positions from the one after padding's, as RoBERTa does, are read at those. transformers 5.23's own
`generate` counts from 0, and reads another model than the one that was trained (`findings/generate-positions.sh`).

| | classes |
|---|---:|
{summary}

Made by `{record["command"]}`
({versions}; {record["seconds"]:.0f} seconds in all, one thread a class, {record["processor"]}).
What differs in another version of transformers: `python -m unlora_research.model_map --output NEW.json`, then
`python -m unlora_research.model_map --differences docs/models.json NEW.json`.

{_rounding(verdicts)}{_notes(verdicts)}{_works(verdicts)}
{_refused(verdicts)}
{_unbuilt(verdicts)}"""


def differences(old: Sequence[Verdict], new: Sequence[Verdict]) -> list[str]:
    """Say what another map has otherwise: classes that came, went, work now, or work no longer, or reach less."""
    before, after = {one.kind: one for one in old}, {one.kind: one for one in new}
    lines = [f"{kind}: new, {MEANINGS[after[kind].outcome]}" for kind in after if kind not in before]
    lines += [f"{kind}: gone, was: {MEANINGS[before[kind].outcome]}" for kind in before if kind not in after]
    for kind in before.keys() & after.keys():
        was, now = before[kind], after[kind]
        if was.outcome != now.outcome:
            lines.append(f"{kind}: was: {MEANINGS[was.outcome]}; now: {MEANINGS[now.outcome]} {_told(now)}")
        elif was.left_out != now.left_out:
            lines.append(f"{kind}: leaves out {_names(now) or 'nothing'}; before {_names(was) or 'nothing'}")
    return sorted(lines)


def _planned(verdicts: Sequence[Verdict]) -> str:
    """Say of how many classes `plan` was right, and of which it says that it can say nothing."""
    right = sum(one.plan_difference is not None and one.plan_difference <= PLANNED for one in verdicts)
    names = [one.kind for one in verdicts if one.plan_line]
    rest = f"; of {', '.join(names)} it says in one line that it cannot" if names else ""
    return f"`unlora plan` was right about\nweights, reach and adapter of {right} of them, to {PLANNED:.0%}{rest}."


def _scored(verdicts: Sequence[Verdict]) -> str:
    found = [one.score_difference for one in verdicts if one.score_difference is not None]
    return f" (the largest difference is {max(found):.0e})" if found else ""


def _notes(verdicts: Sequence[Verdict]) -> str:
    kinds = {one.kind for one in verdicts}
    return "".join(f"{note}\n\n" for kind, note in NOTES.items() if kind in kinds)


def _rounding(verdicts: Sequence[Verdict]) -> str:
    """Name the classes that multiply the rounding of float32."""
    told = [f"{one.kind} ({one.peft_difference:.0e})" for one in verdicts if one.only_rounding]
    if not told:
        return ""
    return (
        f"In float32 the logits of plain PEFT differ by more for {', '.join(told)}, and in float64 by less than\n"
        f"{LOGITS:.0e}: rounding, which these models multiply (those with linear attention divide its output by its "
        "own size, also where little was read). The merged model equals the factors by hand there.\n\n"
    )


def _works(verdicts: Sequence[Verdict]) -> str:
    rows = [
        f"| {one.kind} | {one.name} | {percent(one.reach or 0)} | {_names(one)} |"
        for one in verdicts
        if one.outcome in ("works", "partly")
    ]
    head = "## Work\n\n| model type | class | in reach | left out |\n|---|---|---:|---|\n"
    return head + "\n".join(rows) + "\n"


def _refused(verdicts: Sequence[Verdict]) -> str:
    rows = [
        f"| {one.kind} | {one.name} | {MEANINGS[one.outcome]} | {one.stage} | {_cell(one.line)} |"
        for one in verdicts
        if one.outcome in ("refused", "wrong", "error")
    ]
    head = "## Do not work\n\n| model type | class | | where | what is said |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n" if rows else ""


def _unbuilt(verdicts: Sequence[Verdict]) -> str:
    rows = [f"| {one.kind} | {one.name} | {_cell(one.line)} |" for one in verdicts if one.outcome == "not built"]
    head = (
        "## Not built\n\nClasses that need an image, a sound or another package to run at all, or whose configuration "
        "cannot be made small by rule.\n\n| model type | class | what transformers says |\n|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n" if rows else ""


def _names(one: Verdict) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, why in one.left_out.items():
        by_reason.setdefault(why, []).append(name)
    told = []
    for why, names in by_reason.items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        told.append(f"{why}: {', '.join(f'`{name}`' for name in names[:SHOWN])}{more}")
    return _cell("; ".join(told))


def _told(one: Verdict) -> str:
    return f"({one.line})" if one.outcome not in ("works", "partly") else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:400]
