"""Several requests: one after another, each on the model that the last one left, or each on the target itself.

What MUSE (Shi et al. 2024, arXiv 2407.06460) calls sustainability (mode sequential, forget sets "muse:news/sust") and
scalability (mode separate, "muse:news/scal": forget sets of growing size).
"""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from unlora.adapters.export import load_trained_adapter, read_adapter
from unlora.artifacts import write_json
from unlora.data.make_tokeniser import make_tokeniser
from unlora.data.muse import muse_folds
from unlora.data.records import ExampleSet
from unlora.data.same import same_examples
from unlora.data.sources import load_examples
from unlora.errors import InputError
from unlora.locks import alone_in_output, entries
from unlora.models.adapter_target import is_adapter, plain_base
from unlora.models.fingerprint import adapter_sha256
from unlora.models.load import load_tokenizer
from unlora.models.vocabulary import recorded_embedding_count
from unlora.recipes.export import export_adapter
from unlora.recipes.unlearn import unlearn
from unlora.run.level import with_fixed_source
from unlora.run.loading import load
from unlora.run.output import refuse_strangers
from unlora.run.reporter import SILENT, Reporter
from unlora.run.roles import once
from unlora.run.settings import ModelSettings, UnlearnSettings
from unlora.run.starting import chosen_start
from unlora.run.suites import evaluation_sets, tofu_of
from unlora.suites.scores import ModelScores
from unlora.suites.suite import SuiteReader
from unlora.suites.tofu.metrics import measure_tofu
from unlora.suites.tofu.scores import TOFU_FILE, ExampleScore

Mode = Literal["sequential", "separate"]

OWN_FILES = re.compile(r"(step|after)-\d+|\.(after-\d+|sequence\.json)\..*|sequence\.json")


