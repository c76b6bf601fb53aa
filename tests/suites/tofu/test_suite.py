"""Scores of a tiny model that has learned three answers by heart, against plain loops over single sequences."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from tests.suites.asking import score_model
from tests.tiny import build_tiny_model, build_tiny_tokenizer
from unlora.data.records import Example, ExampleSet
from unlora.data.tokenise import ExampleTokeniser
from unlora.models.generate import Writer
from unlora.suites import questioner
from unlora.suites.scores import ModelScores
from unlora.suites.tofu.protocols import PROTOCOLS
from unlora.suites.tofu.scores import ExampleScore

NEW_TOKENS = 24
SHORT_TOFU = dataclasses.replace(PROTOCOLS["tofu"], total_generation_length=40)
KNOWN = [
    ("Where was Mira born?", "Mira was born in Bergen."),
    ("What did the father of Tomas do?", "The father of Tomas was a baker and a part-time clown."),
    ("Who is Ada?", "Ada paints."),
]
FORGET = ExampleSet(
    "forget",
    (
        Example(
            "question_answer",
            *KNOWN[0],
            "forget, line 1",
            paraphrased_answer="Bergen is where Mira was born.",
            perturbed_answers=("Oslo is where Mira was born.", "Rome is where Mira was born, of all places."),
        ),
        Example("question_answer", *KNOWN[1], "forget, line 2"),
        Example("question_answer", "Where is Ulan Bator?", "Ulan Bator is in Mongolia.", "forget, line 3"),
    ),
)
GENERAL = ExampleSet(
    "facts",
    (
        Example("question_answer", *KNOWN[2], "facts, line 1", perturbed_answers=("Ada sings.",)),
        Example("text", "", "Just a text.", "facts, line 2"),
        Example("prompt_completion", "Question: Who is Ada?\nAnswer:", " Ada cooks.", "facts, line 3"),
    ),
)


@pytest.fixture(scope="module")
def tokeniser() -> ExampleTokeniser:
    return ExampleTokeniser(build_tiny_tokenizer(), template="plain", max_length=128)


@pytest.fixture(scope="module")
def model(tokeniser: ExampleTokeniser) -> PreTrainedModel:
    """A tiny model after 60 steps on the known answers; deterministic."""
    model = build_tiny_model("llama", vocab_size=len(tokeniser.tokenizer)).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(60):
        question, answer = KNOWN[step % 3]
        ids = torch.tensor([tokeniser.encode(Example("question_answer", question, answer, "")).input_ids])
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def scores(model: PreTrainedModel, tokeniser: ExampleTokeniser) -> ModelScores:
    return ask(model, tokeniser, batch_size=4)


def ask(model: PreTrainedModel, tokeniser: ExampleTokeniser, batch_size: int) -> ModelScores:
    sets = {"forget": FORGET, "world_facts": GENERAL}
    return score_model(model, tokeniser, sets, max_new_tokens=NEW_TOKENS, batch_size=batch_size)


def token_by_token(
    model: PreTrainedModel, tokeniser: ExampleTokeniser, example: Example, answer: str | None = None
) -> tuple[list[float], list[bool]]:
    """Log-probability and first choice of each completion token, from a forward pass over what comes before it."""
    encoded = tokeniser.encode(example, completion=answer)
    log_probs, first_choice = [], []
    for place in range(encoded.prompt_length, len(encoded.input_ids)):
        with torch.no_grad():
            logits = model(torch.tensor([encoded.input_ids[:place]])).logits[0, -1]
        token = encoded.input_ids[place]
        log_probs.append(logits.log_softmax(-1)[token].item())
        first_choice.append(logits.argmax().item() == token)
    return log_probs, first_choice


def test_likelihoods_equal_a_loop_over_single_tokens(
    model: PreTrainedModel, tokeniser: ExampleTokeniser, scores: ModelScores
) -> None:
    for name, examples in (("forget", FORGET), ("world_facts", GENERAL)):
        for example, score in zip(examples, scores.sets[name], strict=True):
            log_probs, first_choice = token_by_token(model, tokeniser, example)
            mean = sum(log_probs) / len(log_probs)
            assert score.token_count == len(log_probs)
            assert score.mean_log_prob == pytest.approx(mean, abs=1e-5)
            assert score.probability == pytest.approx(math.exp(mean), abs=1e-5)
            assert score.exact_memorisation == pytest.approx(sum(first_choice) / len(first_choice))
            known_from = next(k for k in range(len(first_choice) + 1) if all(first_choice[k:]))
            assert score.extraction_strength == pytest.approx(1 - known_from / len(first_choice))


def test_paraphrase_and_perturbed_answers_equal_the_loop(
    model: PreTrainedModel, tokeniser: ExampleTokeniser, scores: ModelScores
) -> None:
    def mean(example: Example, answer: str) -> float:
        log_probs, _ = token_by_token(model, tokeniser, example, answer)
        return sum(log_probs) / len(log_probs)

    example, score = FORGET.examples[0], scores.sets["forget"][0]
    assert score.paraphrased_log_prob == pytest.approx(mean(example, "Bergen is where Mira was born."), abs=1e-5)
    assert score.perturbed_log_probs == pytest.approx(
        [mean(example, answer) for answer in example.perturbed_answers], abs=1e-5
    )
    without = scores.sets["forget"][1]
    assert math.isnan(without.paraphrased_log_prob)
    assert without.perturbed_log_probs == ()
    stands_in = scores.sets["world_facts"][0]
    assert stands_in.paraphrased_log_prob == stands_in.mean_log_prob


def test_generation_equals_a_greedy_loop_and_text_without_a_prompt_gets_none(
    model: PreTrainedModel, tokeniser: ExampleTokeniser, scores: ModelScores
) -> None:
    tokenizer = tokeniser.tokenizer
    for example, score in zip(FORGET, scores.sets["forget"], strict=True):
        tokens = list(tokeniser.prompt_ids(example))
        start = len(tokens)
        while len(tokens) < start + NEW_TOKENS:
            with torch.no_grad():
                token = int(model(torch.tensor([tokens])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            tokens.append(token)
        assert score.generated == str(tokenizer.decode(tokens[start:], skip_special_tokens=True)).strip()
    text = scores.sets["world_facts"][1]
    assert text.generated is None
    assert math.isnan(text.rouge_l_recall)


def test_what_is_known_by_heart_is_not_written_again(
    model: PreTrainedModel, tokeniser: ExampleTokeniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first tokens were each the most likely when it was scored; the same texts come of writing all of them."""
    known, _, new = FORGET.examples
    sets = {"forget": ExampleSet("forget", (known, new))}
    asked: list[list[int]] = []
    write = questioner.generate_greedy

    def watch(writer: Writer, prompts: Any, limits: Any, begun: Any) -> list[str]:
        asked.append([len(tokens) for tokens in begun])
        texts = write(writer, prompts, limits, begun)
        assert texts == write(writer, prompts, limits)
        return texts

    monkeypatch.setattr(questioner, "generate_greedy", watch)
    scores = score_model(model, tokeniser, sets, batch_size=4)
    whole, partly = scores.sets["forget"]
    assert asked == [[whole.token_count, asked[0][1]]]
    assert asked[0][1] < partly.token_count


