"""How a sweep is reproduced: the winning trial, what was searched and how, and what all trials shared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddtl.reports.html.page import Block, Code, Section, Table, Text
from ddtl.reports.sections.reproduce import TITLE, as_yaml
from ddtl.reports.sweep.record import Sweep, line, settings, spelled


def section(sweep: Sweep) -> Section:
    """Return the command, the space and the settings."""
    blocks: list[Block] = []
    if sweep.winner is not None:
        blocks += [Text("The winning trial as it ran, without using the test set:"), Code(line(sweep.winner))]
    if sweep.space:
        blocks.append(_space(sweep.space))
    how = {key: v for key, v in sweep.record["identity"].items() if not key.startswith(("space.", "train."))}
    shared = as_yaml("What all trials shared", settings(sweep))
    return Section(TITLE, [*blocks, as_yaml("Sampler and pruner", how), shared])


def _space(space: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [[name, _range(spec), " or ".join(spec.get("where", ())) or "always"] for name, spec in space.items()]
    return Table("What was searched", ["", "values", "where"], rows, words=(1, 2))


def _range(spec: Mapping[str, Any]) -> str:
    if "choice" in spec:
        return ", ".join(map(spelled, spec["choice"]))
    kind = "int" if "int" in spec else "float"
    low, high = spec[kind]
    how = ", on a log scale" if spec.get("log") else f", in steps of {spec['step']:g}" if spec.get("step") else ""
    return f"{low:g} to {high:g}{' (whole numbers)' if kind == 'int' else ''}{how}"
