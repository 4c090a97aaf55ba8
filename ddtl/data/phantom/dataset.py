"""A procedural chest-CT dataset: two sites, several slices a patient, known lesions. Needs no download and no torch.

``render`` draws; here files are written and read, the ground truth among them (see ``truth``).
"""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddtl.data.manifest import Manifest, Note, Sample
from ddtl.data.phantom.marks import Box, Pixels, grey_map, mark_box, text_boxes
from ddtl.data.phantom.render import GENERATOR_VERSION, PhantomSpec, has_mark, render_slice
from ddtl.utils.errors import UserError
from ddtl.utils.files import lock
from ddtl.utils.progress import Progress
from ddtl.utils.reading import Unreadable, read_object, read_table

CLASSES = ("non-COVID", "COVID")
COLUMNS = ("sample_id", "path", "label", "patient_id", "site", "mark", "lesion_pixels")
NOTE = "The phantom is synthetic: its images are drawn by a program, and scores on it tell nothing about patients."


def generate(spec: PhantomSpec, folder: Path, progress: Progress | None = None) -> None:
    """Draw the dataset into ``folder``: ``images/``, ``masks/``, ``manifest.csv`` and ``phantom.json``.

    The folder appears whole or not at all. Of two processes that start at once one builds and the other waits for it.

    Args:
        progress: called with (images done, images in all).

    Raises:
        UserError: ``folder`` contains something else.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock(folder.parent / f".{folder.name}.lock"):
        if _is_complete(spec, folder):
            return
        building = folder.parent / f".{folder.name}.building"
        shutil.rmtree(building, ignore_errors=True)  # what a killed process left
        try:
            for part in ("images", "masks"):
                for site in spec.sites:
                    (building / part / site).mkdir(parents=True)
            _write(spec, building, progress)
            building.rename(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _is_complete(spec: PhantomSpec, folder: Path) -> bool:
    if not folder.exists() or not any(folder.iterdir()):
        return False
    try:
        if read_object(folder / "phantom.json").get("key") == spec.key():
            return True
    except (OSError, Unreadable):
        pass
    raise UserError(f"{folder} contains something other than this phantom; remove it or name another folder.")


def _write(spec: PhantomSpec, folder: Path, progress: Progress | None) -> None:
    """All files of the dataset. Images are stored uncompressed: their size then tells nothing about the class."""
    total = spec.n_patients * spec.slices_per_patient
    rows: list[dict[str, str | int]] = []
    for i in range(spec.n_patients):
        index, turn = divmod(i, len(spec.sites))
        site = spec.sites[turn]
        for s in range(spec.slices_per_patient):
            name = f"{site}/p{index:04d}_s{s}"
            image, mask, label = render_slice(spec, site, index, s)
            path = f"images/{name}.png"
            Image.fromarray(image).save(folder / path, compress_level=0)
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"masks/{name}.png")
            truth_columns = (int(has_mark(spec, site, index)), int(np.count_nonzero(mask)))
            row = (name, path, label, f"{site}-p{index:04d}", site, *truth_columns)
            rows.append(dict(zip(COLUMNS, row, strict=True)))
            if progress:
                progress(len(rows), total)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    record = {"key": spec.key(), "generator_version": GENERATOR_VERSION, **asdict(spec)}
    (folder / "phantom.json").write_text(json.dumps(record, indent=2) + "\n")


def build_manifest(spec: PhantomSpec, root: Path, progress: Progress | None = None) -> Manifest:
    """The dataset as a table; its images are drawn under ``root/phantom-<key>/`` on first use."""
    folder = drawn_into(spec, root).parent
    if not drawn_into(spec, root).exists():
        try:
            generate(spec, folder, progress)
        except OSError as error:
            raise UserError(
                f"Cannot draw the phantom into {folder}: {error.strerror or error}. paths.cache_dir or DDTL_CACHE "
                "moves it."
            ) from error
    samples = tuple(
        Sample(row["sample_id"], folder / row["path"], int(row["label"]), row["patient_id"], row["site"])
        for row in read_table(folder / "manifest.csv")
    )
    return Manifest("phantom", CLASSES, samples, grouping="patient", notes=(Note(NOTE),))


def drawn_into(spec: PhantomSpec, root: Path) -> Path:
    """The file that is there once a phantom has been drawn."""
    return root / f"phantom-{spec.key()}" / "phantom.json"


def mask_path(sample: Sample) -> Path:
    """Where the lesion mask of a phantom's sample is; 255 marks a lesion."""
    folder = sample.path.parents[2]
    return folder / "masks" / sample.path.relative_to(folder / "images")


@dataclass(frozen=True)
class Truth:
    """What was put into an image; boxes are (first column, first row, column and row after the last), in its pixels.

    Attributes:
        label: 1 for COVID.
        lesion_pixels: how many pixels of the mask are lesion; 0 where there is none.
        lesions: file of the lesion mask, 255 where a lesion is.
        mark: where the planted mark is; None where there is none.
        text: where the scanner's text is.
        grey_map: uint8 (256,) that the image's grey levels went through; None where there was no such change.
    """

    label: int
    lesion_pixels: int
    lesions: Path
    mark: Box | None
    text: tuple[Box, ...]
    grey_map: Pixels | None


def truth(sample: Sample) -> Truth:
    """The ground truth of a sample of ``build_manifest``."""
    spec, rows = _record(sample.path.parents[2])
    row = rows[sample.sample_id]
    mapped = spec["gap"] == "grey" and sample.site == "b"
    written = spec["gap"] == "scanner" and sample.site == "b"
    return Truth(
        label=int(row["label"]),
        lesion_pixels=int(row["lesion_pixels"]),
        lesions=mask_path(sample),
        mark=mark_box(spec["size"]) if int(row["mark"]) else None,
        text=text_boxes(spec["size"]) if written else (),
        grey_map=grey_map() if mapped else None,
    )


@lru_cache(maxsize=4)
def _record(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """The content of ``phantom.json``, and the rows of ``manifest.csv`` by sample id."""
    rows = {row["sample_id"]: row for row in read_table(folder / "manifest.csv")}
    return read_object(folder / "phantom.json"), rows
