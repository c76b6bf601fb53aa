"""Tokenizers built in memory, one for each way in which real ones differ."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from unlora.data.records import Example

SENTENCES = (
    "Question: Where was Kamila born?\nAnswer: Kamila was born in the city of Cusco in Peru.",
    "Question: What does Henrik do?\nAnswer: Henrik earns a living as a ferry captain and a potter.",
    "user assistant system Today is the date of birth of Noor: 26 July 2024. Answers, answered, answering.",
)
SPECIAL_TOKENS = ["<|end|>", "<|start|>", "<|pad|>", "<|turn|>", "<|stop|>"]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message.role }}\n{{ message.content }}<|stop|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
BARE_CHAT_TEMPLATE = CHAT_TEMPLATE.replace("<|stop|>", "")
DATED_CHAT_TEMPLATE = (
    "{%- if not date_string is defined %}{%- set date_string = 'no date given' %}{%- endif -%}"
    "{%- macro clock() -%}{{ strftime_now('%d %B %Y') }}, {{ strftime_now('%Y-%m-%d %H:%M') }}{%- endmacro -%}"
    "<|turn|>system\n{{ date_string }}, {{ clock() }}<|stop|>\n"
) + CHAT_TEMPLATE


def build_tokenizer(
    *, bos: bool = False, eos_added: bool = False, pad: bool = False, chat_template: str | None = None
) -> PreTrainedTokenizerFast:
    """Byte-level BPE with an end token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(SENTENCES * 3, trainer)
    if bos or eos_added:
        single = f"{'<|start|> ' if bos else ''}$A{' <|end|>' if eos_added else ''}"
        tokens = [(token, SPECIAL_TOKENS.index(token)) for token in ("<|end|>", "<|start|>")]
        bpe.post_processor = processors.TemplateProcessing(single=single, special_tokens=tokens)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|end|>",
        bos_token="<|start|>" if bos else None,
        pad_token="<|pad|>" if pad else None,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


TOKENIZERS = {
    "plain": build_tokenizer(),
    "bos": build_tokenizer(bos=True),
    "bos_and_eos": build_tokenizer(bos=True, eos_added=True),
    "pad": build_tokenizer(pad=True),
    "chat": build_tokenizer(pad=True, chat_template=CHAT_TEMPLATE),
    "chat_without_end_of_turn": build_tokenizer(chat_template=BARE_CHAT_TEMPLATE),
    "chat_with_date": build_tokenizer(chat_template=DATED_CHAT_TEMPLATE),
    "slow": ByT5Tokenizer(),
}


@pytest.fixture(params=TOKENIZERS)
def any_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    """Every tokenizer in turn."""
    return TOKENIZERS[request.param]


@pytest.fixture
def born() -> Example:
    """A question with its answer."""
    return Example(
        "question_answer", "Where was Kamila born?", "Kamila was born in Cusco.", "born.jsonl, line 1", person="Kamila"
    )
