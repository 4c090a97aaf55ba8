"""The dashboard over HTTP: one page, the rows behind it, stored reports, and comparisons. It only ever reads.

Nothing below the runs folder is named by a path alone: what is served is a row of the index, its ``report.html``, its
curve, its settings and its log. Pages of other origins get nothing: the host is checked, which is what DNS rebinding
gets wrong, and so is the origin that the browser reports.

A stored page may be a stranger's. It is shown in a frame that cannot leave this server, in a sandbox in which nothing
but our own scripts runs: whatever somebody put into one can neither ask for the rest nor tell anybody anything.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ddtl.utils.errors import UserError
from ddtl.utils.reading import Unreadable, printable

if TYPE_CHECKING:
    from ddtl.dashboard.index import FolderRow, Index

MOST_COMPARED = 40
_FRESH = 0.5  # seconds for which the rows are not searched for again
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_SANDBOX = "allow-scripts allow-downloads"
_FRAMING = (
    "default-src 'none'; style-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# Where a request comes from, as a browser says: a page here, or a person.
_OURS = ("same-origin", "none")
_STATIC = {
    "dashboard.css": "text/css",
    "dashboard.js": "text/javascript",
    "panels.js": "text/javascript",
    "style.css": "text/css",
    "frame.css": "text/css",
    "plotly.css": "text/css",
    "colours.js": "text/javascript",
    "plotly.js": "text/javascript",
}


class CachedRows:
    """The index as the dashboard requests it: looked up again after half a second, by one request at a time."""

    def __init__(self, runs_dir: Path) -> None:
        self._index: Index | None = None
        self._lock = Lock()
        self._as_json: dict[str, tuple[FolderRow, str]] = {}
        self._at, self._rows, self._body, self._tag = -_FRESH, [], b"", ""  # type: ignore[var-annotated]
        self.runs_dir = runs_dir

    def now(self) -> tuple[list[FolderRow], bytes, str]:
        """Return the rows, the same as JSON, and a tag that changes with them."""
        from ddtl.dashboard.index import Index

        with self._lock:
            self._index = self._index or Index(self.runs_dir)
            if time.monotonic() - self._at >= _FRESH:
                self._rows = self._index.rows()
                encoded = [self._encoded(row) for row in self._rows]
                self._as_json = {row.path: (row, text) for row, text in encoded}
                head = _json({"runs_dir": str(self.runs_dir), "project": project(self.runs_dir), "maps": _maps()})
                listed = ", ".join(text for _, text in encoded)
                head = f'{head[:-1]}, "views": {_json(_views(self.runs_dir))}}}'
                self._body = f'{head[:-1]}, "rows": [{listed}]}}'.encode()
                self._tag = f'"{hashlib.sha256(self._body).hexdigest()[:20]}"'
                self._at = time.monotonic()
            return self._rows, self._body, self._tag

    def _encoded(self, row: FolderRow) -> tuple[FolderRow, str]:
        """Return a row as JSON, made again only where it is another one."""
        before = self._as_json.get(row.path)
        return before if before is not None and before[0] is row else (row, _json(vars(row)))

    def folders(self, paths: Sequence[str]) -> list[Path]:
        """Return the folders of rows.

        Raises:
            UserError: there is no such row, or it leads out of the runs folder.
        """
        known = {row.path for row in self.now()[0]}
        root = self.runs_dir.resolve()
        for path in paths:
            if path not in known or not (self.runs_dir / path).resolve().is_relative_to(root):
                raise UserError(f"{path}: there is no such run here.")
        return [self.runs_dir / path for path in paths]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _views(runs_dir: Path) -> dict[str, Any]:
    """Return the views that ``ddtl runs view`` keeps, and what is wrong with their file."""
    from ddtl.records import views

    try:
        return {"kept": list(views.read(runs_dir).items()), "problem": ""}
    except (OSError, Unreadable) as error:
        return {"kept": [], "problem": f"{views.NAME} cannot be read: {printable(getattr(error, 'reason', error))}"}


def project(runs_dir: Path) -> str:
    """Return what the page is named after: the folder of runs, or if its name is ``runs``, the folder of the project
    around it.
    """
    folder = runs_dir.absolute()
    return printable(folder.parent.name if folder.name == "runs" and folder.parent.name else folder.name or str(folder))


def app(runs_dir: Path, hosts: Sequence[str]) -> Starlette:
    """Return the application.

    Args:
        runs_dir: whose runs are shown.
        hosts: names under which it may be requested; ``*`` for any.
    """
    rows = CachedRows(runs_dir)

    async def home_page(request: Request) -> Response:
        headers = {**_HEADERS, "Content-Security-Policy": _POLICY}
        # Once the page is sent the records are read, while the browser fetches the rest of it.
        return HTMLResponse(_file("dashboard.html"), headers=headers, background=BackgroundTask(rows.now))

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _STATIC:
            return _nothing(f"{name}: there is no such file.")
        headers = {**_HEADERS, "Cache-Control": "max-age=3600"} if name == "plotly.js" else _HEADERS
        return Response(_file(name), media_type=_STATIC[name], headers=headers)

    async def list_rows(request: Request) -> Response:
        _, body, tag = await run_in_threadpool(rows.now)
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return Response(body, media_type="application/json", headers={**_HEADERS, "ETag": tag})

    def panel(name: str) -> Callable[[Request], Awaitable[Response]]:
        def show(paths: list[str]) -> Any:
            from ddtl.dashboard import panels

            return getattr(panels, name)(*_picked(rows, paths))

        async def answer(request: Request) -> Response:
            return JSONResponse(await run_in_threadpool(show, _paths(request)), headers=_HEADERS)

        return answer

    async def draw_sweep(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(_sweep, rows, _paths(request)), headers=_HEADERS)

    def page_of(path: str) -> Path:
        (folder,) = rows.folders([path])
        page = folder / "report.html"
        if not page.is_file() or page.is_symlink():
            raise UserError(f"{path} has no report.html yet; `ddtl report` writes one.")
        return page

    async def report(request: Request) -> Response:
        path = request.path_params["path"]
        page = await run_in_threadpool(page_of, path)
        html = await run_in_threadpool(_frame, path, page)
        return HTMLResponse(html, headers={**_HEADERS, "Content-Security-Policy": _FRAMING})

    async def show_framed(request: Request) -> Response:
        path = request.path_params["path"]
        page = await run_in_threadpool(page_of, path)
        if request.headers.get("sec-fetch-dest", "iframe") != "iframe":
            return _nothing(f"Open it in its frame: /report/{path}")
        return FileResponse(page, media_type="text/html; charset=utf-8", headers=_sandbox_headers())

    async def compare(request: Request) -> Response:
        try:
            html = await run_in_threadpool(_compare, rows, _paths(request), request.query_params.get("split", "test"))
        except UserError as error:
            html = await run_in_threadpool(_refuse, str(error))
            return HTMLResponse(html, status_code=422, headers=_sandbox_headers())
        return HTMLResponse(html, headers=_sandbox_headers())

    return Starlette(
        routes=[
            Route("/", home_page),
            Route("/favicon.ico", lambda request: Response(status_code=204)),
            Route("/static/{name}", static),
            Route("/api/rows", list_rows),
            Route("/api/curves", panel("curves")),
            Route("/api/differences", panel("differences")),
            Route("/api/logs", panel("logs")),
            Route("/api/sweep", draw_sweep),
            Route("/compare", compare),
            Route("/report/{path:path}", report),
            Route("/page/{path:path}", show_framed),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
            Middleware(_FromHere),
        ],
        exception_handlers={UserError: lambda request, error: _nothing(str(error))},
    )


class _FromHere:
    """Refuses what a page of another origin requests: all but the page that a link may lead to."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/":
            origin = Headers(scope=scope).get("sec-fetch-site", "none")
            if origin not in _OURS:
                refused = PlainTextResponse("Pages of other sites get nothing here.", 403, _HEADERS)
                await refused(scope, receive, send)
                return
        await self._inner(scope, receive, send)


