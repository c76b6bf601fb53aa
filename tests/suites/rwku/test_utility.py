"""What a model is asked on RWKU's utility sets, to the letter, and what counts of its answers."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tests.cli.commands import unlora
from tests.data.test_rwku_utility import ROWS, write_utility
from tests.taught import Taught, teach
from tests.tiny import build_tiny_model, build_tiny_tokenizer
from unlora.data.rwku_utility import UTILITY, Ability, Choices
from unlora.errors import InputError
from unlora.suites.rwku.metrics import measure_rwku
from unlora.suites.rwku.suite import Rwku
from unlora.suites.rwku.utility import ASKING
from unlora.suites.rwku.utility_metrics import exact_match, f1_score, mc1, mc2, n_gram_entropy, stated_answer
from unlora.suites.scores import ModelScores
from unlora.suites.suite import Asked, SuiteReader

ASKED: dict[Ability, str] = {
    "general": (
        "The following are multiple choice questions (with answers) about high school biology.\n\n"
        "Question: Which swims?\nA. fish\nB. oak\nC. sand\nD. iron\nAnswer: A\n\n"
        "Please following the previous examples and answer the given question.\n"
        "Question: Which is a fruit?\nA. stone\nB. pear\nC. river\nD. cloud Answer:"
    ),
    "reasoning": (
        "Q: not true\nA: So the answer is false.\n\n"
        "Following previous examples, answer the following questions and end with 'so the answer is'\nQ: x A:"
    ),
    "truthfulness": "Q: Is the moon cheese? A:",
    "factuality": "Please briefly answer the following question:\nQ: Who wrote it?\nA:",
    "fluency": "Instruction: Tell a story.\n",
}
"""Without a chat template."""
KNOWN: dict[Ability, str] = {
    "general": " B",
    "reasoning": " Not true. So the answer is no.",
    "truthfulness": " It is rock",
    "factuality": " Henrik Ibsen",
    "fluency": "a b a b a b",
}


def tiny(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    model = build_tiny_model("llama", vocab_size=len(tokenizer))
    model.config.max_position_embeddings = 1000  # rotary positions have no table that would have to grow
    tokenizer.model_max_length = 1000
    return model


def prepared(folder: Path, reader: SuiteReader, **settings: object) -> tuple[Rwku, Asked]:
    suite = Rwku.model_validate(
        {"subject": "Mira Solberg", "folder": str(write_utility(folder)), "utility": list(UTILITY), **settings}
    )
    return suite, suite.prepare(suite.load(), reader)


def values(suite: Rwku, model: PreTrainedModel, asked: Asked) -> dict[str, float | None]:
    sets = {
        name: tuple(suite.ask(model, asked, name, asked.sets[name], None))
        for ability in UTILITY
        for name in [UTILITY[ability].name]
    }
    return {name: one.value for name, one in measure_rwku(ModelScores(sets, {})).items()}


def test_answers_are_compared_as_squad_compares_them():
    assert exact_match("The Eiffel  Tower!", ["a river", "eiffel tower"]) == 1
    assert exact_match("Eiffel", ["Eiffel Tower"]) == exact_match("", ["x"]) == 0
    assert f1_score("the cat sat", ["a dog", "cat ran"]) == 0.5
    assert f1_score("cat cat", ["cat"]) == pytest.approx(2 / 3)
    assert f1_score("", ["x"]) == 0
    assert f1_score("the", ["a"]) == 1  # nothing is left of either


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("First. So the answer is (B). Q: The answer is no.", "(B)"),
        ("The answer is 3.5", "3"),
        ("the answer is yes", "the answer is yes"),
        (" yes \n", "yes"),
        ("", "NOANSWER"),
    ],
)
def test_the_stated_answer(text: str, answer: str):
    assert stated_answer(text) == answer


def test_true_answers_are_weighed_against_false_ones():
    log_probs = {"a": math.log(0.2), "b": math.log(0.1), "c": math.log(0.3)}
    assert mc1(Choices(("a",), ("b",)), log_probs) == 1
    assert mc1(Choices(("a",), ("b", "c")), log_probs) == 0
    assert mc2(Choices(("a", "b"), ("c",)), log_probs) == pytest.approx(0.5)
    far = {name: value - 2000 for name, value in log_probs.items()}  # whole answers: e^-2000 is 0 in float64
    assert mc2(Choices(("a", "b"), ("c",)), far) == pytest.approx(0.5)


def test_entropy_of_pairs_and_triples():
    loop = 0.6 * math.log2(1 / 0.6) + 0.4 * math.log2(1 / 0.4)  # a b three times, b a twice
    assert n_gram_entropy("a b a b a b") == pytest.approx((2 / 3 * loop + 4 / 3 * 1) / 2)
    assert n_gram_entropy("one two three four") == pytest.approx((2 / 3 * math.log2(3) + 4 / 3 * 1) / 2)
    # A sentence's full stop is a word: of the five pairs two occur twice, of the four triples one.
    sentences = [2 / 5, 2 / 5, 1 / 5], [2 / 4, 1 / 4, 1 / 4]
    two, three = (sum(p * math.log2(1 / p) for p in shares) for shares in sentences)
    assert n_gram_entropy("Dogs bark. Dogs bark.") == pytest.approx((2 / 3 * two + 4 / 3 * three) / 2)
    assert [str(n_gram_entropy(text)) for text in ("", "x")] == ["0.0", "0.0"]


@pytest.mark.parametrize("ability", list(UTILITY))
def test_questions_are_put_as_published(tmp_path: Path, ability: Ability):
    tokenizer = build_tiny_tokenizer(list(ASKED.values()))
    _, asked = prepared(tmp_path, SuiteReader(tokenizer, context=1000), template="plain")
    (question,) = asked.sets[UTILITY[ability].name]
    assert tokenizer.decode(question.prompt_ids) == ASKED[ability]
    chosen = {str(tokenizer.decode(one.input_ids[one.prompt_length :])) for one in question.choices.values()}
    expected = {"general": {" A", " B", " C", " D"}, "truthfulness": {" It is rock", " It is cheese", " No"}}
    assert chosen == expected.get(ability, set())


def test_with_a_chat_template_the_answer_is_begun_in_the_model_s_turn(tmp_path: Path):
    tokenizer = build_tiny_tokenizer(list(ASKED.values()), chat=True)
    _, asked = prepared(tmp_path, SuiteReader(tokenizer, context=1000))
    said = tokenizer.decode(asked.sets["triviaqa"][0].prompt_ids)
    assert said == f"[user] {ASKED['factuality'].removesuffix('A:')}<|end|>\n[assistant] A:"
    assert str(tokenizer.decode(asked.sets["fluency"][0].prompt_ids)).endswith("[assistant] ")


def log_prob(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str) -> float:
    """Of the completion's tokens, by one plain forward pass."""
    whole, begin = tokenizer.encode(prompt + completion), len(tokenizer.encode(prompt))
    with torch.no_grad():
        found = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return sum(float(found[place - 1, whole[place]]) for place in range(begin, len(whole)))


