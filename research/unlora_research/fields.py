"""Kinds of values that the settings of several studies have."""

from typing import Annotated

from pydantic import AfterValidator, Field

from unlora_research.recipe import recipe

Positive = Annotated[float, Field(gt=0)]
Rates = Annotated[tuple[Positive, ...], Field(min_length=1)]
"""Learning rates or standard deviations."""


def _known(name: str) -> str:
    recipe(name)
    return name


Presets = Annotated[tuple[Annotated[str, AfterValidator(_known)], ...], Field(min_length=1)]
