"""What the study found: sentences, then a table a question."""

from collections.abc import Callable

import pandas

from unlora_research.assumptions.accuracy import MEASURES
from unlora_research.assumptions.factors import DISTRIBUTIONS
from unlora_research.assumptions.grid import COVERAGES, RANK
from unlora_research.assumptions.questions import BEST, CASES, LIMIT
from unlora_research.assumptions.reading import (
    asked,
    by_layer,
    by_sigma,
    noise,
    of_target,
    sampled_and_limit,
    slope,
    unlearnt,
)
from unlora_research.assumptions.theorem import FORMS
from unlora_research.tables import in_order, markdown_table, paired_differences, spread


def summary(table: pandas.DataFrame) -> str:
    """Findings, then tables; of what there are rows for."""
    parts: list[Callable[[pandas.DataFrame], str]] = [
        _findings, _distributions_table, _forms_table, _sigma_table, _depth_table, _coverage_table,
    ]  # fmt: skip
    return "\n\n".join(text for part in parts if (text := part(table)))


# ---- Findings ------------------------------------------------------------------------------------------------------


def _findings(table: pandas.DataFrame) -> str:
    parts = (_rank_findings, _form_findings, _sigma_findings, _coverage_findings)
    return "\n".join(f"- {sentence}" for part in parts for sentence in part(table))


def _rank_findings(table: pandas.DataFrame) -> list[str]:
    found = of_target(table)
    if found.empty:
        return []
    (_, sampled), (_, limit) = sampled_and_limit(found)
    best = found[found["distribution"] == BEST]
    return [
        f"The product form alone (infinite rank) misses the exact variance by {spread(limit['frobenius'], 3)} of its "
        f"norm, the best product there is by {spread(best['frobenius'], 3)}, Gaussian factors of rank {RANK} by "
        f"{spread(sampled['frobenius'], 3)}.",
        f"Rank correlation of row sums with the exact ones: {spread(limit['rows'], 3)} in the limit, "
        f"{spread(sampled['rows'], 3)} at rank {RANK}; of the row weights that the ratio to the retain set gives: "
        f"{spread(limit['ratio_rows'], 3)} and {spread(sampled['ratio_rows'], 3)}.",
        "Sampling noise, relative to the limit, falls as rank to the power "
        f"{slope(found[found['distribution'] == 'gaussian']):.2f} with Gaussian factors (independent columns: -0.50).",
    ]


def _form_findings(table: pandas.DataFrame) -> list[str]:
    found = asked(table, "rank", distribution=LIMIT)
    if found.empty:
        return []
    sentences = []
    for case in in_order(found["case"], CASES):
        of_case = found[found["case"] == case]
        by_form = {form: of_case[of_case["form"] == form] for form in in_order(of_case["form"], FORMS)}
        told = "; ".join(
            f"{FORMS[form]} {spread(rows['frobenius'], 3)}, {spread(rows['ratio_rows'], 3)}"
            for form, rows in by_form.items()
        )
        sentences.append(
            f"Forget set {CASES[case]}, squared mean {_squared_mean(of_case)} of the second moment; relative error and "
            f"Spearman of row weights at infinite rank: {told}."
        )
    return sentences


def _sigma_findings(table: pandas.DataFrame) -> list[str]:
    found = by_sigma(table)
    if found.empty:
        return []
    sentences = []
    virtual, inserted = (found[found["factors"] == factors] for factors in ("virtual", "inserted"))
    if len(virtual):
        by_seed = virtual.groupby("seed")["frobenius"]
        apart = (by_seed.max() - by_seed.min()).max()
        sentences.append(f"Over all sigma, virtual factors give the same relative error to within {apart:.0e}.")
    if len(inserted):
        means = inserted.groupby("sigma")["rows"].mean()
        told = ", ".join(f"{value:.3f} at {sigma:g}" for sigma, value in means.items())
        sentences.append(
            f"Inserted into the network, they give row sums whose rank correlation with the truth is {told}."
        )
    return sentences


def _coverage_findings(table: pandas.DataFrame) -> list[str]:
    runs = unlearnt(table)
    if runs.empty:
        return []
    sentences = []
    for pair in (("top", "all"), ("random", "all"), ("top", "random")):
        differences = paired_differences(runs, "test_balance", *pair, by="layers", within="seed")
        if differences:
            one, other = (COVERAGES[layers] for layers in pair)
            sentences.append(f"Balance, {one} minus {other}: {spread(differences, 3)}.")
    return sentences


