"""From a finished run to its heat maps: which images, the maps, how reliable they are, sheets and record."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddtl.audits import burned_in
from ddtl.data.download import claims
from ddtl.data.images.decode import decode_gray
from ddtl.data.images.image_file import read_bytes
from ddtl.data.loading.datamodule import CTDataModule
from ddtl.data.phantom.dataset import mask_path
from ddtl.evaluation.predictions import Predictions
from ddtl.explain import gradcam, pointing, sheets
from ddtl.explain.select import Group, groups, predicted_classes
from ddtl.inference import network as stored_network
from ddtl.models.network import Network
from ddtl.records import predictions as prediction_table, run as results_of
from ddtl.records.run_folder import RunFolder
from ddtl.schema.run import Config
from ddtl.training import hardware
from ddtl.utils import console
from ddtl.utils.errors import UserError
from ddtl.utils.files import cannot_write, remove, temporary_path, write_bytes, write_json
from ddtl.utils.reading import Unreadable

FOLDER, RECORD = "explain", "explain.json"
_METHOD = (
    "Grad-CAM (Selvaraju et al. 2017), captum's LayerGradCam, of the log odds of the class predicted for the image"
)
_SEED = 1_000  # of the first network with randomised weights


@dataclass(frozen=True)
class ExplainOptions:
    """What may be set.

    Attributes:
        images: the most that are shown of each kind of decision.
        layer: whose map, see :func:`ddtl.explain.gradcam.chosen_layer`.
        randomised: how many networks with random weights the maps are compared with.
        batch_size: images at a time.
    """

    images: int
    layer: str
    randomised: int
    batch_size: int


@dataclass(frozen=True)
class _Subject:
    """What is explained: a network and the images of one split."""

    config: Config
    network: Network
    layer: str
    datamodule: CTDataModule
    table: Predictions
    decided: np.ndarray
    manifest_row: Mapping[str, int]

    def images(self, rows: Sequence[int]) -> torch.Tensor:
        """Return what the network sees of rows of the table, (N, 1, S, S)."""
        keys = [(self.manifest_row[str(self.table.sample_id[row])], 0, 0) for row in rows]
        found: torch.Tensor = self.datamodule.eval_loader("test").dataset.__getitems__(keys)["image"]  # type: ignore[attr-defined]
        return found

    def lesion(self, row: int) -> np.ndarray | None:
        """Return the lesion mask of an image of the phantom, bool; None of another dataset's."""
        if self.config.dataset.kind != "phantom":
            return None
        sample = self.datamodule.manifest.samples[self.manifest_row[str(self.table.sample_id[row])]]
        path = mask_path(sample)
        return np.asarray(decode_gray(read_bytes(path), path)) > 0

    def has_text(self, row: int) -> bool:
        """Return whether the file of an image seems to contain text outside the body."""
        sample = self.datamodule.manifest.samples[self.manifest_row[str(self.table.sample_id[row])]]
        return burned_in.has_text(decode_gray(read_bytes(sample.path), sample.path, sample.window))

    def maps(self, network: Network, rows: np.ndarray, batch: int, progress: console.Progress | None) -> np.ndarray:
        """Return signed maps (N, h, w) of rows of the table, each for the class that it is called."""
        module, device, parts = gradcam.module_of(network, self.layer), network.mean.device, []
        as_map = None if network.backbone.has_plain_maps else network.backbone.as_map
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            classes = torch.from_numpy(self.decided[some]).to(device)
            parts.append(gradcam.heat_maps(network, module, self.images(some.tolist()).to(device), classes, as_map))
            if progress is not None:
                progress(start + len(some), len(rows))
        return np.concatenate(parts)