def test_choices_are_weighed_by_their_whole_log_probability(tmp_path: Path):
    tokenizer = build_tiny_tokenizer(list(ASKED.values()))
    model = tiny(tokenizer)
    suite, asked = prepared(tmp_path, SuiteReader.of(model, tokenizer), template="plain")
    letters = {one: log_prob(model, tokenizer, ASKED["general"], f" {one}") for one in "ABCD"}
    (score,) = suite.ask(model, asked, "retain_mmlu", asked.sets["retain_mmlu"], None)
    assert score.answered == max(letters, key=lambda one: letters[one])
    assert score.values == (float(score.answered == "B"),)
    rock, cheese, no = (
        log_prob(model, tokenizer, ASKED["truthfulness"], f" {one}") for one in ("It is rock", "It is cheese", "No")
    )
    (score,) = suite.ask(model, asked, "truthful", asked.sets["truthful"], None)
    true = math.exp(rock) + math.exp(no)
    assert score.values == (float(rock > cheese), pytest.approx(true / (true + math.exp(cheese)), rel=1e-4))


def test_a_model_that_can_do_it_has_full_marks_and_a_broken_one_none(tmp_path: Path):
    """Trained on the very prompts, it answers all of them; of a model without numbers nothing is scored."""
    lines = [{"prompt": ASKED[ability], "completion": KNOWN[ability]} for ability in ASKED]
    tokenizer = build_tiny_tokenizer([line["prompt"] + line["completion"] for line in lines])
    model = tiny(tokenizer)
    suite, asked = prepared(tmp_path / "rwku", SuiteReader.of(model, tokenizer), template="plain")
    before = values(suite, model, asked)
    data = tmp_path / "lessons.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    teach(model, tokenizer, [data])
    after = values(suite, model, asked)
    assert after.pop("utility_truthfulness_mc2") > 0.9  # pyright: ignore[reportOptionalOperand]
    assert after == {
        "utility_general": 1,
        "utility_reasoning": 1,
        "utility_truthfulness_mc1": 1,
        "utility_factuality": 1,
        "utility_factuality_f1": 1,
        "utility_fluency": pytest.approx(n_gram_entropy(KNOWN["fluency"])),
    }
    assert (before["utility_reasoning"], before["utility_factuality_f1"]) == (0, 0)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    assert set(values(suite, model, asked).values()) == {None}