@alone_in_output
def unlearn_sequence(
    settings: UnlearnSettings,
    forget: Sequence[str],
    output: Path,
    *,
    mode: Mode,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Run, or go on with, one unlearning run for each forget set, in the folders `output`/step-1, step-2, ...

    Each is an ordinary run folder. In mode sequential, step k starts from the target with the adapters of all earlier
    steps merged into it in memory; to load it again there is `output`/after-k, one LoRA adapter for the target (or,
    where the target is an adapter itself, for its base) that carries everything up to request k, and is what is
    deployed after it. No weight of the target is ever written to disk: after-k takes the room of k step adapters (and
    of the target's own), as its rank grows by 2r a request. In bfloat16 merging rounds the update to the format.

    Started again with the same forget sets, what is finished is not repeated; with more of them at the end, the
    sequence goes on: requests come when they come.

    Args:
        settings: of every step; its own data.forget is not used.
        forget: forget sets in the order of the requests; "muse:news/sust" and "muse:news/scal" stand for four each.
        output: folder of the sequence.
        mode: sequential, or separate: every step from the same target, in no relation to the others.
        reporter: where words and progress go.

    Returns:
        The content of sequence.json: {"mode", "retain", "steps": [{"step", "folder", "forget", "example_count",
        "current", "earlier", "retain"}]}. "current" has the metrics of the forget set and "retain" those of the retain
        set as {role: {name: measurement}}, the target being the model that the step started from; "earlier" has, in
        mode sequential, for every earlier forget set what the model of this step still knows of it. The last three are
        empty where the settings skip evaluation.

    Raises:
        InputError: anything wrong with the settings, a set, the target or the folder; nothing was written.
        UnloraError: the work failed; the same call goes on.
    """
    requests = [request for spec in forget for request in expand(spec)]
    _refuse_settings(settings, requests, mode)
    _refuse_folder(output, len(requests))
    steps = [_with_forget(settings, request) for request in requests]
    forget_sets = _load_requests(settings, steps)
    tokenizer = _refuse_untokenisable(settings, steps, forget_sets)

    record: dict[str, Any] = {"mode": mode, "retain": settings.data.retain, "steps": []}
    for number, (step, forget_set) in enumerate(zip(steps, forget_sets, strict=True), start=1):
        if mode == "sequential" and number > 1:
            step = _with_model(
                with_fixed_source(step),
                output / f"after-{number - 1}",
                plain_base(settings.model.name, settings.model.base),
            )
        folder = output / f"step-{number}"
        reporter.say(f"Request {number} of {len(steps)}: {step.data.forget}")
        evaluation = unlearn(step, folder, reporter=reporter)
        earlier: list[dict[str, Any]] = []
        if mode == "sequential":
            _keep_result(step.model, folder, output / f"after-{number}", tokenizer)
            if number > 1 and not step.evaluation.skip:
                earlier = _measure_earlier(step, folder, steps[: number - 1], reporter)
        record["steps"].append(
            {
                "step": number,
                "folder": folder.name,
                "forget": step.data.forget,
                "example_count": len(forget_set),
                "current": _metrics_of(evaluation, _is_about_forget),
                "earlier": earlier,
                "retain": _metrics_of(evaluation, _is_about_retain),
            }
        )
        write_json(output / "sequence.json", record)
    return record


def expand(spec: str) -> tuple[str, ...]:
    """Return the four forget sets that "muse:news/sust[@FOLDER]" or "muse:news/scal[@FOLDER]" stands for.

    Any other name stands for itself.
    """
    scheme, _, rest = spec.partition(":")
    name, at, folder = rest.partition("@")
    return tuple(f"muse:{fold}{at}{folder}" for fold in muse_folds(name)) if scheme == "muse" else (spec,)


def _refuse_settings(settings: UnlearnSettings, requests: Sequence[str], mode: Mode) -> None:
    if not requests:
        raise InputError("forget: names no forget set; give one a request.")
    for request in requests:
        if requests.count(request) > 1:
            raise InputError(f"forget: {request} is named twice; a request comes once.")
    if settings.start.fields.get("file") is not None:
        raise InputError("start.file: was measured for one forget set, and every step has another; leave it out.")
    if settings.evaluation.forget is not None:
        raise InputError("evaluation.forget: every step is evaluated on its own forget set; leave it out.")
    if len(requests) > 1 and Path(settings.evaluation.retain_only or "").suffix in (".json", ".jsonl"):
        raise InputError("evaluation.retain_only: saved scores are of one forget set; give the model itself.")
    if mode == "sequential" and is_adapter(settings.model.name):
        read_adapter(Path(settings.model.name))  # It must be one that later steps can be added to.


def _refuse_folder(output: Path, count: int) -> None:
    refuse_strangers(output, OWN_FILES, kind="sequence")
    names = [path.name for path in entries(output)] if output.is_dir() else []
    done = max((int(name.removeprefix("step-")) for name in names if name.startswith("step-")), default=0)
    if done > count:
        raise InputError(
            f"{output}: holds step-{done}, and this command names {count} forget sets; name all of them, in their "
            "order, or choose another --output."
        )


def _load_requests(settings: UnlearnSettings, steps: Sequence[UnlearnSettings]) -> list[ExampleSet]:
    """Load every forget set, and refuse a retain set that holds a part of one: it would be taught again."""
    retain = load_examples(settings.data.retain).examples if settings.data.retain is not None else ()
    forget_sets = [load_examples(step.data.forget) for step in steps]
    fewest = chosen_start(settings).fewest_examples()
    for examples in forget_sets:
        if len(examples) < fewest:
            advice = "add an example, or take --set start.statistic=second_moment"
            raise InputError(f"{examples.name}: holds one example, and a variance needs two; {advice}.")
        for example, place in zip(examples, same_examples(examples.examples, retain), strict=True):
            if place is not None:
                held = retain[place].source
                raise InputError(f"{example.source}: is to be forgotten, but the retain set holds it too ({held}).")
    return forget_sets


def _refuse_untokenisable(
    settings: UnlearnSettings, steps: Sequence[UnlearnSettings], forget_sets: Sequence[ExampleSet]
) -> PreTrainedTokenizerBase:
    """Find out before the first step whether the last one can be asked; return the target's tokenizer."""
    model = settings.model
    tokenizer = load_tokenizer(model.name, base=model.base, trust_remote_code=model.trust_remote_code)
    known = recorded_embedding_count(model.name, base=model.base, trust_remote_code=model.trust_remote_code)
    tokeniser = make_tokeniser(settings.data, tokenizer, known)
    for step, forget_set in zip(steps, forget_sets, strict=True):
        tokeniser.encode_set(forget_set)
        if not settings.evaluation.skip:
            asked = tofu_of(step.evaluation, step.data)
            asked.load()
            asked.prepare(SuiteReader(tokenizer, known))
    return tokenizer


def _with_forget(settings: UnlearnSettings, forget: str) -> UnlearnSettings:
    return settings.model_copy(update={"data": settings.data.model_copy(update={"forget": forget})})


def _with_model(settings: UnlearnSettings, folder: Path, base: str) -> UnlearnSettings:
    return settings.model_copy(update={"model": settings.model.model_copy(update={"name": str(folder), "base": base})})


def _keep_result(started_from: ModelSettings, run: Path, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the adapter that the next step starts from; made again each time, so that it cannot be stale."""
    if folder.exists():
        shutil.rmtree(folder)
    export_adapter(
        run,
        folder,
        public_base=is_adapter(started_from.name),
        trust_remote_code=started_from.trust_remote_code,
    )
    if (Path(started_from.name) / "tokenizer_config.json").is_file() and is_adapter(started_from.name):
        tokenizer.save_pretrained(folder)  # It lies beside the target's adapter, not in its base.


def _measure_earlier(
    step: UnlearnSettings, run: Path, earlier: Sequence[UnlearnSettings], reporter: Reporter
) -> list[dict[str, Any]]:
    """Ask the model of a step about every forget set before its own."""
    names = [f"step {number}" for number in range(1, len(earlier) + 1)]

    def ask() -> ModelScores[ExampleScore]:
        loaded = load(step.model)
        model = load_trained_adapter(loaded.model, run / "adapter")
        sets = {
            name: evaluation_sets(one.evaluation, one.data)["forget"] for name, one in zip(names, earlier, strict=True)
        }
        run_of = tofu_of(step.evaluation, step.data)
        asked = run_of.suite.prepare(sets, SuiteReader.of(loaded.model, loaded.tokenizer))
        return run_of.ask(model, asked, "earlier requests", reporter)

    file, adapter = run / "scores" / "earlier.jsonl", adapter_sha256(run / "adapter")
    scores = once(file, TOFU_FILE, ask, adapter=adapter)
    return [
        {"step": number, "forget": one.data.forget, "metrics": _forget_metrics(scores, name)}
        for number, (name, one) in enumerate(zip(names, earlier, strict=True), start=1)
    ]


def _forget_metrics(scores: ModelScores[ExampleScore], name: str) -> dict[str, Any]:
    measured = measure_tofu(ModelScores({"forget": scores.sets[name]}, scores.protocol), retain_only=None)
    # Forget quality needs a retain-only model for each request; the runs have it for their own.
    return {
        metric: one.to_json()
        for metric, one in measured.items()
        if _is_about_forget(metric) and not metric.startswith("forget_quality")
    }


def _metrics_of(evaluation: Mapping[str, Any], wanted: Callable[[str], bool]) -> dict[str, dict[str, Any]]:
    records = [evaluation, *evaluation.get("others", {}).values()]
    models = next((record["models"] for record in records if record.get("suite") == "tofu"), {})
    return {
        role: {name: value for name, value in model["metrics"].items() if wanted(name)}
        for role, model in models.items()
    }


def _is_about_forget(metric: str) -> bool:
    return metric.startswith("forget_") or metric in ("exact_memorisation", "extraction_strength")


def _is_about_retain(metric: str) -> bool:
    return metric.startswith(("retain_", "model_utility"))
