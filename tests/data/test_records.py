import dataclasses

from unlora.data.records import Example, ExampleSet


def test_content_hash_ignores_source_and_paraphrases(born: Example) -> None:
    """The hash says what a model is trained on, whichever file it came from."""
    same = dataclasses.replace(born, source="elsewhere, line 9", paraphrased_answer="In Cusco.", person=None)
    assert same.content_sha256() == born.content_sha256()
    other = dataclasses.replace(born, completion="Kamila was born in Porto.")
    assert other.content_sha256() != born.content_sha256()


def test_content_hash_tells_shapes_apart() -> None:
    question = Example("question_answer", "a", "b", "")
    prompt = Example("prompt_completion", "a", "b", "")
    assert question.content_sha256() != prompt.content_sha256()


def test_set_hash_depends_on_order_but_not_on_name(born: Example) -> None:
    other = dataclasses.replace(born, completion="no")
    assert ExampleSet("x", (born, other)).sha256() == ExampleSet("y", (born, other)).sha256()
    assert ExampleSet("x", (born, other)).sha256() != ExampleSet("x", (other, born)).sha256()


def test_select_returns_the_first_examples(born: Example) -> None:
    other = dataclasses.replace(born, completion="no")
    examples = ExampleSet("x", (born, other))
    assert list(examples.select(1)) == [born]
    assert len(examples.select(9)) == 2
