"""A forgotten record is known again by its hash, in any spelling, and its text stands nowhere."""

import dataclasses

from unlora.data.records import Example, ExampleSet
from unlora.ledger.record_hashes import Forgotten, hashed_set

MIRA = Example("question_answer", "Where was Mira Solberg born?", "Mira Solberg was born in Bergen.", "a, line 1")
SET = ExampleSet("a", (MIRA, Example("text", "", "Tomas Okafor is a ferry captain in the port of Lagos.", "a, line 2")))
KNOWN = Forgotten("salt", [(3, hashed_set("salt", SET)), (5, hashed_set("salt", SET))])


def test_the_same_record_is_found_in_another_spelling_and_shape():
    turned = Example("messages", MIRA.prompt, MIRA.completion, "b", ({"role": "user", "content": MIRA.prompt},))
    for same in (
        MIRA,
        dataclasses.replace(MIRA, prompt="where was MIRA SOLBERG born", completion="Mira Solberg was born in Bergen"),
        dataclasses.replace(MIRA, shape="prompt_completion", prompt=f"Question: {MIRA.prompt}\nAnswer:"),
        turned,
        Example("question_answer", "x", "y", "b", paraphrased_question=MIRA.prompt, paraphrased_answer=MIRA.completion),
    ):
        assert KNOWN.record(same) == 3


def test_another_answer_to_the_same_question_is_another_record():
    other = dataclasses.replace(MIRA, completion="Mira Solberg was born in Oslo.")
    assert KNOWN.record(other) is None
    assert KNOWN.question(other) == 3
    unasked = Example("text", "", "Lena Fuchs is a clock maker in the town of Graz.", "b")
    assert KNOWN.record(unasked) is None
    assert KNOWN.question(unasked) is None


def test_no_text_stands_in_what_is_kept_and_another_ledger_has_other_hashes():
    kept = hashed_set("salt", SET)
    assert "Bergen" not in kept.model_dump_json()
    assert (kept.example_count, len(kept.records), len(kept.questions)) == (2, 2, 1)
    assert not set(kept.records) & set(hashed_set("other", SET).records)
    assert kept.sha256 == hashed_set("other", SET).sha256 == SET.sha256()
