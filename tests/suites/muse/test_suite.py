"""What a model is asked on MUSE, to the letter, and its scores against plain loops over single sequences."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.data.conftest import build_tokenizer
from tests.muse_files import FORGET_TEXTS, HOLDOUT_TEXTS, learn_texts, write_muse
from tests.suites.asking import score_muse
from tests.tiny import build_tiny_model, build_tiny_tokenizer
from unlora.data.muse import MuseData, load_muse_data
from unlora.data.records import Example, ExampleSet
from unlora.errors import InputError
from unlora.suites import questioner
from unlora.suites.muse.ask import cut_answer, few_shot_prefix, question_prompt
from unlora.suites.muse.metrics import MuseScores, measure_muse

FORGET_PROMPT = (
    "Question: Who is Anders?\nAnswer: a baker\n\n"
    "Question: How many clocks?\nAnswer: forty\n\n"
    "Question: Where did the ferry sink?\nAnswer: "
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MuseData:
    return load_muse_data("news", write_muse(tmp_path_factory.mktemp("muse")))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tiny_tokenizer((*FORGET_TEXTS, *HOLDOUT_TEXTS))


@pytest.fixture(scope="module")
def untaught(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Never saw a text: the retain-only model."""
    return build_tiny_model("llama", vocab_size=len(tokenizer))


@pytest.fixture(scope="module")
def target(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Knows the forget texts by heart."""
    model = build_tiny_model("llama", vocab_size=len(tokenizer))
    learn_texts(model, tokenizer, FORGET_TEXTS, steps=40)
    return model


@pytest.fixture(scope="module")
def scores(target: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: MuseData) -> MuseScores:
    return score_muse(target, tokenizer, data, batch_size=3)


def test_prompts_are_muse_s_to_the_letter(
    untaught: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: MuseData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded where the model is called: the text of the tokens it was given, and how many it may add."""
    given: dict[str, int] = {}

    def generate(_writer, prompts, max_new_tokens, _begun) -> list[str]:
        given.update((tokenizer.decode(prompt), max_new_tokens) for prompt in prompts)
        return [""] * len(prompts)

    monkeypatch.setattr(questioner, "generate_greedy", generate)
    score_muse(untaught, tokenizer, data, batch_size=8)
    assert list(given.values()) == [128] * 2 + [32] * 5
    prompts = list(given)
    assert prompts[:2] == ["The ferry Marigold sank off", "Mira Solberg paints glass in"]
    assert prompts[2] == FORGET_PROMPT
    assert prompts[4] == "Question: Who is Chidi?\nAnswer: a tailor\n\nQuestion: Where did it stop?\nAnswer: "


def test_tokens_beyond_the_model_s_fill_no_row_and_are_named_where_they_are_read(
    untaught: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: MuseData
) -> None:
    """A tokenizer that grew, often by a pad token, on a model that did not."""
    short = data.select(2)
    grown = build_tiny_tokenizer((*FORGET_TEXTS, *HOLDOUT_TEXTS))
    grown.add_special_tokens({"pad_token": "<grown>"})
    assert grown.pad_token_id == len(tokenizer)
    found, wanted = (score_muse(untaught, one, short, batch_size=8).sets for one in (grown, tokenizer))
    for name in ("verbatim", "forget_questions", "forget_texts"):
        assert list(map(repr, found[name])) == list(map(repr, wanted[name]))
    grown.add_tokens(["Marigold"])
    with pytest.raises(InputError, match=r"token \d+ \('Marigold'\) has no embedding"):
        score_muse(untaught, grown, short, batch_size=8)


def test_no_demonstrations_leave_the_question_alone() -> None:
    assert question_prompt("Who?", few_shot_prefix(ExampleSet("none", ()))) == "Question: Who?\nAnswer: "


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("in Bergen", "in Bergen"),
        ("in Bergen\n\nQuestion: Who", "in Bergen"),
        ("in Bergen\nor near it", "in Bergen\nor near it"),
        ("in Bergen\nQuestion: Who", "in Bergen"),
        ("in Bergen Question: Who\n\nAnswer", "in Bergen "),
        ("in\nQuestions of\n\n", "in"),
        ("Question: Who", ""),
        ("", ""),
    ],
)
def test_answer_is_cut_at_the_first_end_of_any_kind(text: str, kept: str) -> None:
    assert cut_answer(text) == kept


