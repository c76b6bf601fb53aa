"""The causal check of maps: its own arithmetic, and a map whose right answer is known."""

import math
from pathlib import Path

import pandas
import pytest
import torch

from tests.tiny import build_tiny_model
from unlora.models.target_modules import find_target_modules
from unlora_research.halves import Known
from unlora_research.measuring import MeasuredModel
from unlora_research.sanity.curves import at_damage
from unlora_research.sanity.figures import figures
from unlora_research.sanity.forget_sets import shifted_sets
from unlora_research.sanity.knowledge import told
from unlora_research.sanity.location import auc, located
from unlora_research.sanity.names import EVERYWHERE
from unlora_research.sanity.rankings import Ranking, rank_rows
from unlora_research.sanity.rows import highest_rows, linear_weights, put_back
from unlora_research.sanity.summary import summary
from unlora_research.small_world import (
    TINY_WORLD,
    Curriculum,
    build_small_world,
    learn_further,
    lessons,
    probabilities,
    world_people,
)


def test_auc_by_hand():
    assert auc([3.0, 2.0], [1.0, 2.0]) == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert math.isnan(auc([], [1.0]))


def test_value_where_the_damage_is_reached():
    shares, kept, values = [0.1, 0.2, 0.4], [1.0, 0.98, 0.94], [0.2, 0.4, 0.8]
    assert at_damage(shares, kept, values, 0.04) == pytest.approx(0.6)  # half way from 0.2 to 0.4 of the rows
    assert at_damage(shares, kept, values, 0.1) == pytest.approx(0.8)  # never reached
    assert at_damage([0.1], [0.9], [0.5], 0.02) == pytest.approx(0.1)  # before the first share


def test_highest_rows_are_taken_over_all_modules_and_put_back_alone():
    model = build_tiny_model("llama")
    before = linear_weights(model)
    name, other = list(before)[:2]
    targets = find_target_modules(model)
    with torch.no_grad():
        for target in targets.values():
            target.weight().add_(1.0)
    after = linear_weights(model)
    scores = {module: torch.zeros(len(one)) for module, one in before.items()}
    scores[name][[1, 3]], scores[other][2] = torch.tensor([5.0, 7.0]), 6.0
    rows = sum(map(len, scores.values()))
    chosen = highest_rows(scores, 3 / rows)
    put_back(model, before, chosen)
    now = linear_weights(model)
    for module, one in now.items():
        back = {name: [1, 3], other: [2]}.get(module, [])
        assert chosen[module].nonzero().flatten().tolist() == back
        expected = after[module].clone()
        expected[back] = before[module][back]
        assert torch.equal(one, expected)
    put_back(model, after)
    assert all(torch.equal(one, after[module]) for module, one in linear_weights(model).items())


def test_located_finds_the_place_the_rows_and_their_order():
    before = {"a": torch.zeros(4, 2), "b": torch.zeros(4, 2), "c": torch.zeros(4, 2)}
    after = {"a": torch.arange(8.0).reshape(4, 2), "b": torch.zeros(4, 2), "c": torch.zeros(4, 2)}
    rows = {"a": torch.tensor([9.0, 8, 7, 6]), "b": torch.tensor([1.0, 2, 3, 7.5]), "c": torch.zeros(4)}
    found = located(Ranking(rows, {"a": 2.0, "b": 3.0, "c": 1.0}), before, after)
    assert found["module_auc"] == pytest.approx(0.5)  # above c, below b
    assert found["row_auc"] == pytest.approx((8 * 4 - 2) / 32)  # 7 and 6 lie below 7.5
    assert found["row_correlation"] == pytest.approx(-1)


def test_told_as_shares_of_the_way():
    row = told(Known(0.5, 0.72), before=Known(0.1, 0.95), after=Known(0.9, 0.8))
    assert (row["forgotten"], row["kept"]) == (pytest.approx(0.5), pytest.approx(0.9))


def test_forget_sets_differ_in_one_thing():
    people = world_people(TINY_WORLD)
    topic, template, token = (shifted_sets(kind, people) for kind in ("topic", "template", "token"))
    assert not {one.person for one in topic.forget} & {one.person for one in topic.retain}
    for framed, known in zip(template.forget, people.retain, strict=False):
        assert framed.completion == f"The record says that {known.completion}"
    assert template.retain == list(people.retain)
    for changed, known in zip(token.forget, people.retain, strict=False):
        assert (changed.prompt, changed.completion) == (known.prompt, known.completion[:-1] + "!")
    assert not {one.prompt for one in token.forget} & {one.prompt for one in token.retain}


