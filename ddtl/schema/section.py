"""What every part of a configuration is, and the types of its values with their bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Upper bounds are far beyond what is used: a number above them is a slip, and would fill memory or never end.
PositiveInt = Annotated[int, Field(ge=1, le=1_000_000)]
NonNegativeInt = Annotated[int, Field(ge=0, le=1_000_000)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
Thousands = Annotated[int, Field(ge=1, le=10_000)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Range = Annotated[tuple[Finite, Finite], Field(strict=False)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
Text = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what torch and numpy both take


class Section(BaseModel):
    """A frozen part of the configuration: no unknown keys, and no value quietly turned into another type."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
