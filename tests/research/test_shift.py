"""The size of the mean against explicit gradients, forget sets that differ as they should, and what the tables say."""

import pandas
import pytest
import torch
from transformers import PreTrainedModel

from tests.tiny import build_tiny_model
from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.importance.published import token_mean_loss
from unlora.models.target_modules import find_target_modules
from unlora_research.shift.figures import figures
from unlora_research.shift.grid import ShiftSettings, cells
from unlora_research.shift.maps import compare_maps, measure_set, plug_in
from unlora_research.shift.mixtures import mixture
from unlora_research.shift.summary import summary
from unlora_research.small_world import TINY_WORLD, world_people

PAD = 1


def examples(count: int, *, seed: int = 0) -> list[TokenisedExample]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(2, 100, (count, 9), generator=generator).tolist()
    return [TokenisedExample(tuple(row), 4, False, "made up") for row in rows]


def gradients(model: PreTrainedModel, some: list[TokenisedExample]) -> torch.Tensor:
    """(example, weight of all linear layers), by one backward pass an example."""
    weights = [target.leaf_weight().requires_grad_(True) for target in find_target_modules(model).values()]
    found = []
    for one in some:
        loss = token_mean_loss(model, collate([one], PAD))
        found.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)]))
    return torch.stack(found)


def test_the_mean_is_measured_without_bias_and_the_plain_average_is_told_from_it():
    model, some = build_tiny_model("llama"), examples(5)
    g = gradients(model, some).double()
    products = g @ g.T
    energy = products.diagonal().mean()
    row = compare_maps(model, some, examples(6, seed=1), PAD)
    assert row["squared_mean"] == pytest.approx(float((products.sum() - products.trace()) / 20 / energy), rel=1e-3)
    assert row["squared_mean_plug_in"] == pytest.approx(float(g.mean(dim=0).square().sum() / energy), rel=1e-3)


def test_plain_average_of_a_mean_of_zero():
    assert plug_in(0.0, 36) == pytest.approx(1 / 36)
    assert plug_in(1.0, 36) == pytest.approx(1.0)


def test_both_statistics_are_of_the_same_pass():
    model, some = build_tiny_model("llama"), examples(4)
    name, target = next(iter(find_target_modules(model).items()))
    g = gradients(model, some)[:, : target.d_out * target.d_in].reshape(4, target.d_out, target.d_in)
    found = measure_set(model, some, PAD)[name].statistics
    torch.testing.assert_close(found["second_moment"].rows, g.square().mean(dim=0).sum(dim=1), rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(found["variance"].rows, g.var(dim=0).sum(dim=1), rtol=1e-3, atol=1e-9)


def test_a_set_of_one_example_again_and_again_is_all_mean():
    row = compare_maps(build_tiny_model("llama"), examples(1) * 4, examples(6, seed=1), PAD)
    assert row["squared_mean"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", ["other_facts", "other_people", "other_text"])
def test_mixtures_replace_what_they_say(kind: str):
    people = world_people(TINY_WORLD)
    known = {(one.prompt, one.completion) for one in (*people.forget, *people.held_out, *people.retain)}
    known_people = {one.person for one in (*people.forget, *people.retain)}
    parts = mixture(kind, 0.5, TINY_WORLD)
    assert len(parts.forget) == len(people.forget) == 6
    assert set(parts.forget) == {*parts.kept, *parts.other}
    assert len(parts.kept) == 3
    assert set(parts.kept) < set(people.forget)
    for one in parts.other:
        assert (one.prompt, one.completion) not in known
        assert (one.person in known_people) == (kind == "other_facts")
        assert (one.person is None) == (kind == "other_text")
    assert not mixture(kind, 1.0, TINY_WORLD).kept
    assert not mixture(kind, 0.0, TINY_WORLD).other


def test_nothing_is_unlearnt_where_nothing_was_learnt():
    grid = cells(ShiftSettings(seeds=(0,)))
    tried = {(cell.kind, cell.share, cell.learnt) for cell in grid if cell.starts}
    unseen = {(kind, 0.5, False) for kind in ("other_facts", "other_people", "other_text")}
    assert tried == {("none", 0.0, True), *unseen}
    everywhere = cells(ShiftSettings(seeds=(0,), shares_unlearnt=(0.5, 1.0)))
    assert {(cell.kind, cell.share, cell.learnt) for cell in everywhere if cell.starts} == tried
    assert len({cell.sha256() for cell in grid}) == len(grid) == 1 + 3 * (1 + 4)


def table() -> pandas.DataFrame:
    """Two seeds; the more that was never seen, the larger the mean and the apart the maps; variance gains 0.02."""
    rows = []
    for seed in (0, 1):
        for kind, share, learnt in (("none", 0.0, True), ("other_text", 0.5, False), ("other_text", 1.0, False)):
            measured = {
                "kind": kind, "share": share, "learnt": learnt, "seed": seed, "examples": 36,
                "forget_loss": 0.1 + share + 0.02 * seed, "squared_mean": share / 5 + 0.002 * seed,
                "squared_mean_plug_in": plug_in(share / 5, 36), "rank_difference": share / 10 + 0.001 * seed,
                "variance_agreement": 0.5, "second_moment_agreement": 0.6,
            }  # fmt: skip
            if share == 1:
                rows.append(measured | {"start": None})
            for start, value in (("variance", 0.9), ("second_moment", 0.88)):
                if share < 1:
                    rows.append(measured | {"start": start, "balance": value, "forget_probability": 0.2, "kept": 0.95})
    return pandas.DataFrame(rows)


def test_summary_says_what_the_table_holds():
    text = summary(table())
    assert "that the target was taught: loss 0.11 [0.10, 0.12], squared mean 0.1 [0.0, 0.2] %" in text
    assert "of nothing but text never seen: loss 1.11 [1.10, 1.12], squared mean 20.1 [20.0, 20.2] %" in text
    assert "a mean of zero gives 2.8 %" in text
    assert "Over all 6 forget sets: rank correlation of the loss with the squared mean 1.00" in text
    assert "from variances minus from second moments: -0.100 [-0.100, -0.100], above 0 in 0 of 6" in text
    assert "`variance` minus `second_moment` 0.020 [0.020, 0.020], above 0 in 2 of 2." in text
    assert "Unlearning, replaced text taught: balance" in text
    assert "Unlearning, replaced text never seen: balance" in text
    assert "| general knowledge | never seen | 50% | 0.900 [0.900, 0.900] | 0.880 [0.880, 0.880] |" in text


def test_figures_of_whole_and_partial_tables():
    assert list(figures(table())) == ["squared_mean", "maps", "unlearning"]
    lines = figures(table())["maps"].axes[0].get_lines()
    assert [torch.as_tensor(line.get_xdata()).tolist() for line in lines] == [[0.0, 0.5, 1.0]]
    measured = table().drop(columns=["start", "balance", "forget_probability", "kept"])
    assert list(figures(measured)) == ["squared_mean", "maps"]
    assert "Unlearning" not in summary(measured)