def explain(folder: RunFolder, config: Config, results: Mapping[str, Any], options: ExplainOptions) -> dict[str, Any]:
    """Make the maps and write them into the run's folder ``explain/``, in place of earlier ones; the record.

    Args:
        folder: of the finished run.
        config: the run's, with this machine's paths and accelerator.
        results: the run's ``results.json``.
        options: of the command.

    Raises:
        UserError: the images are not those of the run, or there is no such layer.
    """
    if problem := cannot_write(folder.path):
        raise UserError(
            f"{problem}, and the maps are written there. Explain a copy of the run: "
            f"{shlex.join(['cp', '-r', str(folder.path), '.'])}"
        )
    subject = _subject(folder, config, results, options.layer)
    kinds = groups(subject.table, results["threshold"], options.images)
    with_lesion = _true_positives(subject)
    wanted = np.unique(np.concatenate([*(kind.rows for kind in kinds), with_lesion])).astype(np.int64)
    with console.progress("heat maps") as bar:
        signed = subject.maps(subject.network, wanted, options.batch_size, bar)
    where = {row: i for i, row in enumerate(wanted.tolist())}
    checked = with_lesion if len(with_lesion) else wanted
    cells = signed.shape[1:]
    level = results.get("interval", {}).get("level", 0.95)
    record = _head(folder, results, subject, options, cells)
    record |= _held_against(subject, checked, signed[[where[row] for row in checked.tolist()]], options, level)
    partial = temporary_path(folder.path / FOLDER)
    try:
        (partial / "pictures").mkdir(parents=True)
        record["groups"] = [_write_group(subject, kind, signed, where, results, partial) for kind in kinds]
        write_json(partial / RECORD, record)
        remove(folder.path / FOLDER)
        partial.rename(folder.path / FOLDER)
    except OSError as error:
        raise UserError(f"{folder.path / FOLDER}: cannot be written ({error.strerror}). Make room.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return record


def _subject(folder: RunFolder, config: Config, results: Mapping[str, Any], layer: str) -> _Subject:
    claims.require_drawable(folder.config, config)
    datamodule = CTDataModule(config)
    datamodule.classes = results["classes"]
    with claims.named_by(folder.config, config.dataset), console.progress("preparing the run's images") as bar:
        datamodule.load(bar)
    if datamodule.digest != results["digest"]:
        raise UserError(
            f"the images of {results['dataset']} here are no longer those that the run was trained and scored on: its "
            "heat maps cannot be made. paths.data_dir says where the images lie."
        )
    of = {sample.sample_id: row for row, sample in enumerate(datamodule.manifest.samples)}
    network, _ = stored_network.load(folder, config, len(results["classes"]))
    network.to("cuda" if hardware.resolve(config.trainer).accelerator == "gpu" else "cpu")
    try:
        table = prediction_table.read(folder.predictions)
    except FileNotFoundError as error:
        raise UserError(f"{folder.predictions} is missing. The command that made the run recreates it.") from error
    split = "test" if "test" in results else "val"
    results_of.match(folder.predictions, table, results, [split])
    table = table.of(split)
    if not set(table.sample_id.tolist()) <= of.keys():
        raise Unreadable(folder.predictions, "is of other images than the run's", prediction_table.AGAIN)
    return _Subject(
        config=config,
        network=network,
        layer=gradcam.chosen_layer(gradcam.layers(network, config.dataset.image_size), layer),
        datamodule=datamodule,
        table=table,
        decided=predicted_classes(table, results["threshold"]),
        manifest_row=of,
    )


def _true_positives(subject: _Subject) -> np.ndarray:
    """Return the rows that the pointing game is played on: called ill rightly, with a lesion to point at."""
    rows = np.flatnonzero((subject.decided == 1) & (subject.table.label == 1))
    known = [row for row in rows.tolist() if (lesion := subject.lesion(row)) is not None and lesion.any()]
    return np.array(known, dtype=np.int64)


def _head(
    folder: RunFolder, results: Mapping[str, Any], subject: _Subject, options: ExplainOptions, cells: Sequence[int]
) -> dict[str, Any]:
    return {
        "ddtl": version("ddtl"),
        "captum": version("captum"),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": folder.path.name,
        "dataset": results["dataset"],
        "protocol": results["protocol"],
        "split": "test" if "test" in results else "val",
        "digest": results["digest"],
        "classes": list(results["classes"]),
        "threshold": results["threshold"] if len(results["classes"]) == 2 else None,
        "method": _METHOD,
        "layer": subject.layer,
        "cells": list(cells),
        "image_size": subject.config.dataset.image_size,
        "most_images": options.images,
    }


def _held_against(
    subject: _Subject, rows: np.ndarray, signed: np.ndarray, options: ExplainOptions, level: float
) -> dict[str, Any]:
    """Return the pointing game, where lesions are known, and the same with randomised weights (Adebayo et al. 2018,
    NeurIPS).

    Every weight is drawn again, as before training. A method whose maps then stay alike shows the image, not what the
    network was trained to see.
    """
    lesions = [lesion for row in rows.tolist() if (lesion := subject.lesion(row)) is not None and lesion.any()]
    playable = len(lesions) == len(rows) > 0
    patients = subject.table.group[rows]
    found: dict[str, Any] = {"pointing_game": None, "randomised": None}
    if playable:
        found["pointing_game"] = pointing.game(signed, lesions, patients, level)
    if not options.randomised or not len(rows):
        return found
    networks: list[dict[str, Any]] = []
    with console.progress("the same with randomised weights") as bar:
        for number in range(options.randomised):
            seed = _SEED + number
            maps = subject.maps(_randomise(subject, seed), rows, options.batch_size, None)
            played = pointing.game(maps, lesions, patients, level) if playable else None
            networks.append({"seed": seed, "rank_correlation": rank_correlation(signed, maps), "pointing_game": played})
            bar(number + 1, options.randomised)
    correlations = [value for one in networks if (value := one["rank_correlation"]) is not None]
    found["randomised"] = {
        "images": len(rows),
        "rank_correlation": float(np.mean(correlations)) if correlations else None,
        "networks": networks,
        **({"strict_share": float(np.mean([one["pointing_game"]["strict"]["share"] for one in networks]))}
           if playable else {}),
    }  # fmt: skip
    return found


def _randomise(subject: _Subject, seed: int) -> Network:
    """Return the network with weights as before training; no other random stream is touched."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = Network.of(subject.config, subject.network.n_classes)
    return fresh.eval().to(subject.network.mean.device)


def rank_correlation(maps: np.ndarray, others: np.ndarray) -> float | None:
    """Return Spearman's, between the cells of two maps of one image, mean over images; None where all maps are flat."""
    from scipy.stats import rankdata

    values = [
        np.corrcoef(rankdata(a), rankdata(b))[0, 1]
        for a, b in zip(maps.reshape(len(maps), -1), others.reshape(len(others), -1), strict=True)
        if np.ptp(a) > 0 and np.ptp(b) > 0
    ]
    return float(np.mean(values)) if values else None


def _write_group(
    subject: _Subject, kind: Group, signed: np.ndarray, where: Mapping[int, int], results: Mapping[str, Any], to: Path
) -> dict[str, Any]:
    """Return the images of a kind of decision; their part of the record."""
    tiles, about = [], []
    for number, row in enumerate(kind.rows.tolist(), start=1):
        tile, words = _tile(subject, row, signed[where[row]], results["classes"])
        name = f"pictures/{kind.key}-{number:02}.webp"
        write_bytes(to / name, sheets.webp(sheets.pair(tile, sheets.PAGE_SIDE)))
        tiles.append(tile)
        about.append({**words, "picture": name})
    sheet = None
    if tiles:
        sheet = f"{kind.key}.png"
        head = f"{kind.title} of {results['dataset']}: {len(tiles)} of {kind.total}, the most certain first"
        sheets.sheet(head, _legend(subject), tiles).save(to / sheet)
    return {
        "key": kind.key,
        "title": kind.title,
        "right": kind.right,
        "total": kind.total,
        "sheet": sheet,
        "images": about,
    }


def _legend(subject: _Subject) -> str:
    outline = "; outlined: the lesions that were drawn" if subject.config.dataset.kind == "phantom" else ""
    return (
        f"Left: what the network sees. Right: Grad-CAM for the class that it is called, layer {subject.layer}, each "
        f"map scaled to its own maximum; ring: its hottest cell{outline}."
    )


def _tile(
    subject: _Subject, row: int, signed: np.ndarray, classes: Sequence[str]
) -> tuple[sheets.Tile, dict[str, Any]]:
    """Return an image for a sheet, and its part of the record."""
    table, decided = subject.table, int(subject.decided[row])
    heat = np.maximum(signed, 0)
    x, y = pointing.hottest(signed[None])[0].tolist()
    point = (x, y) if heat.max() > 0 else None
    lesion = subject.lesion(row)
    image = (255 * subject.images([row])[0, 0].numpy()).round().astype(np.uint8)
    p = table.probabilities[row]
    hit = None
    if lesion is not None and lesion.any() and point is not None:
        hit = bool(pointing.inside(np.array([point]), lesion)[0])
    words = {
        "sample_id": str(table.sample_id[row]),
        "patient_id": str(table.patient_id[row]) or None,
        "true": classes[table.label[row]],
        "called": classes[decided],
        "probabilities": [float(f"{value:.6f}") for value in p],
        "hottest": None if point is None else list(point),
        "in_lesion": hit,
        "with_text": subject.has_text(row),
    }
    spoken = f"called {classes[decided]}, is {classes[table.label[row]]}"
    of, value = (classes[1], p[1]) if len(classes) == 2 else (classes[decided], p[decided])
    lines = [spoken, f"P({of}) = {value:.3f}" + ("" if point else ", nothing speaks for it")]
    return sheets.Tile(image, heat, point, lesion, words["sample_id"], lines), words
