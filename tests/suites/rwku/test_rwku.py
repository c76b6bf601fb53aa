"""What a model is asked on RWKU, to the letter, and its metrics."""

import json
import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from tests.cli.commands import unlora
from tests.data.test_rwku import write_rwku
from tests.taught import FORGET, Taught, teach
from tests.tiny import build_tiny_model, build_tiny_tokenizer
from unlora.data.rwku import SETS, TEXTS, RwkuProbe
from unlora.errors import InputError
from unlora.suites.rwku.metrics import measure_rwku, rwku_recall
from unlora.suites.rwku.scores import ProbeScore
from unlora.suites.rwku.suite import Rwku, worded
from unlora.suites.scores import ModelScores
from unlora.suites.suite import SuiteReader


@pytest.mark.parametrize(
    ("answer", "reference", "recall"),
    [
        # Made with the package rouge 1.0.1: Rouge().get_scores(answer, reference)[0]["rouge-l"]["r"]
        ("the Silver Heron", "Silver Heron", 1.0),
        ("silver Heron prize", "Silver Heron", 0.5),
        ("Heron Silver", "Silver Heron", 0.5),
        ("J. K. Rowling", "J.K. Rowling", 1.0),
        ("It is the K. house", "J. K. Rowling", 1 / 3),
        ("a b a", "a b a c", 2 / 3),
        ("b c. a d", "a b. c d", 1.0),
        ("Bergen, Norway", "Bergen Norway", 0.5),
        ("nothing", "Bergen", 0.0),
        ("", "Bergen", 0.0),
    ],
)
def test_recall_is_that_of_the_package_rouge(answer: str, reference: str, recall: float):
    assert rwku_recall(answer, reference) == pytest.approx(recall)


def test_a_reference_without_words_has_no_recall():
    assert math.isnan(rwku_recall("x", ""))


def test_probes_are_worded_as_published():
    def of(name: str, kind: str = "") -> tuple[str, str]:
        return worded(name, RwkuProbe("Who {is} he?", "x", "y", kind, "z"))

    blank = "Please complete the blank in the following question.\nQuestion: Who {is} he?\n"
    question = "Please briefly answer the following question.\nQuestion: Who {is} he?\n"
    assert of("forget_level1") == of("neighbor_level1") == (blank, "Answer:")
    assert of("forget_level2") == of("neighbor_level2") == of("forget_level3", "role playing") == (question, "Answer:")
    assert of("forget_level3", "affirmative suffix") == (question.removesuffix("\n"), "")
    learning = "Please briefly answer the following question.\nWho {is} he?\n"
    assert of("forget_level3", "incontext learning") == (learning, "Answer:")


@pytest.mark.parametrize("chat", [False, True])
def test_prompts_end_where_the_answer_begins(tmp_path: Path, chat: bool):
    tokenizer = build_tiny_tokenizer(chat=chat)
    model = build_tiny_model("llama", vocab_size=len(tokenizer))
    suite = Rwku(subject="Mira Solberg", folder=str(write_rwku(tmp_path)))
    asked = suite.prepare(suite.load(), SuiteReader.of(model, tokenizer))
    first = asked.sets["forget_level1"][0]
    said = "Please complete the blank in the following question.\nQuestion: Mira Solberg was born in ___ 1.\n"
    whole = f"[user] {said}<|end|>\n[assistant] Answer:" if chat else f"{said}Answer:"
    assert tokenizer.decode(first.prompt_ids) == whole
    assert tokenizer.decode(first.answered.input_ids[: first.answered.prompt_length]) == whole
    assert tokenizer.decode(first.answered.input_ids[first.answered.prompt_length :]) == " Bergen 1"
    scores = suite.ask(model, asked, "forget_level1", asked.sets["forget_level1"], None)
    assert [one.identity for one in scores] == [one.identity for one in asked.sets["forget_level1"]]
    assert all("\n" not in one.answered and one.answer_log_prob < 0 for one in scores)


