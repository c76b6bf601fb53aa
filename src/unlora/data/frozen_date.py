"""The date that chat templates see: always the same, so that a score does not change over night."""

import datetime
from collections.abc import Mapping

FROZEN_DATE = datetime.datetime(2024, 7, 26)
FROZEN_DATE_TEXT = FROZEN_DATE.strftime("%d %b %Y")

MOST_FORMATS = 100
"""Ways to write the date that one template may ask for."""

# transformers gives templates a `strftime_now` that reads the clock and accepts no other function; a macro shadows it.
# It knows the formats that it was asked for before, and stops at another one, which is then written for it. It ends in
# a newline, which Jinja drops behind a tag, so that the template begins at the beginning of a line as it does alone.
_UNKNOWN = "unlora-date:"
_CLOCK = (
    "{%- macro strftime_now(format) -%}"
    "{{ unlora_dates[format] if format in unlora_dates else raise_exception('" + _UNKNOWN + "' ~ format) }}"
    "{%- endmacro %}\n"
)


class FrozenClock:
    """Lets templates be rendered on `FROZEN_DATE`, however they want it written."""

    prefix = _CLOCK
    """Goes before the template."""

    def __init__(self) -> None:
        self._dates: dict[str, str] = {}

    @property
    def variables(self) -> Mapping[str, dict[str, str]]:
        """What the prefix reads, beside the template's own variables."""
        return {"unlora_dates": self._dates}

    def learns(self, error: Exception) -> bool:
        """Whether a template stopped at a format not known yet: it is now, and the template can be rendered again."""
        kind, found, wanted = str(error).partition(_UNKNOWN)
        if kind or not found or wanted in self._dates or len(self._dates) >= MOST_FORMATS:
            return False
        self._dates[wanted] = FROZEN_DATE.strftime(wanted)
        return True