def _sandbox_headers() -> dict[str, str]:
    """Return headers of a page that may be anybody's: no script runs but those that this version writes."""
    from ddtl.reports.html.page import full_policy

    policy = f"sandbox {_SANDBOX}; {full_policy()}; frame-ancestors 'self'"
    return {**_HEADERS, "Content-Security-Policy": policy, "X-DNS-Prefetch-Control": "off"}


def _frame(path: str, page: Path) -> str:
    """Return the page around a stored one, which says where that cannot be shown in full."""
    from ddtl.reports.html.page import is_of_this_version

    note = ""
    if not is_of_this_version(page):
        note = (
            "<p>This page was not written by this version of ddtl: charts and sorting are excluded. "
            f"<code>ddtl report {escape(path)}</code> rewrites it.</p>"
        )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(path.rpartition('/')[2])} · ddtl</title>"
        '<link rel="stylesheet" href="/static/frame.css"></head>'
        f'<body>{note}<iframe sandbox="{_SANDBOX}" src="/page/{quote(path)}" title="{escape(path)}"></iframe>'
        "</body></html>"
    )


def _paths(request: Request) -> list[str]:
    """Return the runs that a request names, each once."""
    return list(dict.fromkeys(request.query_params.getlist("run")))[:MOST_COMPARED]


def _picked(rows: CachedRows, paths: Sequence[str]) -> tuple[list[FolderRow], list[Path]]:
    """Return the rows of runs and their folders."""
    folders = rows.folders(paths)
    by_path = {row.path: row for row in rows.now()[0]}
    return [by_path[path] for path in paths], folders


def _sweep(rows: CachedRows, paths: Sequence[str]) -> list[dict[str, Any]]:
    """Return the charts of one sweep."""
    from ddtl.dashboard import panels

    picked, folders = _picked(rows, paths)
    if len(picked) != 1 or picked[0].kind != "sweep":
        raise UserError("Name one sweep: /api/sweep?run=sweeps/NAME")
    return panels.sweep(folders[0])


def _compare(rows: CachedRows, paths: Sequence[str], split: str) -> str:
    from ddtl.evaluation.comparison.comparison import compare
    from ddtl.reports.comparison import runs as compared
    from ddtl.reports.comparison.page import render_comparison

    if len(paths) < 2:
        raise UserError("Pick two runs or more to compare.")
    if split not in ("test", "val"):
        raise UserError(f"split={split}: there are test and val.")
    runs = compared.read(rows.folders(paths), split)
    return render_comparison(runs, compare(runs.methods))


def _refuse(why: str) -> str:
    from ddtl.reports.html.page import Page, Section, Text, render

    return render(Page("ddtl comparison", "These cannot be compared", sections=[Section("Why", [Text(why)])]))


def _nothing(why: str) -> Response:
    return PlainTextResponse(why, status_code=404, headers=_HEADERS)


@cache
def _maps() -> str:
    """Return the name that an element of the page must have, so that Plotly adds no styles of maps to it."""
    from ddtl.reports.html.page import map_style

    return map_style(_file("plotly.js"))


@cache
def _file(name: str) -> str:
    if name == "plotly.js":
        found = resources.files("plotly").joinpath("package_data", "plotly.min.js")
    elif name in ("style.css", "plotly.css", "colours.js"):
        found = resources.files("ddtl.reports.html").joinpath("templates", name)
    else:
        found = resources.files("ddtl.dashboard").joinpath("static", name)
    return found.read_text(encoding="utf-8")
