"""Getting a file over HTTP: with a limit, a timeout, and more tries where that can help.

Python's own client: it honours ``https_proxy``, ``no_proxy`` and ``SSL_CERT_FILE``.
"""

from __future__ import annotations

import base64
import http.client
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ddtl.utils.version import VERSION

_AGAIN = {408, 429, 500, 502, 503, 504}  # answers that may be another one a moment later


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        timeout: seconds without an answer.
        longest: seconds for one file, however slowly it comes.
        tries: how often a file is requested.
        pause: seconds before the second try; doubled before each further one.
        longest_pause: seconds; a server that requests a longer one (Retry-After) is not tried again.
    """

    timeout: float = 20.0
    longest: float = 300.0
    tries: int = 4
    pause: float = 1.0
    longest_pause: float = 60.0


class DownloadError(Exception):
    """A file could not be had; the message says why, as a predicate."""


def reach(url: str, timeout: float) -> None:
    """Whether anything answers at all, be it a refusal; checked once.

    Args:
        timeout: seconds for everything. A socket's own timeout counts for each address of a server again.

    Raises:
        DownloadError: nothing answers.
    """
    failure: list[str] = ["no answer"]

    def ask() -> None:
        try:
            with _open(url, "HEAD", timeout):
                failure.clear()
        except urllib.error.HTTPError as answer:
            answer.close()
            failure.clear()
        except (OSError, http.client.HTTPException) as error:
            failure[:] = [_reason(error)]
        except ValueError as error:  # a host or port that cannot be one
            failure[:] = [str(error)]

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout)
    if failure:
        raise DownloadError(failure[0])


def download(url: str, limit: int, patience: Patience, stop: threading.Event) -> bytes:
    """The content behind ``url``.

    Args:
        limit: more bytes than these are refused.
        stop: once set, nothing is requested again.

    Raises:
        DownloadError: it cannot be had.
    """
    pause = patience.pause
    for left in reversed(range(patience.tries)):
        wait = pause
        try:
            return _get(url, limit, patience)
        except urllib.error.HTTPError as answer:
            with answer:
                reason = f"the server answers {answer.code} {answer.reason}".rstrip()
                requested = answer.headers.get("Retry-After", "")
            wait = max(pause, float(requested)) if requested.isdecimal() else pause
            if answer.code not in _AGAIN or wait > patience.longest_pause:
                raise DownloadError(reason) from None
        except (OSError, http.client.HTTPException) as error:
            reason = _reason(error)
        if not left or stop.wait(wait):
            break
        pause *= 2
    raise DownloadError(f"{reason} (tried {patience.tries} times)")


class _Credentials(urllib.request.BaseHandler):
    """Sends the name and password of ``https://name:password@host/`` as HTTP has it, to that host alone."""

    handler_order = 100  # before a connection is made

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        credentials, at, host = (request.host or "").rpartition("@")
        if at:
            request.host = host
            encoded = base64.b64encode(urllib.parse.unquote_to_bytes(credentials)).decode("ascii")
            request.add_unredirected_header("Authorization", f"Basic {encoded}")
        return request

    https_request = http_request


@contextmanager
def credentials_sent() -> Iterator[None]:
    """Have ``urlopen``, wherever it is called, send the name and password that are in a URL."""
    urllib.request.install_opener(urllib.request.build_opener(_Credentials))
    try:
        yield
    finally:
        urllib.request.install_opener(urllib.request.build_opener())


def _open(url: str, method: str, timeout: float) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"ddtl/{VERSION}"}
    request = urllib.request.Request(url, headers=headers, method=method)
    answer: http.client.HTTPResponse = urllib.request.build_opener(_Credentials).open(request, timeout=timeout)
    return answer


def _get(url: str, limit: int, patience: Patience) -> bytes:
    end = time.monotonic() + patience.longest
    data = bytearray()
    with _open(url, "GET", patience.timeout) as answer:
        while part := answer.read1(2**16):
            data += part
            if len(data) > limit:
                raise DownloadError(f"the server sends more than {limit} bytes")
            if time.monotonic() > end:
                raise TimeoutError
        promised = answer.getheader("Content-Length", "")
    # Python's client does not complain of a connection that ends too early when it is read in parts.
    if promised.isdecimal() and len(data) < int(promised):
        raise ConnectionError(f"the connection was cut after {len(data)} of {promised} bytes")
    return bytes(data)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return " ".join(str(error).split()) or type(error).__name__
