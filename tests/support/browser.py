"""A headless Chromium spoken to over a pipe (the DevTools protocol): no driver, no server, no further package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# The browser reads from file descriptor 3 and writes to 4.
_START = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_PATIENCE = 240.0  # seconds for any one answer


def executable() -> str:
    """The browser; the test is skipped where there is none, or failed where DDTL_REQUIRE_BROWSER is set."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        reason = f"no browser: none of {', '.join(_NAMES)} is installed"
        (pytest.fail if os.environ.get("DDTL_REQUIRE_BROWSER") else pytest.skip)(reason)
    assert found is not None
    return found


class Tab:
    """One page.

    Attributes:
        complaints: what the console and the network said so far: errors, warnings, refused requests.
        requests: every address that was asked for.
    """

    def __init__(self, to: Any, answers: Any) -> None:
        self._to, self._answers = to, answers
        self._session: str | None = None
        self._last = 0
        self._unread = bytearray()
        self._arrived: set[str] = set()  # the documents that took the place of the one before
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def show(self, page: Path, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Open a file and wait until its charts are drawn."""
        self.go(page.resolve().as_uri(), width=width, height=height, dark=dark)
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 300))))")

    def go(self, address: str, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Open an address and wait until it is loaded."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        document = self._call("Page.navigate", url=address).get("loaderId")  # none where only the fragment changes
        until = time.monotonic() + _PATIENCE
        while document is not None and document not in self._arrived:  # else the one before answers that it is complete
            self._listen(json.loads(self._read()))
        while not self.run("document.readyState === 'complete'"):
            assert time.monotonic() < until, "the page did not load"
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of an expression on the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path: Path) -> None:
        """The page as it is printed."""
        path.write_bytes(base64.b64decode(self._call("Page.printToPDF", printBackground=True)["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == self._last:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self._listen(answer)

    def _read(self) -> bytes:
        while b"\0" not in self._unread:
            assert select.select([self._answers], [], [], _PATIENCE)[0], "the browser does not answer"
            data = os.read(self._answers.fileno(), 2**16)
            assert data, "the browser has ended"
            self._unread += data
        message, _, self._unread = self._unread.partition(b"\0")
        return bytes(message)

    def _listen(self, event: dict[str, Any]) -> None:
        method, told = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(told["entry"]["text"])
        elif method == "Page.frameNavigated" and "parentId" not in told["frame"]:
            self._arrived.add(told["frame"]["loaderId"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])


@contextmanager
def opened(profile: Path) -> Iterator[Tab]:
    """A browser with one empty page; ``profile`` is a folder for its files."""
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()
    command = [executable(), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += [f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    start = [sys.executable, "-c", _START, str(theirs_in), str(theirs_out), *command]
    process = subprocess.Popen(
        start,
        pass_fds=(theirs_in, theirs_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        with os.fdopen(ours_out, "wb") as to, os.fdopen(ours_in, "rb") as answers:
            yield Tab(to, answers)
    finally:
        process.terminate()
        process.wait(timeout=_PATIENCE)


def write_page(folder: Path, html: str) -> Path:
    """Write a page into a folder and return its path."""
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8")
    return path