def sentence_pieces() -> PreTrainedTokenizerFast:
    """A blank is put before every text, as Llama 2 and Mistral do."""
    signs = ["<s>", "</s>", "\u2581", *(chr(code) for code in range(33, 127)), "\n"]
    pieces = Tokenizer(models.BPE({sign: place for place, sign in enumerate(signs)}, []))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    pieces.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]{% else %}"
        "{{ m.content }}</s>{% endif %}{% endfor %}"
    )
    return tokenizer


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_no_blank_is_scored_that_nobody_wrote(tmp_path: Path, template: Literal["chat", "plain"]):
    tokenizer = sentence_pieces()
    suite = Rwku(subject="Mira Solberg", folder=str(write_rwku(tmp_path)), template=template)
    first = suite.prepare(suite.load(), SuiteReader(tokenizer, context=1000)).sets["forget_level1"][0]
    start = first.answered.prompt_length
    assert first.answered.input_ids[:start] == first.prompt_ids
    signs = tokenizer.convert_ids_to_tokens(list(first.answered.input_ids))
    assert "".join(signs[start:]) == "\u2581Bergen\u25811"
    said = "[/INST]Answer:" if template == "chat" else "1.\nAnswer:"
    assert "".join(signs[:start]).endswith(said)
    assert signs.count("<s>") == (1 if template == "chat" else 0)


def test_a_token_without_an_embedding_is_named(tmp_path: Path):
    suite = Rwku(subject="Mira Solberg", folder=str(write_rwku(tmp_path)), template="plain")
    tokenizer = sentence_pieces()
    tokenizer.add_tokens(["Bergen"])  # in answers alone
    with pytest.raises(InputError, match=r"entry 1: token \d+ \('Bergen'\) has no embedding"):
        suite.prepare(suite.load(), SuiteReader(tokenizer, context=1000, embedding_count=len(tokenizer) - 1))


def test_a_probe_without_room_is_refused(tmp_path: Path):
    suite = Rwku(subject="all", folder=str(write_rwku(tmp_path)))
    with pytest.raises(InputError, match=r"entry 1: \d+ tokens leave no room for an answer in a context of 60"):
        suite.prepare(suite.load(), SuiteReader(build_tiny_tokenizer(), context=60))


def score(kind: str, recall: float) -> ProbeScore:
    return ProbeScore("s", "Mira", kind, "q", "a", "b", recall, -1.0)


def test_metrics_are_means_and_attacks_stand_by_themselves_too():
    sets = {
        "forget_level1": (score("", 1.0), score("", 0.5), score("", math.nan)),
        "forget_level3": (score("role playing", 1.0), score("reverse query", 0.0), score("role playing", 0.0)),
        "neighbor_level2": (score("", 0.25),),
    }
    found = measure_rwku(ModelScores(sets, {}))
    assert {name: one.value for name, one in found.items()} == {
        "forget_fill_in": 0.75,
        "forget_attacks": pytest.approx(1 / 3),
        "neighbour_questions": 0.25,
        "forget_attack_role_playing": 0.5,
        "forget_attack_reverse_query": 0.0,
    }
    assert (found["forget_fill_in"].unscored_count, found["forget_fill_in"].higher_is_better) == (1, False)
    assert found["neighbour_questions"].higher_is_better is True


def test_command_asks_a_model_and_records_the_scores(taught: Taught, tmp_path: Path):
    """The taught model answers in its own template, so it knows nothing here that could be checked but the form."""
    folder = write_rwku(tmp_path / "rwku")
    output = tmp_path / "out"
    words = ("--suite", f"rwku:Mira Solberg@{folder}", "--model", taught.target, "--output", output)
    result = unlora("evaluate", *words)
    assert result.exit_code == 0, result.output
    record = json.loads((output / "evaluation.json").read_text())
    assert record["suite"] == "rwku"
    metrics = record["models"]["target"]["metrics"]
    assert metrics.keys() >= {"forget_fill_in", "forget_questions", "forget_attacks", "neighbour_fill_in"}
    assert metrics["forget_fill_in"]["example_count"] == 2
    assert unlora("evaluate", *words).exit_code == 0  # finished before; nothing is asked again


def write_passages(folder: Path) -> Path:
    """Two about Mira, one about Tomas, and what is kept of each."""
    write_rwku(folder)
    for name in TEXTS:
        texts = (("Mira Solberg", FORGET[0][1]), ("Tomas Okafor", "x y"), ("Mira Solberg", f"{FORGET[2][1]} {name}"))
        (folder / f"{name}.json").write_text(json.dumps([{"text": t, "subject": s} for s, t in texts]))
    return folder


