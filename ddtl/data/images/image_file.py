"""An image file, opened; and the error that names it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from ddtl.utils import reading
from ddtl.utils.errors import UserError


class BadImageError(UserError):
    """An image file that cannot be used.

    Attributes:
        path: the file.
        reason: why, as a predicate: ``is empty (0 bytes)``, ``contains text, not an image``, …
        kind: what a DICOM file is instead of a slice, such as ``localizer``; empty where it is damaged.
    """

    def __init__(self, path: Path | str, reason: str, kind: str = "") -> None:
        super().__init__(path, reason, kind)
        self.path = Path(path)
        self.reason = reason
        self.kind = kind

    def __str__(self) -> str:
        return f"{reading.printable(self.path)} {self.reason}"


def read_bytes(path: Path) -> bytes:
    """The file's content.

    Raises:
        BadImageError: there is no such file, it is not a regular one or is too large, or it cannot be read.
    """
    with _named_unreadable(path):
        return reading.read_bytes(path, reading.IMAGE)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file, open for reading; where that fails, raises what :func:`read_bytes` raises."""
    with ExitStack() as stack:
        with _named_unreadable(path):
            file = stack.enter_context(reading.opened(path, reading.IMAGE))
        yield file


def read_start(path: Path, count: int) -> bytes:
    """The first bytes of a file, however large it is; none where it cannot be read, and :func:`read_bytes` says why."""
    try:
        with reading.opened(path, sys.maxsize) as file:
            return file.read(count)
    except (reading.Unreadable, OSError):
        return b""


@contextmanager
def _named_unreadable(path: Path) -> Iterator[None]:
    """Make a ``BadImageError`` of why a file cannot be opened."""
    try:
        yield
    except reading.Unreadable as error:
        raise BadImageError(path, error.reason) from None
    except FileNotFoundError:
        raise BadImageError(path, "does not exist") from None
    except OSError as error:
        raise BadImageError(path, f"cannot be read: {error.strerror or error}") from None
