"""The pointing game: is the hottest cell of a heat map in a lesion? Pure functions of maps and masks.

Zhang et al. (2018, International Journal of Computer Vision 126:1084, Top-down Neural Attention by Excitation Backprop)
count a hit where the maximum is in the object or within 15 pixels of it, on photographs of about 500 pixels a side.
Here a hit is strict, in the lesion itself, and what their tolerance (3 % of the side) would count is given with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ddtl.evaluation.intervals.proportions import proportion, wilson

TOLERANCE = 15 / 500  # of the image's side


def hottest(maps: np.ndarray) -> np.ndarray:
    """Return the middle of each map's hottest cell, (N, 2): x and y from 0 to 1.

    Args:
        maps: (N, h, w) at the resolution of the layer. An enlarged map has its maximum on a plateau that reaches to the
            image's edge where a cell at the edge is the hottest.
    """
    n, h, w = maps.shape
    y, x = np.divmod(maps.reshape(n, -1).argmax(axis=1), w)
    return np.stack([(x + 0.5) / w, (y + 0.5) / h], axis=1)


def grow(lesion: np.ndarray, share: float) -> np.ndarray:
    """Return a lesion mask (H, W) and all pixels within ``share`` of the side around it."""
    from scipy.ndimage import distance_transform_edt

    if share == 0 or not lesion.any():
        return lesion
    near: np.ndarray = distance_transform_edt(~lesion) <= share * max(lesion.shape)
    return near


def inside(points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return (N,) which of the points (N, 2), x and y from 0 to below 1, are in a mask (H, W)."""
    found: np.ndarray = mask[(points[:, 1] * mask.shape[0]).astype(int), (points[:, 0] * mask.shape[1]).astype(int)]
    return found


def game(maps: np.ndarray, lesions: Sequence[np.ndarray], patients: np.ndarray, level: float) -> dict[str, Any]:
    """Return how often the hottest cell is in a lesion, strictly and with Zhang's tolerance.

    Args:
        maps: (N, h, w), N at least 1, before negative values are cut off: so each has a hottest cell, also where
            nothing speaks for the class, and a network that sees nothing is not helped to fewer hits than chance.
        lesions: N masks (H, W), bool.
        patients: (N,) whose image each is.
        level: of the intervals, which keep the images of a patient together (Wilson at the effective number of images).

    Returns:
        ``images``, ``patients``, ``empty`` (maps in which nothing speaks for the class), and for ``strict`` and
        ``tolerant`` each the tolerance, ``hits``, their ``share`` with ``low`` and ``high``, and two levels of chance:
        ``chance``, of a point anywhere in the image, and ``other_patients``, of the same points in the lesions of
        other patients, which is what a map reaches that knows only where lesions usually are.
    """
    points = hottest(maps)
    record: dict[str, Any] = {
        "images": len(maps),
        "patients": len(np.unique(patients)),
        "empty": int((maps.max(axis=(1, 2)) <= 0).sum()),
        "level": level,
    }
    for name, tolerance in (("strict", 0.0), ("tolerant", TOLERANCE)):
        masks = [grow(lesion, tolerance) for lesion in lesions]
        within = np.stack([inside(points, mask) for mask in masks])  # (lesion, point)
        hits = within.diagonal()
        share = proportion(hits, np.ones(len(hits)), patients)
        low, high = wilson(share, level)
        others = patients[:, None] != patients[None, :]
        record[name] = {
            "tolerance_share_of_side": tolerance,
            "hits": int(hits.sum()),
            "share": share.value,
            "low": low,
            "high": high,
            "chance": float(np.mean([mask.mean() for mask in masks])),
            "other_patients": float(within[others].mean()) if others.any() else None,
        }
    return record
