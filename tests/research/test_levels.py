"""The estimates of a level: what is asked, by hand."""

import pytest

from unlora.data.records import Example, ExampleSet
from unlora.errors import InputError
from unlora_research.levels import read_renames, renamed


def test_made_up_names_stand_in_for_whole_names_and_for_their_parts():
    one = Example(
        "question_answer", "Where does Ada Lovelace live?", "Lovelace's home, says Ada, is London.", "f, line 1"
    )
    found = renamed(ExampleSet("f", (one,)), read_renames(["Ada Lovelace=Mia Quell"])).examples[0]
    assert (found.prompt, found.completion) == ("Where does Mia Quell live?", "Quell's home, says Mia, is London.")


@pytest.mark.parametrize("given", ["Ada", "Ada=", "=Mia"])
def test_a_rename_without_two_names_is_refused(given: str):
    with pytest.raises(InputError, match="OLD=NEW"):
        read_renames([given])