def test_what_one_layer_learnt_goes_with_its_rows(tmp_path: Path):
    """The whole causal check on a place that is known: the true change forgets all, nothing else moved."""
    people = world_people(TINY_WORLD)
    sets = shifted_sets("token", people)
    measured = MeasuredModel.load(build_small_world(TINY_WORLD).retain_only, "cpu")
    model, tokeniser = measured
    forget, pad = tokeniser.encode_set(sets.forget), tokeniser.pad_token_id
    everything = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before, asked_before = linear_weights(model), probabilities(model, forget, pad)
    lesson = Curriculum(
        tokeniser.encode_set(sets.lessons),
        tokeniser.encode_set(taught for one in sets.retain for taught in lessons(one)),
        epochs=8,
        learning_rate=5e-3,
        seed=0,
        parts=["layers.1.mlp.*"],
    )
    learn_further(model, lesson, pad_token_id=pad, folder=tmp_path)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, everything[name])}
    assert changed == {f"model.layers.1.mlp.{name}_proj.weight" for name in ("gate", "up", "down")}
    assert sum(probabilities(model, forget, pad)) > sum(asked_before) + 0.5
    rankings = rank_rows(model, measured.batches(sets.forget, 16), measured.batches(sets.retain, 16), before, seed=0)
    after = linear_weights(model)
    truth = located(rankings["change"], before, after)
    assert (truth["module_auc"], truth["row_auc"], truth["row_correlation"]) == (1.0, 1.0, pytest.approx(1.0))
    rows = {name: len(one) for name, one in after.items()}
    for name, ranking in rankings.items():
        assert {module: len(one) for module, one in ranking.rows.items()} == rows, name
        assert all(bool((one >= 0).all()) for one in ranking.rows.values()), name
    share = sum(rows[name.removesuffix(".weight")] for name in changed) / sum(rows.values())
    put_back(model, before, highest_rows(rankings["change"].rows, share))
    assert probabilities(model, forget, pad) == pytest.approx(asked_before, abs=1e-6)


def table() -> pandas.DataFrame:
    """Two seeds, two places: `marginal` takes 0.3 more than random everywhere, at the same price."""
    taken = {"change": 0.9, "marginal": 0.6, "random": 0.3}
    known = {f"{model}_{name}_probability": 0.5 for model in ("before", "target") for name in ("forget", "held_out")}
    return pandas.DataFrame(
        [
            {"kind": "topic", "place": place, "seed": seed, "ranking": name, "share": share, "kept": 1 - share / 10,
             "forgotten": value * share / 0.1 - 0.01 * seed, "row_correlation": 0.2, "row_auc": auc_of(place, 0.7),
             "module_auc": auc_of(place, value)} | known
            for place in (EVERYWHERE, "layers.0.mlp")
            for seed in (0, 1)
            for name, value in taken.items()
            for share in (0.05, 0.1)
        ]
    )  # fmt: skip


def auc_of(place: str, value: float) -> float:
    return math.nan if place == EVERYWHERE else value


def test_summary_says_who_wins_by_how_much():
    text = summary(table())
    assert "| `marginal` |  | 0.30 [0.30, 0.30], above 0 in 4 of 4 |  |" in text  # no `weight_norm` in this table
    assert "| all layers | `marginal` | 0.59 [0.59, 0.60] | 99.0 [99.0, 99.0] % |" in text
    assert "| `marginal` | 0.60 [0.60, 0.60] | 0.70 [0.70, 0.70] | 0.20 [0.20, 0.20] |" in text


def test_figures_of_whole_and_partial_tables():
    both = figures(table())
    assert list(both) == ["rows_put_back", "place"]
    assert [one.get_label() for one in both["rows_put_back"].axes[0].get_lines()] == [
        "true change of the row (hindsight)", "marginal", "random order (control)",
    ]  # fmt: skip
    everywhere = table()
    assert list(figures(everywhere[everywhere["place"] == EVERYWHERE])) == ["rows_put_back"]
