"""Look through a file as a run with the same settings would use it."""

from unlora.data.check import DataReport, check_data
from unlora.data.make_tokeniser import make_tokeniser
from unlora.data.sources import load_examples
from unlora.models.load import load_tokenizer
from unlora.models.vocabulary import recorded_embedding_count
from unlora.run.settings import DataCheckSettings


def check_file(settings: DataCheckSettings, against: str | None) -> DataReport:
    """Report on `data.forget`; `against` is another set to compare with.

    Raises:
        InputError: no such file, a bad line, or an example that cannot be tokenised; names the line.
    """
    examples = load_examples(settings.data.forget)
    other = load_examples(against) if against is not None else None
    model = settings.model
    tokenizer = load_tokenizer(model.name, base=model.base, trust_remote_code=model.trust_remote_code)
    known = recorded_embedding_count(model.name, base=model.base, trust_remote_code=model.trust_remote_code)
    return check_data(examples, make_tokeniser(settings.data, tokenizer, known), other)
