"""A web server on this machine that misbehaves as it is told, and a small public dataset for it to serve."""

from __future__ import annotations

import csv
import hashlib
import io
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from ddtl.data.datasets import registry
from ddtl.data.download import published
from ddtl.data.download.published import Origin
from ddtl.data.images.perceptual_hash import difference_hash

TOY = Origin(
    name="toy",
    title="Toy CT",
    repository="someone/toy-ct",
    commit="0123456789abcdef0123456789abcdef01234567",
    folder="Images of toys",
    other_sources="",
    licence="none stated",
    grouping="none",
    notes=(),
)
NAMES = [*(f"COVID/71%{n} [a] (b).png" for n in range(6)), *(f"non-COVID/pic#{n}?.png" for n in range(6))]
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def picture(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A cloudy gray picture, unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **settings: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def toy_images() -> dict[str, bytes]:
    """Sample id -> the published file of the small dataset."""
    return {name: encoded(picture(seed)) for seed, name in enumerate(NAMES)}


def install_toy(package: Path, patch: pytest.MonkeyPatch) -> None:
    """Make the small dataset a public one, its index table as ``package/index/toy.csv``."""
    if not package.exists():
        write_toy_index(package)
    patch.setattr(published, "resources", SimpleNamespace(files=lambda name: package))
    patch.setitem(registry.ORIGINS, "toy", TOY)


def write_toy_index(package: Path) -> None:
    (package / "index").mkdir(parents=True)
    columns = ["sample_id", "label", "patient_id", "site", "split", "cluster_id", "bytes", "sha256", "dhash"]
    with (package / "index" / "toy.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for seed, (name, data) in enumerate(toy_images().items()):
            label = int(name.startswith("COVID/"))
            digest = hashlib.sha256(data).hexdigest()
            writer.writerow([name, label, "", "x", "", "", len(data), digest, f"{difference_hash(picture(seed)):064x}"])


@dataclass(frozen=True)
class Answer:
    """One answer of the server; ``cut`` bytes of the body come before the connection ends."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    wait: float = 0.0


class Server(ThreadingHTTPServer):
    """Serves ``files`` by path; ``faults`` holds answers to be given first, the last one of a list again and again.

    Whoever asks after the first ``prompt`` requests waits ``delay`` seconds.
    """

    daemon_threads = True
    request_queue_size = 128  # of clients that connect while this process does not run: with five, the others wait

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes | Path] = {}
        self.faults: dict[str, list[Answer | None]] = {}
        self.delay = 0.0
        self.prompt = 0
        self.asked: list[str] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def times(self) -> Counter[str]:
        """How often each sample id was asked for."""
        return Counter("/".join(path.split("/")[-2:]) for path in self.asked)

    def answer(self, path: str) -> Answer:
        with self.lock:
            self.asked.append(path)
            wait = self.delay if len(self.asked) > self.prompt else 0.0
            told = self.faults.get(path, [])
            fault = (told.pop(0) if len(told) > 1 else told[0]) if told else None
        if fault is not None:
            return fault
        if path not in self.files:
            return Answer(b"nothing here", status=404)
        file = self.files[path]
        return Answer(file if isinstance(file, bytes) else file.read_bytes(), wait=wait)

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that were killed


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        answer = self.server.answer(unquote(self.path))
        time.sleep(answer.wait)
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body if answer.cut is None else answer.body[: answer.cut])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    """A server in a thread."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


_taken: list[socket.socket] = []


def closed_port() -> int:
    """A port at which nobody listens, and nobody will while the tests run."""
    taken = socket.socket()
    _taken.append(taken)
    taken.bind(("127.0.0.1", 0))
    port: int = taken.getsockname()[1]
    return port
