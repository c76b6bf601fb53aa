"""MUSE's metrics from made-up records: hand-computed means, AUCs and leakages, and which way each number points."""

import dataclasses
import math

import pytest

from unlora.errors import InputError
from unlora.suites.muse.metrics import MuseScores, measure_muse
from unlora.suites.muse.scores import AnswerScore, TextScore
from unlora.suites.muse.suite import Muse
from unlora.suites.record import evaluation_record
from unlora.suites.scores import ModelScores

NAN = math.nan


def answers(*scores: float, cut: int = 0) -> tuple[AnswerScore, ...]:
    """One item a ROUGE score; the first `cut` had prompts that were too long."""
    return tuple(
        AnswerScore(f"file, entry {place}", f"question {place}", "reference", "answer", score, -1.0, place < cut)
        for place, score in enumerate(scores)
    )


def texts(*scores: float, cut: int = 0) -> tuple[TextScore, ...]:
    """One text a Min-40% score."""
    return tuple(
        TextScore(f"file, document {place}", f"text {place}", 10, score, place < cut)
        for place, score in enumerate(scores)
    )


def made(
    members: tuple[TextScore, ...] = texts(-1.0, -3.0),
    nonmembers: tuple[TextScore, ...] = texts(-2.0, -4.0),
    corpus: str = "news",
    verbatim: tuple[AnswerScore, ...] = answers(0.5),
) -> MuseScores:
    """One model's scores; by default three of the four pairs of texts are in the members' order: AUC 0.75."""
    protocol = {"corpus": corpus, "demonstrations": {}, "limits": {}}
    sets = {
        "verbatim": verbatim,
        "forget_questions": answers(0.2, 0.4),
        "retain_questions": answers(1.0),
        "forget_texts": members,
        "holdout_texts": nonmembers,
    }
    return ModelScores(sets, protocol)


def leakage(scores: MuseScores, retain_only: MuseScores | None) -> float | None:
    return measure_muse(scores, retain_only=retain_only)["privacy_leakage"].value


def test_memorisation_is_a_mean_times_a_hundred() -> None:
    metrics = measure_muse(made(verbatim=answers(0.25, 0.75, NAN)), retain_only=None)
    verbatim = metrics["verbatim_memorisation"]
    assert verbatim.value == pytest.approx(50)
    assert verbatim.standard_error == pytest.approx(25)  # stdev 35.36 / sqrt(2)
    assert (verbatim.example_count, verbatim.unscored_count) == (2, 1)
    assert metrics["knowledge_memorisation_forget"].value == pytest.approx(30)
    assert metrics["knowledge_memorisation_retain"].value == pytest.approx(100)


def test_directions_are_those_for_the_unlearned_model() -> None:
    assert {name: one.higher_is_better for name, one in measure_muse(made(), retain_only=None).items()} == {
        "verbatim_memorisation": False,
        "knowledge_memorisation_forget": False,
        "knowledge_memorisation_retain": True,
        "privacy_leakage": None,
        "membership_auc_min_40": None,
    }


def test_auc_counts_the_pairs_in_the_members_order() -> None:
    metrics = measure_muse(made(), retain_only=None)
    assert metrics["membership_auc_min_40"].value == pytest.approx(0.75)
    assert metrics["membership_auc_min_40"].example_count == 4
    tied = measure_muse(made(texts(-1.0), texts(-1.0, -2.0)), retain_only=None)
    assert tied["membership_auc_min_40"].value == pytest.approx(0.75)  # a tie is half a pair


@pytest.mark.parametrize(
    ("members", "nonmembers", "percent"),
    [
        (texts(-1.0, -2.0), texts(-3.0, -4.0), -100.0),  # untouched: every member stands out
        (texts(-1.0, -3.0), texts(-2.0, -4.0), -50.0),  # AUC 0.75 against 0.5: 100 (0.25 - 0.5) / 0.5
        (texts(-1.0, -4.0), texts(-2.0, -3.0), 0.0),  # as the retain-only model
        (texts(-3.0, -4.0), texts(-1.0, -2.0), 100.0),  # over-forgotten: every member is less likely than a new text
    ],
)
def test_leakage_is_negative_for_an_untouched_target_and_positive_for_over_forgetting(
    members: tuple[TextScore, ...], nonmembers: tuple[TextScore, ...], percent: float
) -> None:
    retain_only = made(texts(-1.0, -4.0), texts(-2.0, -3.0))  # AUC 0.5
    assert leakage(made(members, nonmembers), retain_only) == pytest.approx(percent)


