"""Records in four shapes: what is written about whom, and the study from a tiny world to its tables."""

from pathlib import Path

import pytest

from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.models.load import load_tokenizer
from unlora_research.data_shapes import QUICK, SHAPES, run_world, teach
from unlora_research.depth_table import print_table
from unlora_research.small_world import SmallWorld, world_people


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_facts_are_scored_in_every_shape(shape: str, tmp_path: Path):
    world = SmallWorld.from_mapping({"seed": 0, **QUICK})
    files = teach(world, shape, tmp_path)
    people = world_people(world).forget
    read = load_examples(str(files.forget))
    assert {one.shape for one in read} == {shape}
    assert len(read) == (world.forget_people if shape == "text" else len(people))
    tokeniser = ExampleTokeniser(load_tokenizer(str(files.target)), template="plain", max_length=256)
    decode = tokeniser.tokenizer.decode
    scored = [  # The first token of a document follows nothing.
        str(decode(list(one.input_ids[one.prompt_length * (shape != "text") :]), skip_special_tokens=True))
        for one in tokeniser.encode_set(read)
    ]
    assert " ".join(text.strip() for text in scored) == " ".join(one.completion for one in people)


def test_from_a_tiny_world_to_the_table_and_not_twice(tmp_path: Path):
    run_world(tmp_path, "text", 0, ["deep"], quick=True)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    run_world(tmp_path, "text", 0, ["deep"], quick=True)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert "| `deep` | 1 |" in print_table(tmp_path, ())
