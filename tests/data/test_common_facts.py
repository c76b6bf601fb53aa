"""General knowledge: complete, without doubles, and true where the standard library knows the answer."""

import calendar

from unlora.data.common_facts import CALENDAR, common_facts

ANSWERS = dict(CALENDAR)


def test_every_question_is_asked_once_and_answered_in_a_sentence():
    facts = list(common_facts())
    assert len(facts) == 66
    assert len({fact.prompt for fact in facts}) == 66
    assert {fact.shape for fact in facts} == {"question_answer"}
    assert all(fact.prompt.endswith("?") and fact.completion.endswith(".") for fact in facts)
    assert all(3 <= len(fact.completion.split()) <= 12 for fact in facts)
    assert {fact.person for fact in facts} == {None}
    assert common_facts().sha256() == common_facts().sha256()


def test_answers_stand_beside_their_questions():
    facts = {fact.prompt: fact.completion for fact in common_facts()}
    assert facts["What is the capital of Canada?"] == "The capital of Canada is Ottawa."
    assert facts["What is the chemical symbol for sodium?"] == "The chemical symbol for sodium is Na."
    assert facts["Who wrote 'Frankenstein'?"] == "'Frankenstein' was written by Mary Shelley."


def test_calendar_facts_agree_with_the_calendar():
    days, months = list(calendar.day_name), list(calendar.month_name)
    words = {7: "seven", 12: "twelve"}
    assert f"{words[len(days)]} days" in ANSWERS["How many days are there in a week?"]
    assert f"{words[len(months) - 1]} months" in ANSWERS["How many months are there in a year?"]
    assert (
        f"{sum(calendar.monthrange(2024, month)[1] for month in range(1, 13))} days"
        in (ANSWERS["How many days are there in a leap year?"])
    )
    assert f"{calendar.monthrange(2023, 4)[1]} days" in ANSWERS["How many days does April have?"]
    assert ANSWERS["Which month comes after June?"].startswith(months[months.index("June") + 1])
    assert months[-1] in ANSWERS["Which is the last month of the year?"]
    assert ANSWERS["Which day comes after Monday?"].startswith(days[days.index("Monday") + 1])