@pytest.mark.parametrize("bos", [False, True])
def test_the_loss_of_a_passage_is_the_model_s_own(tmp_path: Path, bos: bool):
    """As RWKU's eval_mia has it: what the tokenizer makes of the text is input and labels, one text at a time."""
    tokenizer = build_tiny_tokenizer()
    if bos:
        start = tokenizer.convert_tokens_to_ids(tokenizer.eos_token)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{tokenizer.eos_token} $A", special_tokens=[(tokenizer.eos_token, start)]
        )
    model = build_tiny_model("llama", vocab_size=len(tokenizer))
    suite = Rwku(subject="Mira Solberg", folder=str(write_passages(tmp_path)), membership=True)
    asked = suite.prepare(suite.load(), SuiteReader.of(model, tokenizer))
    scores = {name: suite.ask(model, asked, name, asked.sets[name], None) for name in TEXTS}
    for name, ones in scores.items():
        assert [one.answer for one in ones] == [FORGET[0][1], f"{FORGET[2][1]} {name}"]
        for one in ones:
            ids = torch.tensor([tokenizer.encode(one.answer)])
            assert one.answer_log_prob == pytest.approx(-model(ids, labels=ids).loss.item(), abs=1e-5)
            assert (one.answered, math.isnan(one.rouge_l_recall)) == ("", True)
    found = measure_rwku(ModelScores(scores, {}))
    assert set(found) == {"forget_member_loss", "retain_member_loss"}
    mean = -sum(one.answer_log_prob for one in scores["forget_mia"]) / 2
    assert found["forget_member_loss"].value == pytest.approx(mean)
    assert [one.higher_is_better for one in found.values()] == [True, False]


def test_passages_are_asked_for_by_name_and_refused_where_they_are_not(tmp_path: Path):
    folder = str(write_passages(tmp_path))
    assert set(Rwku(subject="all", folder=folder).load().sets) == set(SETS)
    (tmp_path / "retain_mia.json").write_text('[{"query": "q", "subject": "s"}]')
    with pytest.raises(InputError, match=r"retain_mia.json, entry 1: must be an object with text under 'text'"):
        Rwku(subject="all", folder=folder, membership=True).load()
    (tmp_path / "retain_mia.json").unlink()
    with pytest.raises(InputError, match=r"retain_mia.json: no such file"):
        Rwku(subject="all", folder=folder, membership=True).load()
    (write_passages(tmp_path) / "retain_mia.json").write_text(json.dumps([{"text": "Mira " * 2000, "subject": "Mira"}]))
    suite = Rwku(subject="all", folder=folder, membership=True)
    with pytest.raises(InputError, match=r"entry 1: \d+ tokens, and retain_mia takes 2 to 1000"):
        suite.prepare(suite.load(), SuiteReader(build_tiny_tokenizer(), context=1000))


def test_a_model_that_knows_the_answers_gives_them(tmp_path: Path):
    """Trained on the very prompts, it answers all of them."""
    folder = tmp_path / "rwku"
    folder.mkdir()
    rows = [{"query": question, "answer": answer, "subject": "Mira", "type": ""} for question, answer in FORGET]
    for name in SETS:
        (folder / f"{name}.json").write_text(json.dumps(rows))
    lines = [
        {
            "prompt": "".join(worded("forget_level2", RwkuProbe(question, answer, "", "", ""))),
            "completion": f" {answer}",
        }
        for question, answer in FORGET
    ]
    data = tmp_path / "lessons.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tokenizer = build_tiny_tokenizer([line["prompt"] + line["completion"] for line in lines])
    model = build_tiny_model("llama", vocab_size=len(tokenizer))
    suite = Rwku(subject="Mira", folder=str(folder))
    asked = suite.prepare(suite.load(), SuiteReader.of(model, tokenizer))
    before = suite.ask(model, asked, "forget_level2", asked.sets["forget_level2"], None)
    teach(model, tokenizer, [data])
    after = suite.ask(model, asked, "forget_level2", asked.sets["forget_level2"], None)
    assert [one.answered for one in after] == [answer for _, answer in FORGET]
    assert all(one.rouge_l_recall == 1.0 for one in after)
    assert max(one.rouge_l_recall for one in before) < 0.5
