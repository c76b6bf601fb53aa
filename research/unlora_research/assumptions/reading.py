"""Which rows of the table answer which question, and the two numbers that are computed from them."""

import math
from collections.abc import Iterator
from statistics import linear_regression

import pandas

from unlora_research.assumptions.grid import RANK
from unlora_research.assumptions.questions import LIMIT
from unlora_research.unlearning import best_rates


def asked(table: pandas.DataFrame, question: str, **values: str) -> pandas.DataFrame:
    """The theorem's rows that answer a question, with these values."""
    if "asked" not in table:
        return table.iloc[:0]
    found = table[table["asked"] == question]
    for column, value in values.items():
        found = found[found[column] == value]
    return found


def of_target(table: pandas.DataFrame) -> pandas.DataFrame:
    """By rank and distribution: what the target has learnt, and the theorem as it stands."""
    return asked(table, "rank", case="learnt", form="variances")


def by_sigma(table: pandas.DataFrame) -> pandas.DataFrame:
    """By sigma; the column factors says whether they were virtual or inserted."""
    found = asked(table, "sigma")
    if found.empty:
        return found
    return found.assign(factors=found["inserted"].astype(bool).map({True: "inserted", False: "virtual"}))


def by_layer(table: pandas.DataFrame) -> pandas.DataFrame:
    """Layer by layer; the columns block and kind name where a layer lies and what it is."""
    found = asked(table, "depth")
    if found.empty:
        return found
    return found.assign(
        block=[f"block {int(layer)}" for layer in found["layer"]], kind=found["module"].str.partition(".")[2]
    )


def sampled_and_limit(rows: pandas.DataFrame) -> Iterator[tuple[str, pandas.DataFrame]]:
    """Gaussian factors at the rank in use, and the limit at infinite rank; each with its name in a table."""
    yield f"rank {RANK}", rows[(rows["distribution"] == "gaussian") & (rows["rank"] == RANK)]
    yield LIMIT, rows[rows["distribution"] == LIMIT]


def unlearnt(table: pandas.DataFrame) -> pandas.DataFrame:
    """The runs of unlearning, each choice of layers at its best learning rate."""
    runs = table[table["part"] == "coverage"]
    return best_rates(runs, ["layers"]) if len(runs) else runs


def noise(rows: pandas.DataFrame) -> pandas.Series:
    """Size of what is orthogonal to the limit, over what is along it: `sampling` is the sine of their angle."""
    return rows["sampling"] / (1 - rows["sampling"] ** 2).clip(lower=1e-12) ** 0.5


def slope(rows: pandas.DataFrame) -> float:
    """Exponent b of noise ~ rank^b, by least squares on logarithms of the means over seeds; NaN for a single rank."""
    means = rows.assign(noise=noise(rows)).groupby("rank")["noise"].mean()
    if len(means) < 2:
        return math.nan
    return linear_regression([math.log(rank) for rank in means.index], [math.log(value) for value in means]).slope