def test_target_continues_what_it_knows_and_rouge_is_f1_without_stems(scores: MuseScores) -> None:
    """Against the reference implementation, with MUSE's settings."""
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    for item in (*scores.sets["verbatim"], *scores.sets["forget_questions"], *scores.sets["retain_questions"]):
        expected = scorer.score(item.reference, item.answered)["rougeL"].fmeasure
        assert item.rouge_l_f1 == pytest.approx(expected)
    assert scores.sets["verbatim"][0].answered.startswith(" Bergen on a quiet Tuesday in May.")
    assert scores.sets["verbatim"][0].rouge_l_f1 > 0.5


def test_rouge_by_hand(
    untaught: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: MuseData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a candidate's c words and a reference's r, l in the same order: F1 = 2 l / (c + r)."""
    # Truth: "Bergen on a quiet Tuesday in May." (7 words) and "off Bergen" (2); "mills" is not "mill", without stems.
    said = iter([["Bergen on quiet May night", "mills"], ["it sank off\n\nBergen", "glass"], ["", "", ""]])
    monkeypatch.setattr(questioner, "generate_greedy", lambda *args, **options: next(said))
    scored = score_muse(untaught, tokenizer, data, batch_size=8)
    assert [one.rouge_l_f1 for one in scored.sets["verbatim"]] == [pytest.approx(2 * 4 / (5 + 7)), 0.0]
    assert [one.answered for one in scored.sets["forget_questions"]] == ["it sank off", "glass"]
    assert [one.rouge_l_f1 for one in scored.sets["forget_questions"]] == [pytest.approx(2 * 1 / (3 + 2)), 1.0]
    metrics = measure_muse(scored, retain_only=None)
    assert metrics["verbatim_memorisation"].value == pytest.approx(100 * (2 / 3) / 2)
    assert metrics["knowledge_memorisation_forget"].value == pytest.approx(100 * (0.4 + 1) / 2)
    assert metrics["knowledge_memorisation_retain"].value == 0  # said nothing: scored, and wrong


def test_true_continuation_is_cut_to_128_tokens_with_the_start_token(data: MuseData) -> None:
    """With a start token 127 of the text's own tokens are left; without one, 128."""
    for bos, kept in ((True, 127), (False, 128)):
        tokenizer = build_tokenizer(bos=bos)
        tokenizer.model_max_length = 256
        model = build_tiny_model("llama", vocab_size=len(tokenizer))
        text = " ".join(f"word{number}" for number in range(100))
        long = ExampleSet("long", (Example("prompt_completion", "Tell:", text, "long, entry 1"),))
        (item,) = score_muse(model, tokenizer, dataclasses.replace(data, verbatim=long), batch_size=8).sets["verbatim"]
        own_tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert len(own_tokens) > 128
        assert item.reference == tokenizer.decode(own_tokens[:kept])


def test_min_40_is_the_mean_of_the_least_likely_tokens(
    scores: MuseScores, target: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    """One text at a time, sorted in plain Python; the first token is not scored."""
    for item in (*scores.sets["forget_texts"], *scores.sets["holdout_texts"]):
        ids = torch.tensor([tokenizer(item.text)["input_ids"]])
        log_probs = target(input_ids=ids).logits[0].log_softmax(-1)
        values = sorted(log_probs[place, ids[0, place + 1]].item() for place in range(ids.shape[1] - 1))
        lowest = values[: int(0.4 * len(values))]
        assert item.token_count == len(values)
        assert item.min_40_score == pytest.approx(sum(lowest) / len(lowest), abs=1e-4)


def test_untouched_target_leaks_strongly_negative_and_the_retain_only_model_not_at_all(
    scores: MuseScores, untaught: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: MuseData
) -> None:
    retain_only = score_muse(untaught, tokenizer, data, batch_size=8)
    of_target = measure_muse(scores, retain_only=retain_only)
    assert of_target["membership_auc_min_40"].value == pytest.approx(1.0)
    assert of_target["privacy_leakage"].value == pytest.approx(-100.0)
    of_retain_only = measure_muse(retain_only, retain_only=retain_only)
    assert of_retain_only["privacy_leakage"].value == 0
    assert 0.1 < of_retain_only["membership_auc_min_40"].value < 0.9
    again = measure_muse(score_muse(untaught, tokenizer, data, batch_size=1), retain_only=retain_only)
    assert again["privacy_leakage"].value == pytest.approx(0)
    assert of_target["verbatim_memorisation"].value > of_retain_only["verbatim_memorisation"].value + 30


def test_batch_size_does_not_matter(
    scores: MuseScores, target: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: MuseData
) -> None:
    alone = score_muse(target, tokenizer, data, batch_size=1)
    for part in ("verbatim", "forget_questions", "retain_questions"):
        for one, other in zip(alone.sets[part], scores.sets[part], strict=True):
            assert (one.asked, one.answered, one.rouge_l_f1) == (other.asked, other.answered, other.rouge_l_f1)
    for one, other in zip(alone.sets["forget_texts"], scores.sets["forget_texts"], strict=True):
        assert one.min_40_score == pytest.approx(other.min_40_score, abs=1e-4)


def test_long_texts_and_prompts_are_cut_to_the_context_and_counted(
    untaught: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: MuseData
) -> None:
    """The context is 256 tokens: a text loses its end, a prompt its beginning, so that 128 tokens of room are left."""
    text = "The heron stood in the harbour and nobody knew. " * 40
    long = ExampleSet("long", (Example("text", "", text, "long, document 1"), *data.forget_texts.examples))
    prompt = ExampleSet("long", (Example("prompt_completion", text, " It went.", "long, entry 1"),))
    scored = score_muse(
        untaught, tokenizer, dataclasses.replace(data, forget_texts=long, verbatim=prompt), batch_size=2
    )
    assert [item.cut for item in scored.sets["forget_texts"]] == [True] + [False] * 4
    assert scored.sets["forget_texts"][0].token_count == 255
    assert scored.sets["verbatim"][0].prompt_cut
    assert not math.isnan(scored.sets["verbatim"][0].rouge_l_f1)
    metrics = measure_muse(scored, retain_only=None)
    assert metrics["membership_auc_min_40"].note == "1 of 9 texts were cut to the model's context"


def test_texts_too_short_for_a_score_are_unscored(
    untaught: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: MuseData
) -> None:
    """One token leaves nothing to score; of two scored ones, 40 % is none."""
    examples = tuple(Example("text", "", text, "short") for text in ("x", "xqz", "xqzx"))
    assert [len(tokenizer(one.completion)["input_ids"]) for one in examples] == [1, 3, 4]
    short = dataclasses.replace(data, forget_texts=ExampleSet("short", examples))
    scored = score_muse(untaught, tokenizer, short, batch_size=8).sets["forget_texts"]
    assert [math.isnan(item.min_40_score) for item in scored] == [True, True, False]
    assert [item.token_count for item in scored] == [0, 2, 3]


def test_model_that_gives_no_numbers_is_unscored_not_zero(tokenizer: PreTrainedTokenizerFast, data: MuseData) -> None:
    model = build_tiny_model("llama", vocab_size=len(tokenizer))
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(np.nan)
    metrics = measure_muse(score_muse(model, tokenizer, data, batch_size=8), retain_only=None)
    assert {name: (one.value, one.unscored_count) for name, one in metrics.items()} == {
        "verbatim_memorisation": (None, 2),
        "knowledge_memorisation_forget": (None, 2),
        "knowledge_memorisation_retain": (None, 3),
        "privacy_leakage": (None, 8),
        "membership_auc_min_40": (None, 8),
    }


def test_progress_names_each_part_and_ends_whole(
    untaught: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: MuseData
) -> None:
    seen: dict[str, tuple[int, int]] = {}
    score_muse(
        untaught,
        tokenizer,
        data,
        batch_size=2,
        progress=lambda stage, done, total: seen.update({stage: (done, total)}),
    )
    assert seen == {
        "verbatim: scoring": (2, 2),
        "verbatim: generating": (2, 2),
        "forget_questions: scoring": (2, 2),
        "forget_questions: generating": (2, 2),
        "retain_questions: scoring": (3, 3),
        "retain_questions: generating": (3, 3),
        "forget_texts: scoring": (4, 4),
        "holdout_texts: scoring": (4, 4),
    }


def test_protocol_says_how_it_was_made(scores: MuseScores) -> None:
    """With it and the question, the whole prompt can be put together again."""
    prefix = scores.protocol["demonstrations"]["forget_questions"]
    assert question_prompt(scores.sets["forget_questions"][0].asked, prefix) == FORGET_PROMPT
    assert scores.protocol["limits"] == {"continuation_tokens": 128, "answer_tokens": 32}
    assert (scores.protocol["corpus"], scores.protocol["context"]) == ("news", 256)
