"""Where a network sees the images of several datasets: its features before the head, on the axes of most variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddtl.records import arrays, predictions as prediction_table
from ddtl.reports.html.figures import SERIES, Spec, chart, scale, stroke
from ddtl.reports.html.page import Figure, Section, side_by_side
from ddtl.reports.study.cells import Cells
from ddtl.utils import wording
from ddtl.utils.reading import Unreadable

NAME = "embeddings.npz"
_MOST = 500  # points of a dataset: more cannot be distinguished
_MARKS = ("circle-open", "circle")  # by label; further ones share the last


@dataclass(frozen=True)
class Embedded:
    """One network's features of test images.

    Attributes:
        source: what it was trained on.
        features: by test set (N, F).
        labels: by test set (N,).
        classes: names by label.
    """

    source: str
    features: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    classes: tuple[str, ...]


def section(found: Cells) -> Section:
    """Return a chart for a network of each source: test images in its feature space."""
    charts = []
    for embedded in read(found):
        counts = ", ".join(f"{len(labels)} of {target}" for target, labels in embedded.labels.items())
        caption = (
            "One network of the first seed: features before its head, principal components of all these test images, "
            "each test set weighing the same. Where colours are apart the network sees the dataset before the disease."
        )
        title = f"Features of network {embedded.source}"
        alt = f"Test images on two principal components: {counts}."
        charts.append(Figure(title, _spec(embedded), alt, caption))
    return Section("Datasets in feature space", side_by_side(charts))


def read(found: Cells) -> list[Embedded]:
    """Return, of each row, a run whose features of in-domain and external test images are stored and readable."""
    embedded = []
    for row in found.rows:
        at = sorted((cell for cell in found.cells if cell.row == row), key=lambda cell: not cell.is_in_domain)
        stored = {}
        for cell in at:
            known = (tables for folder in cell.folders if (tables := _read(folder)) is not None)
            if (first := next(known, None)) is not None:
                stored[cell.target] = first
        if len(stored) > 1 and at[0].is_in_domain and at[0].target in stored:
            features = {target: one[0] for target, one in stored.items()}
            labels = {target: one[1] for target, one in stored.items()}
            embedded.append(Embedded(found.name(row), features, labels, stored[at[0].target][2]))
    return embedded


def principal_axes(features: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return (N, 2) places of each dataset's images, and (2,) shares of the variance on the axes.

    Principal components of all datasets together, each weighing the same (Pearson 1901, Philos Mag 2:559).
    """
    middle = np.mean([one.mean(axis=0) for one in features.values()], axis=0)
    centred = {name: one.astype(np.float64) - middle for name, one in features.items()}
    covariance = np.mean([one.T @ one / len(one) for one in centred.values()], axis=0)
    variances, axes = np.linalg.eigh(covariance)
    first = axes[:, ::-1][:, :2]
    first = first * np.sign(first[np.abs(first).argmax(axis=0), [0, 1]])  # a sign that does not depend on the library
    shares = variances[::-1][:2] / max(float(variances.sum()), 1e-300)
    return {name: one @ first for name, one in centred.items()}, shares


def _spec(embedded: Embedded) -> Spec:
    """Draw a dot for each image: a colour for each test set, filled for the last class."""
    places, shares = principal_axes(embedded.features)
    traces = []
    for i, (target, xy) in enumerate(places.items()):
        chosen = np.random.default_rng(0).permutation(len(xy))[:_MOST]
        for label, name in enumerate(embedded.classes):
            rows = np.sort(chosen[embedded.labels[target][chosen] == label])
            dots = stroke(xy[rows, 0], xy[rows, 1], f"{target}: {name}", i, mode="markers")
            mark = _MARKS[min(label, len(_MARKS) - 1)]
            dots["marker"] |= {"symbol": mark, "size": 6, "line": {"color": SERIES[i % len(SERIES)], "width": 1}}
            traces.append(dots)
    x, y = (
        scale(f"component {i + 1} ({wording.percent(share)} of the variance)")
        for i, share in enumerate(shares.tolist())
    )
    return chart(traces, x, y, legend="outside")


def _read(folder: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]] | None:
    """Return features and labels of the test images, and the classes; None where there are none."""
    try:
        table = prediction_table.read(folder / "predictions.csv")
        features = arrays.embeddings(folder / NAME, len(table))
    except (OSError, Unreadable):
        return None
    test = table.split == "test"
    return features[test].astype(np.float32), table.label[test], table.classes
