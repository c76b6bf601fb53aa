"""How the size of VILA's random factors matters: inserted into the model as released, and virtual as here.

The paper's Table 9 names 0.05 to 0.30 as safe, gradients as unstable at 0.01, and 0.40 as too large. The released code
measures W + s B A with both factors N(0, sigma^2); here the model is measured intact and sigma scales the numbers only.
"""

from collections.abc import Mapping

import pandas
import torch
from matplotlib.figure import Figure
from pydantic import Field, NonNegativeInt

from unlora.config import Config
from unlora.data.collate import collate
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.importance.published import inserted, make_probes, token_mean_loss
from unlora.models.load import load_model
from unlora.models.target_modules import find_target_modules
from unlora_research.engine import Row, Study, Workplace
from unlora_research.fields import Presets, Rates
from unlora_research.figures import draw_lines, new_figure
from unlora_research.small_world import TINY_WORLD, SmallWorld, SmallWorldFiles, build_small_world
from unlora_research.tables import markdown_table, spread
from unlora_research.unlearning import best_rates, small_world_run, unlearn_at_rates

METHODS = {"vila_published": "inserted (vila_published)", "vila": "virtual (vila)"}
RANK = 8
SCALING = 2.0


class SigmaSettings(Config):
    """The grid."""

    world: SmallWorld = SmallWorld()
    """Of seed 0; other seeds change its seed."""
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0, 1, 2), min_length=1)
    """Of world, factors and training."""
    methods: Presets = tuple(METHODS)
    """Presets."""
    sigmas: Rates = (0.01, 0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.35, 0.40)
    """Standard deviations of both factors; those of Table 9 are among them."""
    learning_rates: Rates = (2.5e-4, 1e-3, 2e-3)
    """The best for each method and sigma is chosen on the validation half."""
    epochs: int = Field(default=10, ge=1)
    """Of unlearning."""


class SigmaCell(Config):
    """One method at one sigma in one world."""

    method: str
    sigma: float
    seed: int
    world: SmallWorld
    learning_rates: tuple[float, ...]
    epochs: int


def cells(settings: SigmaSettings) -> list[SigmaCell]:
    """All combinations."""
    return [
        SigmaCell(
            method=method,
            sigma=sigma,
            seed=seed,
            world=settings.world.model_copy(update={"seed": seed}),
            learning_rates=settings.learning_rates,
            epochs=settings.epochs,
        )
        for method in settings.methods
        for sigma in settings.sigmas
        for seed in settings.seeds
    ]


def run(cell: SigmaCell, place: Workplace) -> list[Row]:
    """Unlearn from importance measured at this sigma; a row a learning rate."""
    files = build_small_world(cell.world)
    loss = loss_while_measured(files, cell.sigma if cell.method == "vila_published" else 0.0, cell.seed, place.device)
    rows = unlearn_at_rates(
        small_world_run(files, place.device, epochs=cell.epochs),
        cell.method,
        {"start": {"probe_std": cell.sigma}, "adapter": {"rank": RANK, "alpha": SCALING * RANK}},
        cell.learning_rates,
        cell.seed,
        place,
    )
    return [{**row, "loss_while_measured": loss} for row in rows]


@torch.no_grad()
def loss_while_measured(files: SmallWorldFiles, sigma: float, seed: int, device: str) -> float:
    """Mean loss per token of the forget set in the network that is measured; sigma 0 is the intact model."""
    loaded = load_model(str(files.target), dtype=torch.float32, device=torch.device(device))
    tokeniser = ExampleTokeniser(loaded.tokenizer, template="plain", max_length=512)
    tokens = tokeniser.encode_set(load_examples(str(files.forget)))
    batch = {key: value.to(device) for key, value in collate(tokens, tokeniser.pad_token_id).items()}
    if sigma == 0:
        return float(token_mean_loss(loaded.model, batch))
    targets = find_target_modules(loaded.model)
    with inserted(targets, make_probes(targets, rank=RANK, probe_std=sigma, seed=seed), SCALING):
        return float(token_mean_loss(loaded.model, batch))


def summary(table: pandas.DataFrame) -> str:
    """One line a method and sigma, at its best learning rate."""
    chosen = best_rates(table, ["method", "sigma"])
    rows = []
    for (method, sigma), group in chosen.groupby(["method", "sigma"], sort=False):
        tried = table[(table["method"] == method) & (table["sigma"] == sigma)]
        rows.append(
            [
                f"`{method}`",
                f"{sigma:g}",
                spread(group["loss_while_measured"], 2),
                f"{group['learning_rate'].iloc[0]:g}",
                spread(group["first_gradient_norm"], 2),
                f"{int(tried['diverged'].sum())} of {len(tried)}",
                spread(group["final_retain_term"], 3),
                spread(group["test_forget_probability"], 3),
                spread(100 * group["test_kept"], 1) + " %",
                spread(group["test_forget_quality_log10"], 2),
                spread(group["test_balance"], 3),
            ]
        )
    headings = [
        "method", "sigma", "loss of the measured network", "learning rate", "gradient norm at step 1", "diverged",
        "retain NLL at the end", "forget probability", "kept", "forget quality, log10 p", "balance",
    ]  # fmt: skip
    return _findings(chosen) + "\n\n" + markdown_table(headings, rows)


def _findings(chosen: pandas.DataFrame) -> str:
    lines = []
    for method in dict.fromkeys(chosen["method"]):
        group = chosen[chosen["method"] == method]
        means = group.groupby("sigma")["test_balance"].mean()
        losses = group.groupby("sigma")["loss_while_measured"].mean()
        lines.append(
            f"- `{method}`: over sigma from {means.index.min():g} to {means.index.max():g} the balance lies between "
            f"{means.min():.3f} (at {means.idxmin():g}) and {means.max():.3f} (at {means.idxmax():g}); the network "
            f"that is measured has a loss of {losses.iloc[0]:.2f} at the smallest sigma, {losses.iloc[-1]:.2f} at the "
            "largest."
        )
    return "\n".join(lines)


def figures(table: pandas.DataFrame) -> Mapping[str, Figure]:
    """The network that is measured, and what unlearning from it reaches."""
    chosen = best_rates(table, ["method", "sigma"])
    figure, (left, right) = new_figure(
        "Inserting the random factors changes the network; virtual factors leave it alone", width=10.0, columns=2
    )
    draw_lines(left, chosen, "sigma", "loss_while_measured", by="method", names=METHODS)
    left.set(xlabel="sigma of the factors", ylabel="loss of the measured network, NLL per token")
    draw_lines(right, chosen, "sigma", "test_balance", by="method", names=METHODS)
    right.set(xlabel="sigma of the factors", ylabel="balance (1 is best)")
    right.legend(frameon=False)
    return {"sigma": figure}


STUDY = Study(
    name="sigma",
    settings=SigmaSettings,
    quick={
        "world": TINY_WORLD.model_dump(),
        "seeds": [0],
        "sigmas": [0.05, 0.4],
        "learning_rates": [2e-3],
        "epochs": 1,
    },
    cells=cells,
    run=run,
    summary=summary,
    figures=figures,
)