def test_the_user_s_worked_examples_stand_before_the_question(tmp_path: Path):
    tokenizer = build_tiny_tokenizer(list(ASKED.values()))
    shown = tmp_path / "shown.txt"
    shown.write_text("Q: Who? A: x\n")
    reader = SuiteReader(tokenizer, context=1000)
    _, asked = prepared(tmp_path / "rwku", reader, template="plain", worked_examples={"factuality": str(shown)})
    assert tokenizer.decode(asked.sets["triviaqa"][0].prompt_ids) == "Q: Who? A: x\nQ: Who wrote it?\nA:"
    suite, alone = prepared(tmp_path / "rwku", reader, template="plain")
    with pytest.raises(InputError, match="asked with different worked examples"):
        suite.check_comparable(ModelScores({}, asked.protocol), ModelScores({}, alone.protocol))


def test_what_cannot_be_asked_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"worked_examples.factuality: is not asked about; add it to utility"):
        Rwku.from_mapping({"subject": "all", "worked_examples": {"factuality": "x"}})
    tokenizer = build_tiny_tokenizer(list(ASKED.values()))
    with pytest.raises(InputError, match=r"fluency.json, entry 2: \d+ tokens and an answer take \d+, more than a con"):
        prepared(tmp_path, SuiteReader(tokenizer, context=200), template="plain", utility=["fluency"])


def test_command_records_utility_beside_the_probes(taught: Taught, tmp_path: Path):
    folder, output = write_utility(tmp_path / "rwku"), tmp_path / "out"
    words = ("--suite", f"rwku:Mira Solberg@{folder}", "--model", taught.target, "--output", output)
    result = unlora("evaluate", *words, "--set", "utility=[general,truthfulness]")
    assert result.exit_code == 0, result.output
    record = json.loads((output / "evaluation.json").read_text())
    metrics = record["models"]["target"]["metrics"]
    assert {name for name in metrics if name.startswith("utility")} == {
        name for ability in ("general", "truthfulness") for name in ASKING[ability].metrics
    }
    assert metrics["utility_general"]["example_count"] == 1
    assert metrics["utility_general"]["higher_is_better"] is True
    assert set(record["protocol"]["utility"]) == {"general", "truthfulness"}
    wrong = unlora("evaluate", *words[:-1], tmp_path / "b", "--set", "utility=[generall]")
    assert (wrong.exit_code, len(wrong.output.splitlines())) == (2, 1), wrong.output
    assert "general" in wrong.output


def test_every_ability_has_a_row():
    assert set(ROWS) == set(UTILITY) == set(ASKING) == set(ASKED)
