"""How `--suite` names a benchmark: "tofu", "muse:news", "muse:books@FOLDER", "wmdp", "wmdp:bio,cyber", "wmdp@FILE"."""

from typing import Any

import click

TOFU = "tofu"


class Suite(click.ParamType):
    """Turns the text into (benchmark, settings of its own)."""

    name = "suite"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, dict[str, Any]]:
        if not isinstance(value, str):
            return value
        text, _, place = value.partition("@")
        benchmark, _, part = text.partition(":")
        if benchmark == TOFU and not part and not place:
            return TOFU, {}
        if benchmark == "muse" and part in ("news", "books"):
            return "muse", {"corpus": part, **({"folder": place} if place else {})}
        if benchmark == "wmdp" and not (part and place):
            tasks = {"tasks": part.split(",")} if part else {}
            return "wmdp", tasks | ({"file": place} if place else {})
        self.fail(
            f"'{value}' is not one of tofu, muse:news, muse:books (with @FOLDER for local files), wmdp, wmdp:bio,cyber "
            "or wmdp@FILE.",
            param,
            ctx,
        )