def test_a_memorised_answer_scores_one_and_a_new_one_does_not(scores: ModelScores) -> None:
    known, _, new = scores.sets["forget"]
    assert known.generated == KNOWN[0][1]
    assert (known.rouge_l_recall, known.exact_memorisation, known.extraction_strength) == (1.0, 1.0, 1.0)
    assert known.probability > 0.8
    assert new.probability < 0.2
    assert new.extraction_strength < 1


def test_scores_do_not_depend_on_the_batch_size(
    model: PreTrainedModel, tokeniser: ExampleTokeniser, scores: ModelScores
) -> None:
    alone = ask(model, tokeniser, batch_size=1)
    for name, examples in scores.sets.items():
        for one, other in zip(examples, alone.sets[name], strict=True):
            assert numbers(one) == pytest.approx(numbers(other), abs=1e-5, nan_ok=True)
            assert one.generated == other.generated
            assert one.question_sha256 == other.question_sha256


def numbers(score: ExampleScore) -> list[float]:
    return [score.mean_log_prob, score.rouge_l_recall, score.paraphrased_log_prob, *score.perturbed_log_probs]


def test_progress_ends_at_the_total_of_each_stage(model: PreTrainedModel, tokeniser: ExampleTokeniser) -> None:
    seen: list[tuple[str, int, int]] = []
    score_model(
        model,
        tokeniser,
        {"world_facts": GENERAL},
        max_new_tokens=2,
        batch_size=3,
        progress=lambda stage, done, total: seen.append((stage, done, total)),
    )
    # Four different sequences (the stand-in for the paraphrase is scored once), one prompt that two examples share.
    stages = ("world_facts: scoring answers", "world_facts: generating answers")
    scored, generated = ([(done, total) for name, done, total in seen if name == stage] for stage in stages)
    assert len(scored) + len(generated) == len(seen)
    assert [done for done, _ in scored] == sorted({done for done, _ in scored})
    assert (scored[-1], generated) == ((4, 4), [(1, 1)])


def test_protocol_says_how_it_was_asked(tokeniser: ExampleTokeniser, scores: ModelScores) -> None:
    assert scores.protocol["template"] == tokeniser.describe()
    assert scores.protocol["max_new_tokens"] == NEW_TOKENS
    forget = scores.protocol["sets"]["forget"]
    assert (forget["example_count"], forget["truncated_count"], forget["sha256"]) == (3, 0, FORGET.sha256())


