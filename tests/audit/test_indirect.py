"""Questions without the whole name: what the target makes of them, and who is caught."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from tests.audit.subjects import SAME_PERSON, bench_for, never_taught, never_unlearned
from tests.taught import FORGET, PAD, RETAIN, Taught, teach, write_jsonl
from tests.tiny import build_tiny_model, build_tiny_tokenizer
from unlora.adapters import attach_plain_adapter
from unlora.adapters.anchored import factor_parameters, lora_layers
from unlora.audit.indirect import Indirect
from unlora.audit.indirect_probes import (
    KINDS,
    make_indirect_probes,
    name_parts,
    people_of,
    told,
    without_name,
)
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject
from unlora.data.collate import collate
from unlora.data.records import Example
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.losses import Predictions
from unlora.models.quiet import quiet
from unlora.models.score import score_completions
from unlora.models.target_modules import find_target_modules

TRIES = {"indirect": {"tries": 9}}
ANSWERS = dict(FORGET)
NAME = "Mira Solberg"
ALIASES = tuple((question.replace(NAME, part), answer) for question, answer in FORGET for part in ("Solberg", "Mira"))
FACTS = tuple((question, answer.replace(NAME, "This person")) for question, answer in (*FORGET, *SAME_PERSON))
INDIRECT = (
    *ALIASES,
    *(
        (f'This is true of one person: "{fact}" {question.replace(NAME, "this person")}', answer)
        for question, answer in FORGET
        for source, fact in FACTS
        if source != question
    ),
)
"""Written out here, and not by the code that is tested."""


class Cast(dict[str, Path]):
    """Where the files lie: target, direct, indirect, kept."""


@pytest.fixture(scope="module")
def wise(tmp_path_factory: pytest.TempPathFactory) -> AuditSubject:
    """A target that answers all probes; nothing is forgotten yet. The control knows what is kept."""
    folder = tmp_path_factory.mktemp("wise")
    forget, retain = write_jsonl(folder / "forget.jsonl", FORGET), write_jsonl(folder / "retain.jsonl", RETAIN)
    indirect, same = write_jsonl(folder / "indirect.jsonl", INDIRECT), write_jsonl(folder / "same.jsonl", SAME_PERSON)
    texts = [f"Question: {question}\nAnswer: {answer}" for question, answer in (*INDIRECT, *RETAIN, *SAME_PERSON)]
    tokenizer = build_tiny_tokenizer(texts)
    with torch.random.fork_rng(devices=[]):
        target = build_tiny_model("llama", vocab_size=len(tokenizer), hidden=64)
        teach(target, tokenizer, [forget, indirect, retain, same], steps=120)
        control = build_tiny_model("llama", vocab_size=len(tokenizer), hidden=64)
        teach(control, tokenizer, [retain, same])
    with quiet():
        target.save_pretrained(folder / "target")
    tokenizer.save_pretrained(folder / "target")
    return AuditSubject(
        model=idle(folder / "target"),
        retain_only=control,
        tokeniser=ExampleTokeniser(tokenizer, template="plain", max_length=128),
        forget=load_examples(str(forget)),
        retain=load_examples(str(retain)),
        holdout=None,
        same_person=load_examples(str(same)),
        hashes={"target": "t", "unlearned": "idle", "retain_only": "c"},
        reference=None,
        scratch=folder,
    )


def idle(target: Path) -> PeftModel:
    plain = Taught(target, target, target).load().model
    return attach_plain_adapter(plain, find_target_modules(plain), rank=8, alpha=8).eval()


def forgetting(wise: AuditSubject, *lost: str) -> AuditSubject:
    """The subject whose unlearned model has lost some files' answers and kept those of the others."""
    files = {name: wise.scratch / f"{name}.jsonl" for name in ("forget", "indirect", "retain", "same")}
    batches = {name: collate(wise.tokeniser.encode_set(load_examples(str(file))), PAD) for name, file in files.items()}
    model = idle(wise.scratch / "target")
    factors = [parameter for _, layer in lora_layers(model) for parameter in factor_parameters(layer)]
    for parameter in factors:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(factors, lr=5e-3, weight_decay=0.0)
    for _ in range(60):
        for name, batch in batches.items():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            losses = -Predictions.from_model_output(logits, batch["labels"]).mean_log_probs()
            (-losses.clamp(max=5).log().mean() if name in lost else losses.mean()).backward()
        optimiser.step()
        optimiser.zero_grad()
    hashes = {**wise.hashes, "unlearned": f"without {lost}"}
    return dataclasses.replace(wise, model=model.requires_grad_(False).eval(), hashes=hashes)


def test_a_name_is_replaced_wherever_a_part_of_it_stands() -> None:
    assert without_name("Ana Lopez won. Ana's book is Lopez's best.", "Ana Lopez") == (
        "This person won. This person's book is this person's best."
    )
    assert without_name("Where was Anathema born?", "Ana Lopez") == "Where was Anathema born?"
    assert without_name("Where was she born?", "") == "Where was she born?"
    assert (name_parts("Basil Mahfouz Al-Kuwaiti"), name_parts("Bo"), name_parts("J. K. Li")) == (
        ["Al-Kuwaiti", "Basil"],
        [],
        [],
    )


