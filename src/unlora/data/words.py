"""The words that a model reads in a text, whatever its spelling, and without what a template writes around them."""

import functools
import html
import re
import unicodedata

from unlora.characters import WITHOUT_BLANKS

Words = tuple[str, ...]

_TAG = r"<[|｜][^<>|｜\s]{1,40}[|｜]?>"
_MARKUP = re.compile(rf"<\|channel\|>\s*\w+|{_TAG}|<<?[/\w:.|-]{{1,40}}>?>|\[/?[A-Z_]{{2,20}}\]")
"""Special tokens written out: <|im_end|>, <｜User｜>, <s>, <end_of_turn>, [INST], <<SYS>>, <|channel|>final."""
_SYSTEM = re.compile(
    rf"(?s)(?:{_TAG}|<start_of_turn>)\s*(?:system|developer)[ \t]*(?:\n|{_TAG}).*?(?={_TAG}|<end_of_turn>|\Z)"
    rf"|<[|｜](?:system|developer)[|｜]>.*?(?={_TAG}|</s>|\Z)"
    r"|<<SYS>>.*?<</SYS>>|\[SYSTEM_PROMPT\].*?\[/SYSTEM_PROMPT\]"
)
"""A system turn of rendered text, which says nothing about the record."""
_PREAMBLE = re.compile(
    r"Below is an instruction that describes a task.{0,120}?completes the request\."
    r"|A chat between a curious (?:user|human) and an artificial intelligence assistant\."
    r"(?: The assistant gives helpful, detailed, and polite answers to the (?:user|human)'s questions\.)?"
)
"""How prompts in the forms of Alpaca and Vicuna begin."""
_ROLES = "user|assistant|system|model|human"
_NAMES = f"question|answer|q|a|instruction|response|{_ROLES}"
_LABELS = re.compile(rf"(?im)\b(?:{_NAMES})\s*[:：]|^\s*(?:{_ROLES}|#+\s*(?:{_NAMES}))\s*$")
"""What a template writes around a question or an answer: "Question:", or a line that names the role alone."""

_IGNORABLE = (
    *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0),
    *range(0x180B, 0x1810),
    *range(0xFE00, 0xFE10),
    *range(0xE0000, 0xE1000),
)
"""Code points that Unicode calls default ignorable, beside the format characters: nothing is drawn for them."""
_BLANK_SIGNS = (0x2800, 0x2581)
"""Symbols that stand for a blank: of Braille, and of SentencePiece."""
_QUOTES = "`´"
"""Quotation marks that Unicode counts among symbols."""

_BY_ITSELF = re.compile(f"[{''.join(f'{chr(first)}-{chr(last)}' for first, last in WITHOUT_BLANKS)}]")
"""A character of a script without blanks."""


def words(text: str) -> Words:
    """Split `text` into its words in Unicode's compatibility form, case folded; invisible characters vanish.

    Words are letters, digits and symbols; blanks and punctuation part them. In scripts that write no blanks each
    character is a word: whether a blank stands beside a number or a Latin word makes no difference there. Labels,
    special tokens and system turns that a template writes do not count; character references (&amp;) stand for what
    they mean. Text of punctuation alone is one word, so that it equals itself and nothing else.
    """
    if not text:
        return ()
    plain = without_template(text)
    if plain.isascii():
        found = tuple(plain.casefold().translate(_ascii_separators()).split())
    else:
        plain = unicodedata.normalize("NFKC", plain).casefold().translate(_separators())
        # Folding case, or an invisible character gone, can leave a text out of its composed form.
        found = tuple(_BY_ITSELF.sub(r" \g<0> ", unicodedata.normalize("NFKC", plain)).split())
    return found or tuple("".join(text.split())[:1] and ["".join(text.split())])


def without_template(text: str) -> str:
    """Leave out what a template writes: system turns, special tokens, labels."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text or "[" in text:
        text = _MARKUP.sub("\n", _SYSTEM.sub("\n", text))
    if ":" in text or "：" in text or "\n" in text:
        text = _LABELS.sub(" ", _PREAMBLE.sub(" ", text))
    return text


@functools.cache
def _separators() -> dict[int, str | None]:
    """Punctuation and blanks become a blank; format characters (zero width, soft hyphen, direction) vanish."""
    table: dict[int, str | None] = {}
    for code in range(0x20000):
        category = unicodedata.category(chr(code))
        if category[0] in "PZ" or category == "Cc":
            table[code] = " "
        elif category == "Cf":
            table[code] = None
    return table | dict.fromkeys(_IGNORABLE) | dict.fromkeys((*map(ord, _QUOTES), *_BLANK_SIGNS), " ")


@functools.cache
def _ascii_separators() -> dict[int, str | None]:
    """The part of the table that text in ASCII needs; a small table is read much faster."""
    return {code: to for code, to in _separators().items() if code < 128}
