"""How probable the true answers of a set are, with the composed adapter and without any."""

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from unlora.data.make_tokeniser import make_tokeniser
from unlora.data.records import ExampleSet
from unlora.data.settings import DataSettings
from unlora.data.tokenise import ExampleTokeniser
from unlora.ledger.entries import Probability
from unlora.models.score import score_completions
from unlora.models.vocabulary import embedding_count
from unlora.models.wrapping import CausalModel, unwrap
from unlora.run.sets import encode_in_pieces


def ask_both(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, data: DataSettings, examples: ExampleSet
) -> Probability:
    """Ask the model with its adapter on and off; the same number twice where it has none.

    Args:
        model: the ledger's, with the composition on it where there is one.
        tokenizer: of the model.
        data: template and lengths with which the records were forgotten.
        examples: the records.

    Raises:
        InputError: an example that cannot be tokenised.
    """
    now = ask_now(model, tokenizer, data, examples)
    if not isinstance(model, PeftModel):
        return Probability(target=now, now=now)
    with model.disable_adapter():
        return Probability(target=ask_now(model, tokenizer, data, examples), now=now)


def ask_now(model: CausalModel, tokenizer: PreTrainedTokenizerBase, data: DataSettings, examples: ExampleSet) -> float:
    """Ask the model as it is; arguments as of `ask_both`."""
    tokeniser = make_tokeniser(data, tokenizer, embedding_count(unwrap(model)))
    return mean_probability(model, tokeniser, examples)


def mean_probability(model: CausalModel, tokeniser: ExampleTokeniser, examples: ExampleSet) -> float:
    """Mean over the records of TOFU's probability, the geometric mean over an answer's tokens."""
    tokens = encode_in_pieces(tokeniser, examples)
    sequences = [(one.input_ids, one.prompt_length) for one in tokens]
    scores = score_completions(model, sequences, pad_token_id=tokeniser.pad_token_id)
    return sum(one.probability for one in scores) / len(scores)
