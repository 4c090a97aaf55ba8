"""``embeddings.npz``: the features of the images of a run's predictions."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from ddtl.utils.reading import GIB, Unreadable, opened

_MOST_FEATURES = 65_536
_VERSIONS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def embeddings(path: Path, rows: int) -> np.ndarray:
    """Return (N, F) floats.

    Args:
        path: of the file.
        rows: N.

    Raises:
        OSError: it cannot be read.
        Unreadable: it is damaged, or not of that many images.
    """
    try:
        with opened(path, 4 * GIB) as file, zipfile.ZipFile(file) as archive, archive.open("embeddings.npy") as member:
            # The header first: an array of any size can be claimed.
            shape, in_columns, dtype = _VERSIONS[np.lib.format.read_magic(member)](member)
            if len(shape) != 2 or shape[0] != rows or not 2 <= shape[1] <= _MOST_FEATURES or dtype.kind != "f":
                raise Unreadable(path, f"should contain the features of {rows} images")
            data = member.read(rows * shape[1] * dtype.itemsize + 1)
            found: np.ndarray = np.frombuffer(data, dtype).reshape(shape, order="F" if in_columns else "C")
    except Unreadable:
        raise
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, RuntimeError):
        raise Unreadable(path, "is damaged") from None
    if not np.isfinite(found).all():
        raise Unreadable(path, "contains features that are not finite numbers")
    return found
