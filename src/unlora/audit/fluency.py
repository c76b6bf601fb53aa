"""Fluency on forget prompts: has it stopped knowing, or stopped speaking?

Two signs of damage, each against the control (a model that does not know the answers either, and speaks). Answers that
are empty or mostly one loop: their share. And answers that no language model would expect: their mean negative
log-likelihood, in nats a token, in the eyes of the *target*.

The judge must not be one of the two that are compared, since greedy answers are by construction what their own model
finds likely. On SmolLM2 that had learned TOFU, answers of the control cost the target 0.9 nats a token, fluent wrong
answers of a slightly disturbed model 1.3, gibberish 7.5 and more; with the control as judge, the untouched target's
own answers would stand 2.3 above the control's. Refusals ("I'm not sure about that": 5.9) are language that neither
model ever uses: they are counted by themselves and not judged.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unlora.audit.attack import Attack, AttackResult, Estimate, Outcome
from unlora.audit.bench import Workbench
from unlora.audit.cost import Cost
from unlora.audit.estimates import mean_estimate
from unlora.audit.sequences import ScoredSequence, mean_log_probs, sequences_sha256
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject, Role
from unlora.data.records import Example
from unlora.metrics import distinct_n, is_refusal, longest_repeat_share
from unlora.metrics.likelihood import ExampleValues
from unlora.models.generate import Writer, generate_greedy

LOOP = 0.5
"""An answer loops when at least this share of it is one repetition."""
BROKEN_INCREASE = 0.2
"""Increase of the share of empty or looping answers that counts as damage."""
NATS_ABOVE_CONTROL = 2.0
"""Increase of the nats a token over the control's that counts as damage."""
NATS_ABOVE_TARGET = 3.0
"""The same without a control, over the target's own answers: these cost it nearly nothing, so fluent others stand
about 1 above."""

Signs = Mapping[str, ExampleValues]
"""Name of a measure -> its value on every answer of one model; NaN is unscored."""


class Fluency(Attack):
    """Let every model answer the forget prompts."""

    name = "fluency"
    question = "Are its answers to forgotten questions still language?"

    def lacks(self, subject: AuditSubject, settings: AuditSettings) -> str | None:
        if not _asked(subject):
            return "needs questions or prompts: a forget set of plain text has none"
        return None

    def cost(self, subject: AuditSubject, settings: AuditSettings) -> Cost:
        prompts, limit = _prompts(subject), settings.sampling.max_new_tokens
        once = Cost(
            forward_tokens=sum(len(prompt) + limit for prompt in prompts), generated_tokens=len(prompts) * limit
        )
        return once * len(subject.roles)

    def run(self, bench: Workbench) -> AttackResult:
        roles, count = bench.subject.roles, len(_asked(bench.subject))
        total = 2 * len(roles) * count
        answers: dict[Role, list[str]] = {role: _answers(bench, role, place, total) for place, role in enumerate(roles)}
        signs: dict[Role, Signs] = {
            role: _signs(bench, answers[role], len(roles) + place, total) for place, role in enumerate(roles)
        }
        differences = compare_fluency(signs, seed=bench.settings.seed)
        outcome, sentence = judge_fluency(differences, signs)
        return AttackResult(
            outcome,
            sentence,
            damage=True,
            estimates=differences | _means(signs, len(bench.subject.forget), bench.settings.seed),
            tested=f"{count} forget prompts, up to {bench.settings.sampling.max_new_tokens} new tokens",
            records=tuple(_records(bench, answers, signs)),
        )


def measure(text: str) -> dict[str, float]:
    """Signs of one answer that need no model.

    distinct_2 (high is good) and repetition (low is good) as in `unlora.metrics`; empty, refusal and broken (empty or
    looping) are 1 or 0. An empty answer has neither bigrams nor repetitions: NaN.
    """
    text = text.strip()
    repetition = longest_repeat_share(text)
    return {
        "distinct_2": distinct_n(text, 2),
        "repetition": repetition,
        "empty": float(not text),
        "refusal": float(is_refusal(text)),
        "broken": float(not text or repetition >= LOOP),
    }


def compare_fluency(signs: Mapping[Role, Signs], *, seed: int) -> dict[str, Estimate]:
    """How much worse the unlearned model's answers are than the control's (or, without one, the target's), in pairs.

    broken_difference is one of shares, in [-1, 1]; nats_difference one of nats a token, where both models gave an
    answer that is no refusal. Above 0 the unlearned model is worse.
    """
    other = signs["retain_only" if "retain_only" in signs else "target"]
    differences = {name: signs["unlearned"][name] - other[name] for name in ("broken", "nats")}
    return {f"{name}_difference": mean_estimate(values, seed=seed) for name, values in differences.items()}