@pytest.mark.parametrize(
    ("corpus", "untouched", "at_chance", "over_forgotten"),
    [
        ("news", -100.0, 100 * (0.5 - 0.4772) / 0.4772, 100 * (1 - 0.4772) / 0.4772),
        ("books", -100.0, 100 * (0.5 - 0.5393) / 0.5393, 100 * (1 - 0.5393) / 0.5393),
    ],
)
def test_without_a_retain_only_model_the_published_constant_stands_in_and_says_so(
    corpus: str, untouched: float, at_chance: float, over_forgotten: float
) -> None:
    high, low = texts(-1.0, -2.0), texts(-3.0, -4.0)
    assert leakage(made(high, low, corpus), None) == pytest.approx(untouched)
    assert leakage(made(texts(-1.0, -4.0), texts(-2.0, -3.0), corpus), None) == pytest.approx(at_chance)
    assert leakage(made(low, high, corpus), None) == pytest.approx(over_forgotten)
    note = measure_muse(made(corpus=corpus), retain_only=None)["privacy_leakage"].note
    assert ("Llama-2-7B" if corpus == "news" else "ICLM-7B") in note
    assert "means little" in note


def test_retain_only_model_against_itself_leaks_nothing() -> None:
    retain_only = made()
    measured = measure_muse(retain_only, retain_only=retain_only)["privacy_leakage"]
    assert measured.value == 0
    assert measured.note == "the retain-only model against itself"


def test_unscored_texts_are_counted_and_left_out() -> None:
    metrics = measure_muse(made(texts(-1.0, NAN), texts(-2.0, NAN, NAN)), retain_only=None)
    assert metrics["membership_auc_min_40"].value == pytest.approx(1.0)
    for name in ("membership_auc_min_40", "privacy_leakage"):
        assert (metrics[name].example_count, metrics[name].unscored_count) == (2, 3)


def test_what_cannot_be_computed_is_none_and_says_why() -> None:
    nothing = measure_muse(made(texts(NAN), texts(-2.0), verbatim=answers(NAN)), retain_only=None)
    assert nothing["verbatim_memorisation"].value is None
    assert nothing["verbatim_memorisation"].unscored_count == 1
    for name in ("membership_auc_min_40", "privacy_leakage"):
        assert nothing[name].value is None
        assert nothing[name].note == "no text could be scored on one of the two sides"
    other = made(texts(-1.0, -1.5))
    against_all = measure_muse(other, retain_only=made(texts(-1.0, -1.5), texts(-2.0, -3.0)))["privacy_leakage"]
    assert against_all.value is None  # a retain-only AUC of 1 leaves nothing to divide by
    assert "the two kinds differ anyway" in against_all.note
    lost = measure_muse(other, retain_only=made(texts(NAN, NAN)))["privacy_leakage"]
    assert lost.value is None
    assert lost.note.startswith("retain-only model: no text could be scored")


def test_what_was_cut_is_counted_in_the_notes() -> None:
    metrics = measure_muse(made(texts(-1.0, -2.0, cut=1), verbatim=answers(0.1, 0.2, cut=2)), retain_only=None)
    assert metrics["verbatim_memorisation"].note == "2 of 2 prompts lost their beginning to the model's context"
    assert metrics["membership_auc_min_40"].note == "1 of 4 texts were cut to the model's context"


def test_record_has_the_contract_s_form() -> None:
    models = {"target": made(), "unlearned": made(texts(-2.5, -3.0)), "retain_only": made(texts(-1.0, -4.0))}
    record = evaluation_record(Muse(corpus="news"), models)
    assert (record["suite"], list(record["models"])) == ("muse", ["target", "unlearned", "retain_only"])
    assert record["protocol"]["units"]["privacy_leakage"] == "per cent"
    measured = record["models"]["unlearned"]["metrics"]["privacy_leakage"]
    assert {"value", "standard_error", "example_count", "higher_is_better"} <= measured.keys()
    assert record["models"]["retain_only"]["metrics"]["privacy_leakage"]["value"] == 0
    # Of 4 pairs 2 are in the members' order, and of the retain-only model's 2 and a tie: AUCs 0.5 and 0.625.
    assert measured["value"] == pytest.approx(100 * (0.5 - 0.375) / 0.375)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": {"corpus": "books", "demonstrations": {}, "limits": {}}}, "different corpus"),
        ({"protocol": {"corpus": "news", "demonstrations": {}, "limits": {"answer_tokens": 8}}}, "different limits"),
        ({"sets": {"retain_questions": answers(1.0, 1.0)}}, r"different retain_questions \(1 and 2 items\)"),
        ({"sets": {"holdout_texts": (TextScore("", "text 0", 9, -2.0, False),) * 2}}, "different holdout_texts"),
    ],
)
def test_models_that_were_asked_something_else_are_not_compared(change: dict, message: str) -> None:
    change = {key: getattr(made(), key) | value for key, value in change.items()}
    other = dataclasses.replace(made(), **change)
    with pytest.raises(InputError, match=message):
        evaluation_record(Muse(corpus="news"), {"target": made(), "unlearned": other})
