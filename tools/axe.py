"""Search every kind of page and the dashboard for barriers, with axe-core in Chromium, light and dark, wide and narrow.

python -m tools.axe                # all
python -m tools.axe run dashboard  # some: run, leaky, classes, sweep, audit, comparison, study, lr_find, dashboard

Exit codes: 0 none that is serious or critical, 1 there are such, 2 axe-core or Chromium cannot be had.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.support import browser

# What tests show in a browser; imported by name, as they are not checked for types.
_SERVER, _BOXES, _PAGES = map(
    import_module, ("tests.dashboard.test_server", "tests.reports.test_boxes", "tests.reports.test_pages")
)

VERSION = "4.11.4"
SHA256 = "97175f79b2bd57adf1d4a55837f574093883bd9eb8096ea66abfafe2f2bdbdb9"  # of the package's archive
FOLDER = Path(__file__).resolve().parents[1] / "build" / "axe"
FORMS = [(width, dark) for width in (1280, 390) for dark in (False, True)]
Violations = list[dict[str, Any]]
GRAVE = ("serious", "critical")
# What Plotly draws has the words of its figure; its thousands of marks would take minutes.
_RUN = """axe.run({exclude: [[".main-svg"]]}, {resultTypes: ["violations"]}).then(found =>
  JSON.stringify(found.violations.map(one => ({id: one.id, impact: one.impact, help: one.help,
  nodes: one.nodes.map(node => node.target.join(" "))}))))"""
# What is done before a view of the dashboard is searched, and what must then be there.
_CLICK = "for (const one of document.querySelectorAll({0})) one.click()"
VIEWS = {
    "dashboard": ("", "document.querySelectorAll('#body tr').length > 3"),
    "dashboard, menus open": (
        _CLICK.format("'#columns summary, #views summary'"), "document.getElementById('view-box').checkVisibility()",
    ),
    "dashboard, runs picked": (
        _CLICK.format("'#columns summary, #views summary'")
        + ";[...document.querySelectorAll('#body .pick input')].slice(0, 2).forEach(one => one.click());"
        + _CLICK.format("'#curves, #differences, #logs'"),
        "document.querySelectorAll('#charts .main-svg').length > 0",
    ),
    "dashboard, a sweep": (
        _CLICK.format("'#none, #body .holder button.small'"),
        "document.querySelectorAll('#sweep-charts .main-svg').length > 0",
    ),
}  # fmt: skip


def axe() -> str:
    """Return the source of axe-core, fetched with npm where it is not there yet.

    Raises:
        SystemExit: it cannot be fetched, or is another one.
    """
    archive = FOLDER / f"axe-core-{VERSION}.tgz"
    if not archive.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit("error: npm is needed to fetch axe-core: apt-get install npm")
        command = [npm, "pack", f"axe-core@{VERSION}", "--silent", "--pack-destination", str(FOLDER)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            raise SystemExit(f"error: npm cannot fetch axe-core {VERSION}; put its archive here: {archive}")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"error: {archive} is not axe-core {VERSION}. Delete it, and the command fetches it again.")
    with tarfile.open(archive) as packed:
        file = packed.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


def violations(tab: browser.Tab, source: str) -> Violations:
    """Return what axe-core finds on the page that is open."""
    tab.run(f"{source};0")
    found: Violations = json.loads(tab.run(_RUN))
    return found


def pages(tab: browser.Tab, source: str, folder: Path, names: Sequence[str]) -> Iterator[tuple[str, Violations]]:
    """Yield every kind of page in every form, with what is found there."""
    for make in (*_BOXES.MAKERS, _PAGES.MAKERS[-1]):
        name = make.__name__.strip("_")
        if names and name not in names:
            continue
        (folder / name).mkdir()
        page = make(folder / name)
        for width, dark in FORMS:
            tab.show(page, width=width, dark=dark)
            yield _title(name, width, dark), violations(tab, source)


def dashboard(tab: browser.Tab, source: str, folder: Path, names: Sequence[str]) -> Iterator[tuple[str, Violations]]:
    """Yield every view of the dashboard in every form, with what is found there."""
    if names and "dashboard" not in names:
        return
    with _SERVER.served(_SERVER.write_project(folder)) as port:
        for width, dark in FORMS:
            tab.go("about:blank", width=width)
            tab.go(f"http://127.0.0.1:{port}/", width=width, dark=dark)
            for name, (script, done) in VIEWS.items():
                tab.run(f"{{{script}}};0")
                _SERVER.until(tab, done)
                yield _title(name, width, dark), violations(tab, source)


def _title(name: str, width: int, dark: bool) -> str:
    return f"{name}, {width} px, {'dark' if dark else 'light'}"


def main() -> int:
    """Print what is found, each once with where; return the exit code."""
    source = axe()
    grave, searched = 0, 0
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place,
        browser.opened(Path(place) / "profile") as tab,
    ):
        for where in (pages, dashboard):
            folder = Path(place) / where.__name__
            folder.mkdir()
            for name, found in where(tab, source, folder, sys.argv[1:]):
                searched += 1
                sys.stdout.flush()
                for one in found:
                    grave += one["impact"] in GRAVE
                    print(f"{one['impact']}: {name}: {one['id']}: {one['help']}")
                    for node in one["nodes"][:5]:
                        print(f"    {node}")
    print(f"{searched} pages and views searched by axe-core {VERSION}: {grave} serious or critical violations")
    return 1 if grave else 0


if __name__ == "__main__":
    sys.exit(main())
