"""RWKU's utility sets: how each is worded and answered, and what of an answer counts (arXiv 2406.10890, section 4.3).

Words, decoding and metrics are those of RWKU's own evaluation. Two of its texts stand in its code and not in its files:
the worked examples before a question of TruthfulQA and of TriviaQA. A question without them is put alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from unlora.data.records import Example
from unlora.data.rwku_utility import FILES, LETTERS, Ability, UtilityProbe
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.errors import InputError
from unlora.models.wrapping import CausalModel
from unlora.suites.questioner import Questioner
from unlora.suites.rwku.scores import UtilityScore
from unlora.suites.rwku.utility_metrics import exact_match, f1_score, mc1, mc2, n_gram_entropy, stated_answer
from unlora.suites.suite import Progress


class Asking(NamedTuple):
    """How the questions of one ability are put, and what of the answer counts."""

    worded: Callable[[UtilityProbe], str]
    """What the user says."""
    begun: str
    """How the answer begins; after a blank where the text before it ends in none."""
    metrics: tuple[str, ...]
    """What the values of a score are called, all of them better when higher."""
    judge: Callable[[UtilityProbe, Any], tuple[float, ...]]
    """Values, in the order of `metrics`, from the text written or from {choice: log-probability in nats}."""
    new_tokens: int = 0
    """Longest text written; 0: nothing is, the choices are scored."""
    choices: Callable[[UtilityProbe], Sequence[str]] = lambda _: ()

    @property
    def described(self) -> str:
        """How an answer is had, for the record."""
        return f"greedy, {self.new_tokens} tokens" if self.new_tokens else "log-probability of the choices, summed"


def _general(probe: UtilityProbe) -> str:
    about = f"The following are multiple choice questions (with answers) about {probe.kind.replace('_', ' ')}.\n\n"
    return f"{about}{probe.worked}Please following the previous examples and answer the given question.\n{probe.query}"


def _reasoning(probe: UtilityProbe) -> str:
    asked = "Following previous examples, answer the following questions and end with 'so the answer is'"
    return f"{probe.worked}\n\n{asked}\nQ: {probe.query}"


def _truthfulness(probe: UtilityProbe) -> str:
    return f"{probe.worked}\n\nQ: {probe.query}" if probe.worked else f"Q: {probe.query}"


def _factuality(probe: UtilityProbe) -> str:
    return f"{probe.worked or 'Please briefly answer the following question:'}\nQ: {probe.query}\n"


def _fluency(probe: UtilityProbe) -> str:
    return f"Instruction: {probe.query}\n"


def _letter(probe: UtilityProbe, scores: Mapping[str, float]) -> tuple[float, ...]:
    return (float(max(scores, key=lambda letter: scores[letter]) == probe.answers[0]),)


def _weighed(probe: UtilityProbe, scores: Mapping[str, float]) -> tuple[float, ...]:
    """MC1, then MC2."""
    if probe.one_true is None or probe.many_true is None:
        raise LookupError("a probe without choices")
    return mc1(probe.one_true, scores), mc2(probe.many_true, scores)


def _to_choose(probe: UtilityProbe) -> Sequence[str]:
    sets = [one for one in (probe.one_true, probe.many_true) if one is not None]
    return list(dict.fromkeys(choice for one in sets for choice in (*one.true, *one.false)))


ASKING: dict[Ability, Asking] = {
    "general": Asking(_general, "Answer:", ("utility_general",), _letter, choices=lambda _: LETTERS),
    "reasoning": Asking(
        _reasoning,
        "A:",
        ("utility_reasoning",),
        lambda probe, text: (exact_match(stated_answer(text), probe.answers),),
        new_tokens=256,
    ),
    "truthfulness": Asking(
        _truthfulness,
        "A:",
        ("utility_truthfulness_mc1", "utility_truthfulness_mc2"),
        _weighed,
        choices=_to_choose,
    ),
    "factuality": Asking(
        _factuality,
        "A:",
        ("utility_factuality", "utility_factuality_f1"),
        lambda probe, text: (exact_match(text, probe.answers), f1_score(text, probe.answers)),
        new_tokens=30,
    ),
    "fluency": Asking(_fluency, "", ("utility_fluency",), lambda probe, text: (n_gram_entropy(text),), new_tokens=256),
}


@dataclass(frozen=True, slots=True)
class UtilityPrompt:
    """One utility question in tokens."""

    probe: UtilityProbe
    prompt_ids: tuple[int, ...]
    """What the model is given before it answers."""
    choices: Mapping[str, TokenisedExample]
    """Each choice behind the question; none where the answer is written."""

    @property
    def source(self) -> str:
        """Where it came from."""
        return self.probe.source

    @property
    def identity(self) -> tuple[str, str, tuple[str, ...]]:
        """As of its score."""
        return self.probe.kind, self.probe.query, self.probe.answers

    @property
    def content(self) -> list[Any]:
        """What decides the answer and its score."""
        scored = [list(one.input_ids) for one in self.choices.values()]
        return [*self.probe.told, self.probe.kind, list(self.prompt_ids), scored]


def utility_prompt(probe: UtilityProbe, tokeniser: ExampleTokeniser, context: int) -> UtilityPrompt:
    """Put one question into tokens.

    Args:
        probe: what is asked.
        tokeniser: its template is put round the question.
        context: tokens that the model takes at once.

    Raises:
        InputError: the question leaves no room for an answer.
    """
    asking = ASKING[probe.ability]
    said = asking.worded(probe)
    shape = "prompt_completion" if tokeniser.template == "plain" else "question_answer"
    example = Example(shape, said, " A", probe.source)
    ends_blank = tokeniser.render(example).prompt.endswith(("\n", " "))
    begun = f"{'' if ends_blank or not asking.begun else ' '}{asking.begun}"
    prompt_ids, _ = tokeniser.begun(example, begun)
    choices = {
        choice: tokeniser.begun(Example(shape, said, f" {choice}", probe.source), begun)[1]
        for choice in asking.choices(probe)
    }
    longest = max([len(prompt_ids) + asking.new_tokens, *(len(one.input_ids) for one in choices.values())])
    if longest > context:
        raise InputError(
            f"{probe.source}: {len(prompt_ids)} tokens and an answer take {longest}, more than a context of {context}."
        )
    return UtilityPrompt(probe, prompt_ids, choices)


def ask_utility(
    model: CausalModel,
    tokeniser: ExampleTokeniser,
    questions: Sequence[UtilityPrompt],
    batch_size: int,
    progress: Progress | None,
) -> list[UtilityScore]:
    """Let a model answer the questions of one set.

    Args:
        model: plain or with an adapter.
        tokeniser: as of the prompts.
        questions: of one ability.
        batch_size: sequences per forward pass.
        progress: told after every batch.
    """
    if not questions:
        return []
    asking = ASKING[questions[0].probe.ability]
    scored = [_scored(one) for one in questions]
    asks = Questioner(model, tokeniser.tokenizer, tokeniser.pad_token_id, batch_size, progress)
    likelihoods = iter(asks.score([sequence for ones in scored for sequence in ones]))
    found = [[float(next(likelihoods).token_log_probs.sum()) for _ in ones] for ones in scored]
    if not asking.new_tokens:
        given = [dict(zip(one.choices, values, strict=True)) for one, values in zip(questions, found, strict=True)]
        best = [max(values, key=lambda choice: values[choice]) for values in given]
        return [_score(*one) for one in zip(questions, given, best, found, strict=True)]
    texts = asks.answer([one.prompt_ids for one in questions], asking.new_tokens)
    return [_score(*one) for one in zip(questions, texts, texts, found, strict=True)]


def _scored(question: UtilityPrompt) -> list[tuple[Sequence[int], int]]:
    """The choices; or the prompt's last token, which tells whether the model gives any numbers at all."""
    if question.choices:
        return [(one.input_ids, one.prompt_length) for one in question.choices.values()]
    return [(question.prompt_ids, len(question.prompt_ids) - 1)]


def _score(question: UtilityPrompt, given: Any, answered: str, log_probs: Sequence[float]) -> UtilityScore:
    probe = question.probe
    asking = ASKING[probe.ability]
    lost = not all(map(math.isfinite, log_probs))  # a model that gives no numbers has no most likely token either
    values = tuple(math.nan for _ in asking.metrics) if lost else asking.judge(probe, given)
    return UtilityScore(probe.source, probe.subject, probe.kind, probe.query, probe.answers, answered, values)


def utility_metrics(name: str) -> tuple[str, ...]:
    """What the values of a utility set's scores are called; none for another set."""
    return ASKING[FILES[name].ability].metrics if name in FILES else ()