# ---- Tables --------------------------------------------------------------------------------------------------------


def _measures(rows: pandas.DataFrame) -> list[str]:
    return [spread(rows[measure], 3) for measure in MEASURES]


def _squared_mean(rows: pandas.DataFrame) -> str:
    return spread(100 * rows.drop_duplicates("seed")["squared_mean"], 1) + " %"


def _distributions_table(table: pandas.DataFrame) -> str:
    found = of_target(table)
    if found.empty:
        return ""
    top = found["rank"].max()
    lines = []
    for name in in_order(found["distribution"], [*DISTRIBUTIONS, LIMIT, BEST]):
        rows = found[found["distribution"] == name]
        if name in DISTRIBUTIONS:
            in_use, last = rows[rows["rank"] == RANK], rows[rows["rank"] == top]
            about_sampling = [spread(noise(in_use), 3), spread(noise(last), 3), f"{slope(rows):.2f}"]
            lines.append([DISTRIBUTIONS[name], *_measures(in_use), *about_sampling])
        else:
            lines.append([name, *_measures(rows), "", "", ""])
    headings = ["factors", *MEASURES.values(), f"sampling noise, rank {RANK}", f"rank {top:.0f}", "power of rank"]
    return f"**Distribution of the factors** (rank {RANK}, target)\n\n" + markdown_table(headings, lines)


def _forms_table(table: pandas.DataFrame) -> str:
    found = asked(table, "rank")
    if found.empty:
        return ""
    lines = []
    for case in in_order(found["case"], CASES):
        of_case = found[found["case"] == case]
        for form in in_order(of_case["form"], FORMS):
            for factors, rows in sampled_and_limit(of_case[of_case["form"] == form]):
                lines.append([CASES[case], _squared_mean(of_case), FORMS[form], factors, *_measures(rows)])
    headings = ["forget set", "squared mean in the second moment", "product", "Gaussian factors", *MEASURES.values()]
    return "**The negligible-squared-mean assumption**\n\n" + markdown_table(headings, lines)


def _sigma_table(table: pandas.DataFrame) -> str:
    found = by_sigma(table)
    if found.empty:
        return ""
    lines = [
        [f"{sigma:g}", factors, *_measures(rows)]
        for factors in ("virtual", "inserted")
        for sigma, rows in found[found["factors"] == factors].groupby("sigma")
    ]
    return f"**Sigma** (rank {RANK})\n\n" + markdown_table(["sigma", "factors", *MEASURES.values()], lines)


def _depth_table(table: pandas.DataFrame) -> str:
    found = by_layer(table)
    if found.empty:
        return ""
    lines = []
    for column, prefix in (("block", ""), ("kind", "kind of layer ")):
        for value in dict.fromkeys(found[column]):
            for factors, rows in sampled_and_limit(found[found[column] == value]):
                medians = rows.groupby("seed")[list(MEASURES)].median()
                lines.append([f"{prefix}{value}", factors, *_measures(medians)])
    headings = ["layers", "Gaussian factors", *MEASURES.values()]
    return "**Depth and kind of layer** (medians)\n\n" + markdown_table(headings, lines)


def _coverage_table(table: pandas.DataFrame) -> str:
    runs = unlearnt(table)
    if runs.empty:
        return ""
    lines = []
    for layers in in_order(runs["layers"], COVERAGES):
        group = runs[runs["layers"] == layers]
        chosen = zip(group["seed"], group["chosen"], strict=True)
        lines.append(
            [
                COVERAGES[layers],
                f"{group['learning_rate'].iloc[0]:g}",
                spread(group["test_forget_probability"], 3),
                spread(100 * group["test_kept"], 1) + " %",
                spread(group["test_forget_quality_log10"], 2),
                spread(group["test_balance"], 3),
                spread(group["trained_parameters"] / 1000, 0),
                "" if layers == "all" else "; ".join(f"seed {seed}: {names}" for seed, names in chosen),
            ]
        )
    headings = [
        "layers with an adapter", "learning rate", "forget probability", "kept", "forget quality, log10 p", "balance",
        "trained parameters, thousands", "which (block.layer)",
    ]  # fmt: skip
    return "**Coverage** (`vila`)\n\n" + markdown_table(headings, lines)
