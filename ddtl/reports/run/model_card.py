"""``card.md``: what must be known about a model by whoever uses it (Mitchell et al. 2019, Model Cards, FAT* 220).

The text is in ``templates/model_card.md.jinja``. Everything comes from the run's record; what no record can know is a
blank, ``[to be filled in: …]``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ddtl.reports import prose
from ddtl.reports.run import methods, stored
from ddtl.reports.run.stored import Stored
from ddtl.utils.errors import UserError


def render(found: Stored, external: Sequence[Stored], files: Sequence[str]) -> str:
    """Return the card, in Markdown.

    Args:
        found: the run.
        external: its evaluations on other data.
        files: the lines about the exported files, in Markdown.
    """
    return prose.document(
        "model_card.md.jinja",
        f=methods.facts(found),
        name=found.folder.name,
        files=[prose.Markdown(line) for line in files],
        external=[{"dataset": one.record["dataset"], "results": methods.results(one)} for one in external],
    )


def evaluations(found: Stored) -> list[Stored]:
    """Return the run's evaluations on other data, as far as they can be read."""
    read = []
    for results in sorted(found.folder.glob("evaluations/*/results.json")):
        try:
            read.append(stored.read(results.parent))
        except UserError:
            continue
    return read