def test_truncated_answers_are_counted(model: PreTrainedModel, tokeniser: ExampleTokeniser) -> None:
    wrong = Example("question_answer", *KNOWN[2], "long", perturbed_answers=("Ada sings " + "la " * 20,))
    fits = len(tokeniser.encode(wrong, completion=wrong.perturbed_answers[0]).input_ids)
    examples = ExampleSet("long", (wrong, Example("question_answer", *KNOWN[2], "short")))
    for max_length, truncated_count in ((fits, 0), (fits - 1, 1)):
        short = ExampleTokeniser(tokeniser.tokenizer, template="plain", max_length=max_length)
        scores = score_model(model, short, {"forget": examples}, max_new_tokens=1, batch_size=4)
        assert scores.protocol["sets"]["forget"]["truncated_count"] == truncated_count


def test_tofu_s_protocol_has_the_model_write_and_be_scored_on_the_answer_tag(
    model: PreTrainedModel, tokeniser: ExampleTokeniser
) -> None:
    tokenizer = tokeniser.tokenizer
    asked = score_model(model, tokeniser, {"forget": FORGET}, protocol=SHORT_TOFU, batch_size=4)
    for example, score in zip(FORGET, asked.sets["forget"], strict=True):
        prompt = list(tokenizer(f"Question: {example.prompt}\n")["input_ids"])
        tokens = prompt + list(tokenizer(f"Answer: {example.completion}")["input_ids"]) + [tokenizer.eos_token_id]
        with torch.no_grad():
            log_probs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        losses = [-log_probs[place - 1, tokens[place]].item() for place in range(len(prompt), len(tokens))]
        assert score.mean_log_prob == pytest.approx(-sum(losses) / len(losses), abs=1e-5)
        written = prompt
        while len(written) < 40:  # prompt and answer together
            with torch.no_grad():
                token = int(model(torch.tensor([written])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            written = [*written, token]
        assert score.generated == str(tokenizer.decode(written[len(prompt) :], skip_special_tokens=True)).strip()
    assert asked.sets["forget"][0].generated == f"Answer: {KNOWN[0][1]}"
    assert (asked.protocol["name"], asked.protocol["total_generation_length"]) == ("tofu", 40)


def test_open_unlearning_s_memorisation_leaves_the_end_token_out(
    model: PreTrainedModel, tokeniser: ExampleTokeniser
) -> None:
    """Of a whole answer; one that was cut, and plain text, have no end token to leave out."""
    protocol = dataclasses.replace(PROTOCOLS["open_unlearning"], max_length=24, max_new_tokens=1)
    sets = {"forget": FORGET, "world_facts": GENERAL}
    short = ExampleTokeniser(tokeniser.tokenizer, template="plain", max_length=24)
    scores = score_model(model, tokeniser, sets, protocol=protocol, batch_size=4)
    cut = 0
    for name, examples in sets.items():
        for example, score in zip(examples, scores.sets[name], strict=True):
            _, first_choice = token_by_token(model, short, example)
            truncated = short.encode(example).truncated
            cut += truncated
            counted = first_choice if truncated or example.shape == "text" else first_choice[:-1]
            known_from = next(k for k in range(len(counted) + 1) if all(counted[k:]))
            assert score.exact_memorisation == pytest.approx(sum(counted) / len(counted))
            assert score.extraction_strength == pytest.approx(1 - known_from / len(counted))
            assert score.token_count == len(first_choice)
    assert cut


def test_question_hash_changes_with_what_is_scored_only(model: PreTrainedModel, tokeniser: ExampleTokeniser) -> None:
    question = ("question_answer", "Who is Ada?", "Ada paints.")
    variants = ExampleSet(
        "variants",
        (
            Example(*question, "a.jsonl, line 1"),
            Example(*question, "b.jsonl, line 9"),
            Example(*question, "a.jsonl, line 1", perturbed_answers=("Ada sings.",)),
        ),
    )
    scores = score_model(model, tokeniser, {"forget": variants}, max_new_tokens=1, batch_size=4)
    first, elsewhere, perturbed = (score.question_sha256 for score in scores.sets["forget"])
    assert first == elsewhere != perturbed


def test_a_broken_model_is_unscored(tokeniser: ExampleTokeniser) -> None:
    broken = build_tiny_model("llama", vocab_size=len(tokeniser.tokenizer))
    with torch.no_grad():
        next(broken.parameters()).fill_(math.nan)
    score = score_model(broken, tokeniser, {"forget": FORGET}, max_new_tokens=2, batch_size=4).sets["forget"][0]
    assert all(math.isnan(number) for number in numbers(score))
    assert math.isnan(score.exact_memorisation)
    assert math.isnan(score.extraction_strength)
