"""The colours of the pages: readable in both schemes, by WCAG 2.2's contrast ratio (1.4.3, at least 4.5 for text)."""

from __future__ import annotations

import re
from importlib import resources

import pytest

CSS = resources.files("ddtl.reports.html").joinpath("templates", "style.css").read_text(encoding="utf-8")
TEXT_ON = [
    ("ink", "ground"), ("muted", "ground"), ("quiet", "ground"), ("accent", "ground"), ("bad", "ground"),
    ("good", "ground"), ("ink", "surface"), ("muted", "surface"), ("warn", "surface"), ("bad", "surface"),
    ("ink", "warn-ground"), ("warn", "warn-ground"),
]  # fmt: skip
LINES = [(f"series-{i}", "ground") for i in range(1, 7)]  # 1.4.11: 3 for what a chart is read by


def colours(dark: bool) -> dict[str, str]:
    """The hexadecimal colours of a scheme by name."""
    light, _, rest = CSS.partition("@media screen and (prefers-color-scheme: dark)")
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))
    return found | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", rest[: rest.index("* {")])) if dark else found


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_ratio_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("text", "ground"), TEXT_ON)
def test_text_can_be_read(text: str, ground: str, dark: bool) -> None:
    found = colours(dark)
    assert contrast(found[text], found[ground]) >= 4.5


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("line", "ground"), LINES)
def test_lines_of_charts_can_be_told_from_the_ground(line: str, ground: str, dark: bool) -> None:
    found = colours(dark)
    assert contrast(found[line], found[ground]) >= 3
