"""The features of a run's training images: computed once, then kept in the run's folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ddtl.data.download import claims
from ddtl.data.loading.datamodule import CTDataModule
from ddtl.inference.network import Predictor
from ddtl.inference.ood import Reference
from ddtl.records import run as results
from ddtl.records.run_folder import RunFolder
from ddtl.schema.run import Config
from ddtl.utils import console
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_bytes
from ddtl.utils.reading import MIB, WEIGHTS, opened, parse_json

log = logging.getLogger(__name__)

NAME = "embeddings.safetensors"
_VERSION = 1  # raise it with any change to the features or to the distance: what is stored is then recomputed


def reference(folder: RunFolder, config: Config, digest: str, predictor: Predictor, batch_size: int) -> Reference:
    """Return what new images are compared with: from the run's folder, else computed from its images and stored there.

    Args:
        config: of the run, with this machine's paths.
        digest: sha256 of the run's weights.

    Raises:
        UserError: there is nothing stored, and the images that the run trained on are not here.
    """
    path = folder.path / NAME
    key = _key(digest, config.dataset.harmonize)
    stored = _load_stored(path, key, predictor.network.backbone.features)
    if stored is not None:
        return stored
    found = _compute(folder, config, results.read(folder.path), predictor, batch_size)
    _store(path, found, key)
    return found


def _load_stored(path: Path, key: dict[str, Any], features: int) -> Reference | None:
    """Return what the file holds; None where there is none, it is damaged, or belongs to other weights."""
    from safetensors import SafetensorError, safe_open

    try:
        with opened(path, WEIGHTS) as start:
            if int.from_bytes(start.read(8), "little") > MIB:  # of its header, which is a line
                return None
        with safe_open(path, framework="np") as file:
            if parse_json((file.metadata() or {}).get("ddtl", "{}")) != key:
                return None
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in ("train", "val")}
            if len(shapes["train"]) != 2 or shapes["train"][1] != features or len(shapes["val"]) != 1:
                return None
            found = Reference(file.get_tensor("train"), file.get_tensor("val"))
    except (OSError, SafetensorError, ValueError, TypeError, RecursionError):
        return None
    is_whole = all(len(part) and part.dtype == np.float32 and np.isfinite(part).all() for part in vars(found).values())
    return found if is_whole and (np.diff(found.val) >= 0).all() else None


def _store(path: Path, found: Reference, key: dict[str, Any]) -> None:
    from safetensors.numpy import save

    try:
        write_bytes(path, save({"train": found.train, "val": found.val}, {"ddtl": json.dumps(key)}))
    except OSError as error:
        log.warning("%s cannot be written (%s): the next prediction computes it again.", path, error.strerror)


def _key(digest: str, harmonize: str) -> dict[str, Any]:
    key: dict[str, Any] = {"version": _VERSION, "weights": digest}
    return key if harmonize == "none" else {**key, "harmonize": harmonize}


def _compute(
    folder: RunFolder, config: Config, results: dict[str, Any], predictor: Predictor, batch_size: int
) -> Reference:
    """Return the features of the run's training and validation images, as they are, without augmentation."""
    claims.require_drawable(folder.config, config)
    datamodule = CTDataModule(config)
    datamodule.classes = results["classes"]
    with claims.named_by(folder.config, config.dataset), console.progress("preparing the run's images") as bar:
        datamodule.load(bar)
    if datamodule.digest != results["digest"]:
        raise UserError(f"the images of {results['dataset']} here are no longer those that the run trained on")
    rows = {split: datamodule.manifest.rows(split) for split in ("train", "val")}
    total = sum(map(len, rows.values()))
    features: dict[str, np.ndarray] = {}
    done = 0
    with console.progress("the network's features of the run's images, once") as bar:
        for split, mine in rows.items():
            parts = []
            for start in range(0, len(mine), batch_size):
                batch = list(datamodule.cache.take(mine[start : start + batch_size]))
                parts.append(predictor(batch)[1])
                done += len(batch)
                bar(done, total)
            features[split] = np.concatenate(parts)
    return Reference.of(features["train"], features["val"])
