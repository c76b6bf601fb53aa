"""Held-out facts: unlearning sees a part, and both parts are asked (after Deeb & Roger 2024, arXiv 2410.08827)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from unlora.data.facts import NamedPart, read_part
from unlora.data.make_tokeniser import make_tokeniser
from unlora.data.records import ExampleSet
from unlora.data.same import same_examples
from unlora.data.settings import DataSettings
from unlora.data.sources import load_examples
from unlora.errors import InputError
from unlora.results import Measurement, mean_measurement
from unlora.suites.scores import ModelScores
from unlora.suites.suite import Asked, SuiteReader
from unlora.suites.tofu.ask import prepare_sets
from unlora.suites.tofu.protocols import protocol_in_force
from unlora.suites.tofu.scores import ExampleScore
from unlora.suites.tofu.suite import AskedAsTofu


class HeldOut(AskedAsTofu):
    """What unlearning has seen, beside facts of the same kind that it has not: both are to be forgotten."""

    name: ClassVar[str] = "held_out"

    data: DataSettings
    """Its forget set is "facts:seen@SET"; what is held out of SET is asked too."""

    @property
    def named(self) -> NamedPart:
        """The part that unlearning sees.

        Raises:
            InputError: the forget set is no part of a set, or the one that is held out.
        """
        found = read_part(self.data.forget)
        if found is None or found.part != "seen":
            raise InputError(
                f"held_out: the forget set is {self.data.forget}, and must be a part that is seen, facts:seen@SET."
            )
        return found

    def load(self) -> dict[str, ExampleSet]:
        """Load both parts.

        Raises:
            InputError: the set is not there or cannot be divided, or the retain set holds a fact that is held out.
        """
        named = self.named
        seen, held_out = named.split.divide(load_examples(named.whole))
        if self.data.retain is not None:
            retain = load_examples(self.data.retain)
            same = same_examples(held_out.examples, retain.examples)
            for one, place in zip(held_out, same, strict=True):
                if place is not None:
                    where = retain.examples[place].source
                    raise InputError(f"held_out: {one.source} is held out, and the retain set teaches it ({where}).")
        return {"seen": self._first(seen), "held_out": self._first(held_out)}

    def _first(self, examples: ExampleSet) -> ExampleSet:
        count = protocol_in_force("unlora", max_examples=self.max_examples).max_examples
        return examples if count is None else examples.select(count)

    def prepare(self, loaded: Mapping[str, ExampleSet], reader: SuiteReader) -> Asked:
        """Turn both parts into questions.

        Raises:
            InputError: an example that cannot be tokenised, with its line, or a template that is not there.
        """
        tokeniser = make_tokeniser(self.data, reader.tokenizer, reader.embedding_count)
        asked = prepare_sets(loaded, tokeniser, protocol_in_force("unlora", max_examples=self.max_examples))
        split = self.named.split
        how = {"share": split.share, "by": split.by, "seed": split.seed}
        return asked._replace(protocol={**asked.protocol, "split": how})

    def measure(
        self, scores: ModelScores[ExampleScore], retain_only: ModelScores[ExampleScore] | None
    ) -> dict[str, Measurement]:
        """Mean answer probability a token and ROUGE-L recall of both parts, in [0, 1]; low is good.

        Where `seen_probability` is low and `held_out_probability` is near the target's, only the sentences that
        training saw were suppressed.
        """
        return {
            f"{part}_{name}": mean_measurement([getattr(one, name) for one in asked], higher_is_better=False)
            for part, asked in scores.sets.items()
            for name in ("probability", "rouge_l_recall")
        }

    def recorded(self, protocol: Mapping[str, Any]) -> dict[str, Any]:
        """The protocol, and how the facts were divided."""
        return {key: value for key, value in protocol.items() if key not in ("batch_size", "dtype")}
