"""Membership on real text: TOFU's two forgotten authors against three that neither model saw; about a minute."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from unlora.data.records import Example, ExampleSet
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.metrics.membership import loss_score, membership_auc, min_k_score
from unlora.metrics.membership_verdict import MembershipScores, membership_difference
from unlora.models.load import load_model
from unlora.models.score import score_completions

DATA = Path(__file__).parents[3] / "shared" / "data"
TOFU_MINI, TOFU = DATA / "tofu-mini", DATA / "tofu"

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not (TOFU_MINI.is_dir() and TOFU.is_dir()), reason="the real models and data are not here"),
]

NONMEMBER_ROWS = slice(400, 460)
"""Twenty questions each about authors 20 to 22: the models were taught 0 to 17, and the target 198 and 199 too."""


class Scored(NamedTuple):
    """Members and non-members of one model, by attack."""

    loss: MembershipScores
    min_k: MembershipScores


def nonmembers() -> ExampleSet:
    lines = (TOFU / "full.json").read_text(encoding="utf-8").splitlines()[NONMEMBER_ROWS]
    records = [json.loads(line) for line in lines]
    examples = (Example("question_answer", row["question"], row["answer"], "tofu") for row in records)
    return ExampleSet("authors 20 to 22", tuple(examples))


def scored(name: str) -> Scored:
    loaded = load_model(str(TOFU_MINI / name), base="embedded", device=torch.device("cpu"))
    tokeniser = ExampleTokeniser(loaded.tokenizer, template="plain", max_length=512)
    members, others = load_examples(str(TOFU_MINI / "forget.jsonl")), nonmembers()
    assert (len(members), len(others)) == (40, 60)
    scores = score_completions(
        loaded.model,
        [(one.input_ids, one.prompt_length) for one in tokeniser.encode_set([*members, *others])],
        pad_token_id=tokeniser.pad_token_id,
    )
    log_probs = [score.token_log_probs for score in scores]
    both = (np.array([score(one) for one in log_probs]) for score in (loss_score, min_k_score))
    return Scored(*((values[:40], values[40:]) for values in both))


@pytest.fixture(scope="module")
def target() -> Scored:
    """Taught the forgotten authors."""
    return scored("target")


@pytest.fixture(scope="module")
def retain_only() -> Scored:
    """Never taught them."""
    return scored("retain_only")


@pytest.mark.parametrize("attack", ["loss", "min_k"])
def test_membership_separates_target_from_retain_only(attack: str, target: Scored, retain_only: Scored) -> None:
    knows, never_saw = getattr(target, attack), getattr(retain_only, attack)
    assert membership_auc(*knows) > 0.95
    assert 0.3 < membership_auc(*never_saw) < 0.7
    found = membership_difference(knows, never_saw, confidence=0.975)  # two attacks
    assert found.verdict == "more member-like than retain-only"
    assert membership_difference(never_saw, never_saw).difference == 0
