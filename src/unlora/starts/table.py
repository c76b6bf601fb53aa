"""The starts that have a name: the only list of them. A row loads its class when it is asked for."""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from unlora.errors import InputError, nearest
from unlora.own_code import import_own

if TYPE_CHECKING:
    from unlora.starts.start import Start


class StartRow(NamedTuple):
    """One start."""

    home: str
    """module:Class, in this package."""
    summary: str
    source: str
    fields: Mapping[str, Any] = {}
    """Settings in which it differs from its class."""


STARTS: dict[str, StartRow] = {
    "contrast_inputs": StartRow(
        "contrast:ContrastInputs", "A frozen in the inputs that the forget set uses and the retain set does not", "ours"
    ),
    "selective": StartRow(
        "selective:Selective", "A frozen in minor inputs of the forget set: what both sets use most is left out", "ours"
    ),
    "contrast": StartRow("contrast:Contrast", "the same for both factors, and both are trained", "ours"),
    "marginal": StartRow(
        "weighted:Marginals", "rows weighted by exact row variances of the gradients", "ours, after VILA"
    ),
    "vila": StartRow(
        "weighted:VirtualFactors", "rows weighted by variances of virtual LoRA factors", "arXiv 2508.21300"
    ),
    "fila": StartRow(
        "weighted:FullWeights",
        "rows weighted by squared gradients of every weight; slow, needs the most memory",
        "arXiv 2408.06621",
        {"statistic": "second_moment"},
    ),
    "variance_full": StartRow(
        "weighted:FullWeights", "rows weighted by variances of every weight (ablation)", "arXiv 2508.21300, Table 4"
    ),
    "second_moment_lora": StartRow(
        "weighted:VirtualFactors",
        "rows weighted by squared gradients of virtual LoRA factors (ablation)",
        "arXiv 2508.21300, Table 4",
        {"statistic": "second_moment"},
    ),
    "vila_published": StartRow(
        "published:PublishedFactors", "VILA's released arithmetic: probe in the model, batch means", "VILA's code"
    ),
    "fila_published": StartRow(
        "published:PublishedWeights", "FILA's arithmetic as VILA's code runs it: squared batch means", "VILA's code"
    ),
    "uniform": StartRow(
        "plain:Uniform", "leading singular directions of each layer, no data (control)", "arXiv 2404.02948"
    ),
    "shuffled": StartRow(
        "weighted:Marginals", "marginal with its rows shuffled (control)", "control", {"shuffle_rows": True}
    ),
    "plain": StartRow("plain:Plain", "ordinary LoRA, A random, B = 0 (control)", "arXiv 2106.09685"),
    "olora": StartRow("of_peft:Olora", "leading columns and rows of W = Q R, no data", "arXiv 2406.01775"),
    "corda": StartRow("of_peft:Corda", "what the retain set's inputs use least of W", "arXiv 2406.05223"),
    "eva": StartRow("of_peft:Eva", "A spans the forget set's inputs, B = 0", "arXiv 2410.07170"),
    "lora_ga": StartRow("of_peft:LoraGa", "singular vectors of the forget set's mean gradient", "arXiv 2407.05000"),
    "reglu": StartRow(
        "reglu:Reglu", "outputs that set forget apart from retain examples, with a penalty", "arXiv 2604.17396"
    ),
}


def make_start(kind: str, fields: Mapping[str, Any] | None = None) -> "Start":
    """Make a start with the given settings, its own defaults for the rest.

    Args:
        kind: a name of the table, or "module:Class" for one of your own: a subclass of `Start`, whose module is
            imported, from the current folder too.
        fields: its settings.

    Raises:
        InputError: an unknown name, a class that is no start, a setting that this start does not have, or a value that
            it does not take.
    """
    given = dict(fields or {})
    if ":" in kind:
        start, defaults = _own(kind), {}
    elif kind in STARTS:
        module, _, name = STARTS[kind].home.partition(":")
        start = getattr(importlib.import_module(f"unlora.starts.{module}"), name)
        defaults = STARTS[kind].fields
    else:
        hint = nearest(kind, STARTS) or f" Known: {', '.join(STARTS)}; or module:Class for one of your own."
        raise InputError(f"start: unknown kind '{kind}'.{hint}")
    return start.from_mapping({"kind": kind, **defaults, **given}, where=f"start '{kind}'", section="start")


def _own(kind: str) -> "type[Start]":
    from unlora.starts.start import Start

    start = import_own(kind, "start")
    if not (isinstance(start, type) and issubclass(start, Start)):
        raise InputError(f"start '{kind}': must subclass unlora.starts.Start.")
    if start.__abstractmethods__:
        raise InputError(f"start '{kind}': has no {', '.join(sorted(start.__abstractmethods__))}.")
    return start
