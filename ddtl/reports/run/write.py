"""Write the page and the methods text of a run into its folder. No torch."""

from __future__ import annotations

from pathlib import Path

from ddtl.reports.run import methods, report, stored
from ddtl.utils.files import write_text


def write_page(folder: Path, images: bool = True) -> Path:
    """Write ``report.html`` and ``methods.md`` into the folder of a run or an evaluation.

    Args:
        folder: of a finished run.
        images: whether the page of a run that `ddtl explain` has seen shows its images.

    Returns:
        The page's path.

    Raises:
        UserError: the folder contains no finished run.
    """
    found = stored.read(folder)
    write_text(folder / "methods.md", methods.render(found))
    page = folder / "report.html"
    write_text(page, report.render_run(found, images))
    return page