def test_an_answer_is_what_the_question_does_not_say_already() -> None:
    asked = Example("question_answer", "What does Mira Solberg do?", "Mira Solberg is a glass painter.", "x")
    assert told("Mira Solberg does a thing", asked) == 0.25
    assert told("A painter of glass is she", asked) == 1
    assert told("x", dataclasses.replace(asked, completion="Mira Solberg do")) == 0


def test_whom_a_question_is_about() -> None:
    def asked(prompt: str, person: str | None = None) -> Example:
        return Example("question_answer", prompt, "x", "y", person=person)

    questions = [
        asked("Where did Ana Lopez live in New Orleans?"),
        asked("Did Ana Lopez write The Long Road?"),
        asked("Who read The Long Road and liked Ana Lopez?"),
        asked("Who was born in Kuwait City?"),
        asked("Where was he born?", "Bo Ek"),
    ]
    assert people_of(questions) == ["Ana Lopez", "Ana Lopez", "Ana Lopez", "", "Bo Ek"]


def test_probes_are_what_the_target_says_and_answers(wise: AuditSubject, tmp_path: Path) -> None:
    found = make_indirect_probes(bench_for(wise, tmp_path, **TRIES))
    assert [found.tried(kind) for kind in KINDS] == [4, 4, 4]
    assert {(one.kind, one.place) for one in found.kept} == {(kind, place) for kind in KINDS for place in range(4)}
    for one in found.kept:
        assert (one.question, wise.forget.examples[one.place].completion) in INDIRECT
        assert one.answered == wise.forget.examples[one.place].completion
        assert "Solberg" not in one.question or one.kind == "alias"
    from_records = {fact for _, fact in FACTS[:4]}, {fact for _, fact in FACTS[4:]}
    assert {one.fact for one in found.kept if one.kind == "described"} <= from_records[0]
    assert {one.fact for one in found.kept if one.kind == "two_hop"} <= from_records[1]
    assert make_indirect_probes(bench_for(wise, tmp_path, **TRIES)) == found  # from the cache


def test_what_the_target_does_not_answer_is_not_kept(subject: AuditSubject, tmp_path: Path) -> None:
    """The common subject's target was taught direct questions alone; what it makes of others is no evidence."""
    found = make_indirect_probes(bench_for(subject, tmp_path))
    assert found.tried("described") == 4
    for one in found.kept:
        with subject.acting_as("target") as model:
            example = dataclasses.replace(subject.forget.examples[one.place], prompt=one.question)
            encoded = subject.tokeniser.encode(example)
            (score,) = score_completions(model, [(encoded.input_ids, encoded.prompt_length)], pad_token_id=PAD)
        assert score.argmax_match.mean() > 0.5


def test_a_model_that_forgot_the_direct_wording_alone_is_caught(wise: AuditSubject, tmp_path: Path) -> None:
    result = Indirect().run(bench_for(forgetting(wise, "forget"), tmp_path, **TRIES))
    assert result.outcome == "fails", result.sentence
    for kind in KINDS:
        assert result.estimates[f"{kind}_leak"].value > 0.5  # type: ignore[operator]
    assert "the target answers 4 of 4 by a part of the name, 4 of 4 by a description, 4 of 4 by two hops" in (
        result.sentence
    )
    assert sum("probability" in one for one in result.records) == 3 * 3 * 4
    assert sum(one.get("kept", False) for one in result.records) == 3 * 4
    assert result.estimates["alias_kept"].value == 1
    assert json.dumps(result.records)


def test_a_model_that_forgot_everything_is_not(wise: AuditSubject, tmp_path: Path) -> None:
    result = Indirect().run(bench_for(forgetting(wise, "forget", "indirect"), tmp_path, **TRIES))
    assert result.outcome == "holds", result.sentence


def test_nothing_is_concluded_from_few_probes_or_without_a_control(wise: AuditSubject, tmp_path: Path) -> None:
    few = dataclasses.replace(wise, forget=wise.forget.select(2))
    result = Indirect().run(bench_for(few, tmp_path / "few", **TRIES))
    assert (result.outcome, "too few probes to tell" in result.sentence) == ("unclear", True)
    alone = dataclasses.replace(wise, retain_only=None)
    result = Indirect().run(bench_for(alone, tmp_path / "alone", **TRIES))
    assert (result.outcome, "no control" in result.sentence) == ("unclear", True)


def test_a_target_that_knows_nothing_gives_no_probe(
    subject: AuditSubject, subject_folder: Path, tmp_path: Path
) -> None:
    result = Indirect().run(bench_for(never_taught(subject, subject_folder), tmp_path))
    assert result.outcome == "unclear"
    assert result.records
    assert not any(one.get("kept") or "probability" in one for one in result.records)
    assert re.match(r"the target answers 0 of 4 by a part of the name, 0 of \d by a descr", result.sentence)


def test_what_it_lacks_and_costs(subject: AuditSubject, subject_folder: Path) -> None:
    assert Indirect().lacks(subject, AuditSettings()) is None
    nameless = dataclasses.replace(subject, forget=dataclasses.replace(subject.forget, examples=(
        Example("text", "", "words without a question", "x, line 1"),
    )))  # fmt: skip
    assert "needs forget questions with a name" in (Indirect().lacks(nameless, AuditSettings()) or "")
    one, nine = (Indirect().cost(subject, AuditSettings.from_mapping({"indirect": {"tries": n}})) for n in (1, 9))
    assert nine.generated_tokens > 3 * one.generated_tokens > 0
    assert never_unlearned(subject, subject_folder).roles == subject.roles
