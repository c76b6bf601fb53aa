"""What is known of single characters: which belong to scripts that write no blanks, and which a text from elsewhere
must not bring to a terminal or a page, since they hide, recolour or forge what is read there.

The second are the control characters C0 and C1 without newline and tab, the separators and marks that break a line or
turn its direction round, and halves of surrogate pairs, which no UTF-8 output can hold.
"""

import re

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
REPLACEMENT = "\ufffd"

WITHOUT_BLANKS = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF),
                  (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))  # fmt: skip
"""Code points of scripts that write no blanks between words: Thai, Lao, Burmese, Khmer, Kana and Han."""


def visible(text: str) -> str:
    r"""Write such characters as they stand in a program, `\x1b` or `\u202e`: for a terminal."""
    return _UNSAFE.sub(_in_a_program, text)


def visible_json(text: str) -> str:
    r"""Write such characters within JSON as JSON does, `\u009b`; the text stays JSON of the same value."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def replaced(text: str) -> str:
    """Put U+FFFD in the place of such characters: for a page, in which a control character is no valid content."""
    return _UNSAFE.sub(REPLACEMENT, text)


def shortened(text: str, longest: int = 80) -> str:
    """Return `text`, its middle left out where it is longer than a line of a message has room for."""
    return text if len(text) <= longest else f"{text[: longest // 2]}...{text[-(longest // 2) :]}"


def _in_a_program(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
