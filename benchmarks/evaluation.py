"""How fast answers are scored and generated, as a ratio to transformers called in a plain loop on the same questions.

    python -m benchmarks.evaluation [--model embedded] [--forget FILE --retain FILE] [--rounds 3] [--json FILE]

The plain loop takes one sequence at a time: `model(...)` on question and answer, `model.generate(...)` on the question.
Both have their turn in every round, so that a slow spell of the machine hits both; seconds are medians over rounds.
How far both come to the same result is printed beside it: a text can differ where rounding breaks a tie.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig

from benchmarks import measuring
from unlora.data.people import generate_people
from unlora.data.records import Example
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.models.generate import Writer, generate_greedy
from unlora.models.load import LoadedModel, load_model
from unlora.models.score import score_completions
from unlora.runtime import resolve_device, resolve_dtype

OURS, PLAIN = "unlora", "plain loop"


class Work(NamedTuple):
    """What one method did: tokens scored or written, and what came out."""

    token_count: int
    result: Any


class Questions(NamedTuple):
    """The same tokens for both methods."""

    sequences: list[tuple[tuple[int, ...], int]]
    prompts: list[tuple[int, ...]]
    pad_token_id: int


Methods = dict[str, dict[str, Callable[[], Work]]]


def main(argv: Sequence[str]) -> None:
    """Parse, measure, print, write."""
    parser = measuring.parser("evaluation", __doc__)
    parser.add_argument("--model", default="embedded", help="hub id, folder, adapter folder, or embedded")
    parser.add_argument("--base", help="for an adapter folder: its base")
    parser.add_argument("--forget", help="examples, as for `unlora evaluate`; by default fictitious people")
    parser.add_argument("--retain", help="more examples")
    parser.add_argument("--people", type=int, default=4, help="fictitious people, six questions each")
    parser.add_argument("--max-examples", type=int, help="of each file")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args(argv)
    device = resolve_device(options.device)
    loaded = load_model(options.model, base=options.base, dtype=resolve_dtype("auto", device), device=device)
    questions = ask(loaded, examples(options))
    results = measuring.report(
        "evaluation",
        argv,
        options,
        device,
        model=options.model,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
        sequence_count=len(questions.sequences),
        prompt_count=len(questions.prompts),
        work={name: measure(pair, options.rounds) for name, pair in methods(loaded, questions, options).items()},
    )
    measuring.finish(results, lines, options.json)


def examples(options: argparse.Namespace) -> list[Example]:
    """What the files hold, or people that nobody knows."""
    files = [file for file in (options.forget, options.retain) if file is not None]
    if not files:
        return list(generate_people(options.people))
    return [example for file in files for example in list(load_examples(file))[: options.max_examples]]


def ask(loaded: LoadedModel, asked: list[Example]) -> Questions:
    """Every answer, paraphrase and wrong answer to be scored, and every question to be answered; none twice."""
    tokeniser = ExampleTokeniser(loaded.tokenizer, template="plain", max_length=512)
    sequences: dict[tuple[tuple[int, ...], int], None] = {}
    for example in asked:
        others = [example.paraphrased_answer] if example.paraphrased_answer else []
        for answer in (example.completion, *others, *example.perturbed_answers):
            tokens = tokeniser.encode(example, completion=answer)
            sequences[tokens.input_ids, tokens.prompt_length] = None
    prompts = dict.fromkeys(tokeniser.prompt_ids(example) for example in asked)
    return Questions(list(sequences), list(prompts), tokeniser.pad_token_id)


def methods(loaded: LoadedModel, questions: Questions, options: argparse.Namespace) -> Methods:
    """The two kinds of work, each in our way and in the plain one."""
    model: Any = loaded.model
    tokenizer: Any = loaded.tokenizer
    sequences, prompts, pad_token_id = questions

    def count(texts: list[str]) -> int:
        return sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)

    def score() -> Work:
        scores = score_completions(model, sequences, pad_token_id=pad_token_id, batch_size=options.batch_size)
        return Work(sum(len(s.token_log_probs) for s in scores), [s.mean_log_prob for s in scores])

    @torch.no_grad()
    def score_plainly() -> Work:
        means = []
        for tokens, prompt_length in sequences:
            input_ids = torch.tensor([tokens], device=model.device)
            labels = input_ids.masked_fill(torch.arange(len(tokens), device=model.device) < prompt_length, -100)
            means.append(-float(model(input_ids=input_ids, labels=labels, use_cache=False).loss))
        return Work(sum(len(tokens) - prompt_length for tokens, prompt_length in sequences), means)

    def write() -> Work:
        writer = Writer(model, tokenizer, pad_token_id, options.batch_size)
        texts = generate_greedy(writer, prompts, options.max_new_tokens)
        return Work(count(texts), texts)

    def write_plainly() -> Work:
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=options.max_new_tokens,
            eos_token_id=model.generation_config.eos_token_id,
            pad_token_id=pad_token_id,
        )
        texts = []
        for prompt in prompts:
            input_ids = torch.tensor([prompt], device=model.device)
            output = model.generate(input_ids, attention_mask=torch.ones_like(input_ids), generation_config=settings)
            texts.append(tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True))
        return Work(count(texts), texts)

    return {"scoring": {OURS: score, PLAIN: score_plainly}, "generation": {OURS: write, PLAIN: write_plainly}}


def measure(pair: dict[str, Callable[[], Work]], rounds: int) -> dict[str, Any]:
    """Seconds of both methods in turn, after a round that warms up and is compared."""
    first = {name: method() for name, method in pair.items()}
    seconds: dict[str, list[float]] = {name: [] for name in pair}
    for _ in range(rounds):
        for name, method in pair.items():
            seconds[name].append(measuring.timed(method).seconds)
    ratios = [plain / ours for ours, plain in zip(seconds[OURS], seconds[PLAIN], strict=True)]
    return {
        "methods": {
            name: {
                "tokens": first[name].token_count,
                "seconds": statistics.median(times),
                "tokens_per_second": first[name].token_count / statistics.median(times),
            }
            for name, times in seconds.items()
        },
        "ratio": statistics.median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
        "agreement": agreement(first[OURS].result, first[PLAIN].result),
    }


def agreement(ours: list[Any], plain: list[Any]) -> str:
    """How far both methods came to the same result."""
    if isinstance(ours[0], str):
        return f"{sum(a == b for a, b in zip(ours, plain, strict=True))} of {len(ours)} texts equal"
    return (
        f"largest difference of a mean log-probability {max(abs(a - b) for a, b in zip(ours, plain, strict=True)):.1e}"
    )


def lines(results: dict[str, Any]) -> list[str]:
    """The figures, with what they were measured on."""
    rows = []
    for work, figures in results["work"].items():
        for name, method in figures["methods"].items():
            ratio = measuring.ratio_cell(figures) if name == OURS else "1.00"
            rows.append(
                [
                    work,
                    name,
                    str(method["tokens"]),
                    f"{method['seconds']:.2f}",
                    f"{method['tokens_per_second']:.1f}",
                    ratio,
                ]
            )
    return [
        *measuring.heading(results),
        f"{results['model']}: {results['sequence_count']} answers to score, {results['prompt_count']} to generate, "
        f"batch {results['batch_size']}",
        *measuring.table(["work", "method", "tokens", "seconds", "tokens/s", "ratio"], rows),
        *(f"{work}: {figures['agreement']}" for work, figures in results["work"].items()),
    ]


if __name__ == "__main__":
    measuring.run(main)
