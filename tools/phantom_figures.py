"""Measures the figures of ``docs/phantom.md``; the last line is one JSON object.

    python tools/phantom_figures.py
    python tools/phantom_figures.py --run runs/phantom/NAME

Without a run: how well summaries of an image tell the class, on the clean phantom and with a planted shortcut. A
logistic regression on each, cross-validated in five parts by patient; 150 patients of 4 slices, seed 0.

With the folder of a run on the default phantom: the model's scores on site b where grey levels are changed and nothing
else, as they come and after histogram matching; with them those on other patients of site a, and on site b with its
own scanner. Matching maps the grey levels of all images of site b by one table to the distribution of those of site
a, and knows no labels.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ddtl.data.phantom.marks import Pixels
from ddtl.data.phantom.render import PhantomSpec, render_slice
from ddtl.models.network import Network
from ddtl.schema.run import ModelConfig

Floats = NDArray[np.float64]
Figures = dict[str, dict[str, float]]

BOTH = PhantomSpec(sites=("a", "b"))
GREY = replace(BOTH, gap="grey")
PATIENTS = 150
BLOCK = 8  # pixels a side of the blocks whose brightness is examined


@dataclass(frozen=True)
class Images:
    """Images of a site, (n, size, size), with a label and a patient's number each."""

    images: Pixels
    labels: NDArray[np.int64]
    patients: NDArray[np.int64]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--run", type=Path, help="folder of a run on the default phantom")
    args = parser.parse_args()
    print(json.dumps(summaries() if args.run is None else grey_gap(args.run)))


def draw(spec: PhantomSpec, site: str, first: int = 0) -> Images:
    """Return all images of 150 patients of a site, from the ``first`` on."""
    patients = range(first, first + PATIENTS)
    where = [(patient, index) for patient in patients for index in range(spec.slices_per_patient)]
    drawn = [render_slice(spec, site, *place) for place in where]
    return Images(
        np.stack([image for image, _, _ in drawn]),
        np.array([label for _, _, label in drawn]),
        np.array([patient for patient, _ in where]),
    )


def summaries() -> Figures:
    """Return ROC AUC of each summary of the images, for several phantoms."""
    phantoms = {"site a, clean": (BOTH, "a"), "site b, clean": (BOTH, "b")}
    for strength in (0.2, 0.5, 0.8, 1.0):
        phantoms[f"site a, shortcut {strength}"] = (replace(BOTH, shortcut=strength), "a")
    figures = {}
    for name, (spec, site) in phantoms.items():
        images = draw(spec, site)
        views = {
            "mean and variance": _moments(images.images),
            "grey histogram": _histogram(images.images),
            "border's grey histogram, a block deep": _histogram(images.images[:, _border(spec.size, BLOCK)]),
            "border's grey histogram, two deep": _histogram(images.images[:, _border(spec.size, 2 * BLOCK)]),
            "corners' blocks": _corner_blocks(images.images),
        }
        figures[name] = {view: _auc(features, images) for view, features in views.items()}
    return figures


def _moments(images: Pixels) -> Floats:
    return np.stack([images.mean(axis=(1, 2)), images.var(axis=(1, 2))], axis=1)


def _histogram(images: Pixels) -> Floats:
    """Return share of the pixels in each of 16 bins of grey levels."""
    pixels = images.reshape(len(images), -1)
    return np.stack([np.bincount(row // 16, minlength=16) / len(row) for row in pixels])


def _border(size: int, depth: int) -> NDArray[np.bool_]:
    border = np.ones((size, size), dtype=np.bool_)
    border[depth:-depth, depth:-depth] = False
    return border


def _corner_blocks(images: Pixels) -> Floats:
    """Mean brightness of each of the four blocks in each corner."""
    n, size, _ = images.shape
    blocks = images.reshape(n, size // BLOCK, BLOCK, size // BLOCK, BLOCK).mean(axis=(2, 4))
    outer = [0, 1, -2, -1]
    return np.asarray(blocks[:, outer][:, :, outer].reshape(n, -1), dtype=np.float64)


def _auc(features: Floats, images: Images) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    scores = cross_val_predict(model, features, images.labels, groups=images.patients, cv=folds, method="predict_proba")
    return round(float(roc_auc_score(images.labels, scores[:, 1])), 3)


def grey_gap(run: Path) -> Figures:
    """Return scores of a run's model on patients that it has not seen, of both sites."""
    network, size = _load(run)
    training = _resized(draw(GREY, "a").images, size)
    grey = draw(GREY, "b")
    shown = _resized(grey.images, size)
    same, scanner = draw(BOTH, "a", first=PATIENTS), draw(BOTH, "b")
    sets = {
        "site a, other patients": (_resized(same.images, size), same.labels),
        "site b, grey levels changed": (shown, grey.labels),
        "site b, grey levels changed and matched": (_matching(shown, training)[shown], grey.labels),
        "site b, its own scanner": (_resized(scanner.images, size), scanner.labels),
    }
    figures = {}
    for name, (images, labels) in sets.items():
        scores = _scores(network, images)
        auc, accuracy = roc_auc_score(labels, scores), balanced_accuracy_score(labels, scores > 0.5)
        figures[name] = {"roc_auc": round(float(auc), 3), "balanced_accuracy": round(float(accuracy), 3)}
    return figures


def _load(run: Path) -> tuple[Network, int]:
    """Return the run's model, and the side of the images that it sees."""
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    network = Network(ModelConfig(**settings["model"]), n_classes=2)
    network.load_state_dict(load_file(run / "model.safetensors"))
    return network.eval(), settings["dataset"]["image_size"]


def _resized(images: Pixels, size: int) -> Pixels:
    """As ``ddtl.data.images.decode`` makes them."""
    small = [Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in small])


def _matching(images: Pixels, reference: Pixels) -> Pixels:
    """Return the map (256,) that gives the grey levels of ``images`` the distribution of those of ``reference``."""

    def share(pixels: Pixels) -> Floats:
        """Return share of the pixels up to each level, half of the level's own among them."""
        counts = np.bincount(pixels.ravel(), minlength=256) / pixels.size
        return np.cumsum(counts) - counts / 2

    return np.rint(np.interp(share(images), share(reference), np.arange(256))).astype(np.uint8)


def _scores(network: Network, images: Pixels) -> Floats:
    """Probability of COVID for each image."""
    with torch.inference_mode():
        batches = torch.from_numpy(images)[:, None].split(100)
        logits = torch.cat([network(batch / 255.0) for batch in batches])
    return logits.softmax(dim=1)[:, 1].double().numpy()


if __name__ == "__main__":
    main()
