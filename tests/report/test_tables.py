import math
from typing import Any

import pytest

from tests.report.made_run import answer, made_evaluation, measured
from unlora.report.tables import answers_of_set, loss_sentence, metric_table, number_text, result_sentence


def test_result_is_said_in_plain_words():
    assert result_sentence(made_evaluation()) == (
        "Answer probability on the forget set fell from 0.985 to 0.115; a model that never saw it has 0.094. "
        "On the retain set it fell from 0.987 to 0.947."
    )


def test_result_without_retain_only_model_says_nothing_about_it():
    evaluation = made_evaluation()
    del evaluation["models"]["retain_only"]
    sentence = result_sentence(evaluation)
    assert sentence is not None
    assert "never saw" not in sentence


def test_result_that_went_the_wrong_way_is_said_too():
    evaluation = made_evaluation()
    evaluation["models"]["unlearned"]["metrics"]["forget_probability"]["value"] = 0.99
    evaluation["models"]["unlearned"]["metrics"]["retain_probability"]["value"] = 0.9871
    sentence = result_sentence(evaluation)
    assert sentence is not None
    assert "rose from 0.985 to 0.990" in sentence
    assert "On the retain set it stayed at 0.987." in sentence


def test_result_needs_a_before_and_an_after():
    evaluation = made_evaluation()
    del evaluation["models"]["unlearned"]
    assert result_sentence(evaluation) is None


def test_metrics_are_grouped_and_missing_ones_give_their_reason():
    metrics = metric_table(made_evaluation())
    assert metrics.models == ("target", "unlearned", "retain-only")
    assert [(heading, [row.name for row in rows]) for heading, rows in metrics.groups] == [
        ("Forget set", ["forget_probability"]),
        ("Retain set", ["retain_probability"]),
    ]
    assert [row.direction for _, (row,) in metrics.groups] == ["lower", "higher"]
    assert [(row.label, row.direction) for row in metrics.variants] == [("Truth ratio, arithmetic", "as retain-only")]
    assert metrics.missing == (("needs real_authors", ("model_utility",)),)
    (row,) = metrics.groups[0][1]
    assert [(cell.text, cell.standard_error) for cell in row.cells] == [
        ("0.985", "± 0.012"),
        ("0.115", "± 0.012"),
        ("0.094", "± 0.012"),
    ]


def test_variants_say_which_aggregation_they_are():
    names = ("retain_truth_ratio_prob_mean", "forget_quality_arithmetic", "forget_quality_arithmetic_log10")
    evaluation = {"models": {"target": {"metrics": {name: measured(0.5) for name in names}}}}
    metrics = metric_table(evaluation)
    assert metrics.groups == ()
    assert [row.label for row in metrics.variants] == [
        "Truth ratio, share",
        "Forget quality, arithmetic",
        "Forget quality, log10, arithmetic",
    ]
    assert all(row.meaning for row in metrics.variants)


def test_value_missing_in_one_model_keeps_the_row_and_the_reason():
    evaluation = made_evaluation()
    lost = measured(None, standard_error=None, unscored_count=3, note="no example could be scored")
    evaluation["models"]["unlearned"]["metrics"]["forget_probability"] = lost
    cell = metric_table(evaluation).groups[0][1][0].cells[1]
    assert (cell.text, cell.standard_error) == ("–", "")
    assert cell.notes == ("no example could be scored", "3 not scored")


def test_metric_of_another_suite_is_shown_under_its_own_name():
    evaluation = {"models": {"target": {"metrics": {"verbatim_memorisation": measured(0.5)}}}}
    ((heading, (row,)),) = metric_table(evaluation).groups
    assert (heading, row.label) == ("Other", "verbatim memorisation")


@pytest.mark.parametrize(("value", "text"), [(0.0, "0.000"), (0.9876, "0.988"), (2e-21, "2.0e-21"), (-2.17, "-2.170")])
def test_small_numbers_do_not_become_zero(value: float, text: str):
    assert number_text(value) == text


def probabilities(values: list[float], set_name: str = "retain") -> list[dict[str, Any]]:
    asked = [answer(number, set_name, recall=None) for number in range(len(values))]
    return [{**one, "mean_log_prob": math.log(value)} for one, value in zip(asked, values, strict=True)]


def test_few_questions_that_carry_the_loss_are_counted():
    before = probabilities([0.9] * 20)
    after = probabilities([0.9] * 10 + [0.1] + [0.8] * 4 + [0.3] + [0.95] * 4)  # lost: 0.8, four times 0.1, 0.6
    assert loss_sentence({"target": before, "unlearned": after}) == (
        "Of what it lost there 2 of 20 questions carry 78%; the worst fell from 0.900 to 0.100."
    )
    assert loss_sentence({"target": before[4:16], "unlearned": after}) == (
        "Of what it lost there one of 12 carries 44%; the worst fell from 0.900 to 0.100."
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([0.9] * 9, [0.1] * 9),  # too few to speak of a tenth
        ([0.9] * 20, [0.9] * 20),
        ([0.5] * 20, [0.9] * 20),
        ([0.9] * 20, []),
    ],
)
def test_where_nothing_is_lost_nothing_is_said_of_it(before: list[float], after: list[float]):
    assert loss_sentence({"target": probabilities(before), "unlearned": probabilities(after)}) is None


def test_only_the_retain_set_is_asked_what_it_lost():
    sets = [probabilities(values, "forget") for values in ([0.9] * 20, [0.1] * 20)]
    assert loss_sentence({"target": sets[0], "unlearned": sets[1]}) is None
    unscored = [{**one, "mean_log_prob": None} for one in probabilities([0.9] * 20)]
    assert loss_sentence({"target": unscored, "unlearned": unscored}) is None


def test_answers_run_evenly_from_worst_to_best():
    unlearned = [answer(number, "forget", recall=number / 10) for number in (3, 0, 8, 5, 1, 7, 2, 6, 4)]
    answers = {"target": [{**one, "generated": "In Bergen."} for one in unlearned], "unlearned": unlearned}
    chosen = answers_of_set(answers, "forget", count=3)
    assert [one.overlap for one in chosen] == ["0.80", "0.40", "0.00"]  # worst: still said
    assert [(one.truth, one.before, one.after) for one in chosen] == [("In Bergen.", "In Bergen.", "In Oslo.")] * 3
    kept = {role: [{**one, "set": "retain"} for one in ones] for role, ones in answers.items()}
    assert [one.overlap for one in answers_of_set(kept, "retain", count=3)] == ["0.00", "0.40", "0.80"]


def test_plain_text_without_questions_gives_no_answers():
    plain = [answer(0, "forget", recall=None, generated=None)]
    assert answers_of_set({"target": plain, "unlearned": plain}, "forget") == []


def test_answer_without_end_is_cut_and_an_empty_one_is_named():
    asked = [
        answer(0, "forget", recall=0.2, generated="word " * 400),
        answer(1, "forget", recall=0.1, generated=" \n"),
    ]
    long, empty = answers_of_set({"target": asked, "unlearned": asked}, "forget")
    assert long.after.endswith("… (1999 characters in all)")
    assert len(long.after) < 400
    assert empty.after == "(nothing)"


def test_retain_only_answers_stand_beside_where_they_are():
    asked = [answer(0, "forget", recall=0.2)]
    without = answers_of_set({"target": asked, "unlearned": asked}, "forget")
    with_them = answers_of_set({"target": asked, "unlearned": asked, "retain_only": asked}, "forget")
    assert [one.retain_only for one in (*without, *with_them)] == [None, "In Oslo."]