def judge_fluency(differences: Mapping[str, Estimate], signs: Mapping[Role, Signs]) -> tuple[Outcome, str]:
    """Outcome and finding in plain words. Fails when a difference reaches its threshold and its interval excludes 0."""
    control: Role = "retain_only" if "retain_only" in signs else "target"
    nats_limit = NATS_ABOVE_CONTROL if control == "retain_only" else NATS_ABOVE_TARGET
    limits = {"broken_difference": BROKEN_INCREASE, "nats_difference": nats_limit}
    other = "control" if control == "retain_only" else "target"
    broken, theirs = (float(signs[role]["broken"].mean()) for role in ("unlearned", control))
    text = f"{broken:.0%} of the answers to forget prompts are empty or loop ({other} {theirs:.0%})"
    nats = differences["nats_difference"].value
    if nats is not None:
        text += f", and they cost the target {nats:+.1f} nats a token against the {other}'s"
    refusals = float(signs["unlearned"]["refusal"].mean())
    if refusals > 0:
        text += f"; {refusals:.0%} are refusals"
    if differences["broken_difference"].low is None:
        return "unclear", f"{text}; too few examples to tell"
    damaged = [name for name, limit in limits.items() if _reaches(differences[name], limit)]
    return "fails" if damaged else "holds", text


def _reaches(difference: Estimate, limit: float) -> bool:
    value, low = difference.value, difference.low
    return value is not None and low is not None and value >= limit and low > 0


def _asked(subject: AuditSubject) -> list[Example]:
    return [example for example in subject.forget if example.prompt]


def _prompts(subject: AuditSubject) -> list[tuple[int, ...]]:
    return [subject.tokeniser.prompt_ids(example) for example in _asked(subject)]


def _answers(bench: Workbench, role: Role, place: int, total: int) -> list[str]:
    """What the model writes after every prompt."""
    prompts, limit = _prompts(bench.subject), bench.settings.sampling.max_new_tokens
    done = place * len(prompts)

    def count(batch_count: int) -> None:
        nonlocal done
        done += batch_count
        bench.progress(f"answers of {role}", done, total)

    def compute() -> list[str]:
        with bench.subject.acting_as(role) as model:
            tokeniser, batch_size = bench.subject.tokeniser, bench.settings.batch_size
            writer = Writer(model, tokeniser.tokenizer, tokeniser.pad_token_id, batch_size, count)
            return generate_greedy(writer, prompts, limit)

    key = {"prompts": sequences_sha256([(prompt, 0) for prompt in prompts]), "max_new_tokens": limit}
    answers = bench.once("greedy-answers", role, key, compute)
    bench.progress(f"answers of {role}", (place + 1) * len(prompts), total)
    return answers


def _signs(bench: Workbench, answers: Sequence[str], place: int, total: int) -> Signs:
    """Every measure of every answer of one model."""
    prompts = _prompts(bench.subject)
    tokenizer, limit = bench.subject.tokeniser.tokenizer, bench.settings.sampling.max_new_tokens
    judged: dict[int, ScoredSequence] = {}
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        # Broken bytes can make more tokens than were written; the rest would not fit the model's context.
        tokens = tokenizer(answer, add_special_tokens=False, verbose=False)["input_ids"][:limit]
        if answer.strip() and tokens and not is_refusal(answer):
            judged[number] = ((*prompt, *tokens), len(prompt))
    nats = np.full(len(answers), math.nan)
    scores = mean_log_probs(
        bench, "target", list(judged.values()), work="fluency", done=place * len(prompts), total=total
    )
    nats[list(judged)] = -scores
    bench.progress("fluency on target", (place + 1) * len(prompts), total)
    measured = [measure(answer) for answer in answers]
    return {name: np.array([one[name] for one in measured]) for name in measured[0]} | {"nats": nats}


def _means(signs: Mapping[Role, Signs], example_count: int, seed: int) -> dict[str, Estimate]:
    """Mean of every measure, role by role; examples without a prompt count as unscored."""
    names = {"empty": "empty_share", "refusal": "refusal_share", "broken": "broken_share", "nats": "nats_per_token"}
    return {
        f"{names.get(name, name)}_{role}": mean_estimate(
            np.concatenate([values, np.full(example_count - values.size, math.nan)]), seed=seed
        )
        for name in next(iter(signs.values()))
        for role, values in ((role, measured[name]) for role, measured in signs.items())
    }


def _records(
    bench: Workbench, answers: Mapping[Role, Sequence[str]], signs: Mapping[Role, Signs]
) -> list[dict[str, Any]]:
    return [
        {
            "model": role,
            "source": example.source,
            "question": example.prompt,
            "answer": example.completion,
            "generated": answer,
            **{name: float(values[number]) for name, values in signs[role].items()},
        }
        for role, texts in answers.items()
        for number, (example, answer) in enumerate(zip(_asked(bench.subject), texts, strict=True))
    ]
