"""A procedural chest-CT dataset: two sites, several slices a patient, known lesions. Needs no download and no torch.

``phantom_anatomy`` builds the body, ``phantom_lesions`` what may be wrong with it; here patients are dealt out,
pictures taken and files written. A patient's pictures depend on the seed, the site and the patient's number there.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ddtl.data import phantom_lesions as lesions
from ddtl.data.manifest import Manifest, Sample
from ddtl.data.phantom_anatomy import BLOOD, Anatomy, Slice, airways, draw_anatomy, parenchyma, soft_tissue
from ddtl.data.phantom_shapes import Array, Grid, Rng, paint, step
from ddtl.errors import UserError

GENERATOR_VERSION = 1  # part of the folder's key; raised when the pictures change

CLASSES = ("non-COVID", "COVID")
COLUMNS = ("sample_id", "path", "label", "patient_id", "site")
NOTE = "The phantom is synthetic: its images are drawn by a program, and scores on it say nothing about patients."

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scanner:
    """How a site's pictures look. Ranges are (low, high) of a uniform draw for each patient.

    Attributes:
        fov: side of the picture in cm.
        level, window: centre and width in HU of the window that becomes 0..255.
        noise: standard deviation in HU.
        blur: sigma in cm of the reconstruction's point spread.
        grain: width in cm of the noise's grains.
        circle: black outside the round field of view, and the table in sight.
    """

    fov: tuple[float, float]
    level: tuple[float, float]
    window: tuple[float, float]
    noise: tuple[float, float]
    blur: float
    grain: float
    circle: bool


SITES = {
    "a": Scanner((30.0, 36.0), (-620.0, -440.0), (1350.0, 1600.0), (14.0, 34.0), 0.15, 0.20, circle=False),
    "b": Scanner((38.0, 43.0), (-690.0, -530.0), (1200.0, 1450.0), (32.0, 58.0), 0.09, 0.06, circle=True),
}


@dataclass(frozen=True)
class PhantomSpec:
    """What to draw. Patients are dealt to the sites in turn; ``size`` is the picture's side in pixels."""

    n_patients: int = 150
    slices_per_patient: int = 4
    sites: tuple[str, ...] = ("a",)
    size: int = 128
    seed: int = 0
    prevalence: float = 0.5

    def __post_init__(self) -> None:
        for site in self.sites:
            if site not in SITES:
                raise UserError(f"phantom: there is no site {site!r}; there are {', '.join(SITES)}.")
        if not self.sites or len(set(self.sites)) != len(self.sites):
            raise UserError(f"phantom: sites must be named, each once; got {list(self.sites)}.")
        if self.n_patients < 1 or self.slices_per_patient < 1:
            raise UserError("phantom: n_patients and slices_per_patient must be at least 1.")
        if self.size < 32:
            raise UserError(f"phantom: size must be at least 32 pixels, not {self.size}.")
        if self.seed < 0:
            raise UserError(f"phantom: seed must not be negative, but is {self.seed}.")
        if not 0.0 <= self.prevalence <= 1.0:
            raise UserError(f"phantom: prevalence must lie between 0 and 1, not at {self.prevalence}.")

    def key(self) -> str:
        """Short hash of everything that changes a picture; names the folder."""
        text = json.dumps({"version": GENERATOR_VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Patient:
    """What all slices of a patient share; window and noise in HU."""

    label: int
    body: Anatomy
    disease: lesions.Disease
    findings: lesions.Findings
    grid: Grid
    level: float
    window: float
    noise: float


def patient_label(spec: PhantomSpec, site: str, patient_index: int) -> int:
    """Class of a patient. Patients come in pairs that share out the prevalence, so any number of them is balanced."""
    pair, place = divmod(patient_index, 2)
    due = [int(np.floor(2 * n * spec.prevalence + 0.5)) for n in (pair, pair + 1)]
    positives = due[1] - due[0]
    first = int(_rng(spec, site, pair, stream=1).integers(2))
    return int(positives == 2 or (positives == 1 and place == first))


def _rng(spec: PhantomSpec, site: str, index: int, stream: int = 0) -> Rng:
    """A generator for each purpose: stream 0 draws a patient, 1 a pair of patients, 2 and up a patient's slices."""
    where = [spec.seed, list(SITES).index(site), index]
    return np.random.default_rng([*where, stream] if stream else where)


@lru_cache(maxsize=2)
def _draw_patient(spec: PhantomSpec, site: str, patient_index: int) -> Patient:
    rng, scanner = _rng(spec, site, patient_index), SITES[site]
    # The two of a pair, one of each class, are scanned with the same settings: these then cannot tell the class.
    pair = _rng(spec, site, patient_index // 2, stream=1).spawn(1)[0]
    label = patient_label(spec, site, patient_index)
    body = draw_anatomy(rng)
    shift = (rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8))
    return Patient(
        label=label,
        body=body,
        disease=lesions.draw_disease(rng),
        findings=lesions.draw_findings(rng, label),
        grid=Grid(spec.size, pair.uniform(*scanner.fov), shift, rng.uniform(-0.07, 0.07)),
        level=pair.uniform(*scanner.level),
        window=pair.uniform(*scanner.window),
        noise=pair.uniform(*scanner.noise),
    )


def _add_noise(hu: Array, patient: Patient, scanner: Scanner, level: float, rng: Rng) -> Array:
    """Grain of the site's kernel; near the shoulders it is stronger and drawn out sideways, as photons run short."""
    noise = patient.grid.noise(rng, scanner.grain)
    starved = float(step(level, 0.32, 0.05))
    if starved > 0:
        streaks = patient.grid.noise(rng, scanner.grain)
        noise = noise + 1.6 * starved * ndimage.gaussian_filter1d(streaks, 0.5 / patient.grid.pitch, axis=1)
    return hu + patient.noise * noise


def _add_table(hu: Array, grid: Grid) -> Array:
    """The couch below the patient."""
    top = grid.y + 0.012 * grid.x**2
    for at, thickness in ((14.6, 0.14), (16.2, 0.2)):
        hu = paint(hu, 0.6 * grid.cover(thickness - np.abs(top - at)), 0.0)
    return hu


def _draw(
    spec: PhantomSpec, site: str, patient_index: int, slice_index: int, healthy: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], int]:
    """See ``render_slice``; ``healthy`` leaves out the lesions and nothing else."""
    patient, scanner = _draw_patient(spec, site, patient_index), SITES[site]
    rng = _rng(spec, site, patient_index, stream=2 + slice_index)
    noise_rng = rng.spawn(1)[0]  # so that the grain is the same whether or not lesions were drawn
    spacing = 0.82 / spec.slices_per_patient
    level = 0.12 + spacing * (slice_index + rng.uniform(0.15, 0.85))
    cut = Slice(patient.body, patient.grid, level, patient.findings.effusion)
    grid = cut.grid

    tissue = soft_tissue(cut, rng)
    air = lesions.add_findings(cut, parenchyma(cut, rng), patient.findings, rng)
    aerated = grid.cover(cut.lung)
    solid = cut.vessels
    hu = paint(tissue, aerated, paint(air, solid, BLOOD + 0.5 * patient.body.contrast))
    hu = airways(cut, hu)
    if scanner.circle:
        hu = _add_table(hu, grid)
    hu = ndimage.gaussian_filter(hu, scanner.blur / grid.pitch, truncate=3.0)

    sick = patient.label == 1 and not healthy
    added = lesions.draw_lesions(cut, air, patient.disease, rng) if sick else np.zeros_like(hu)
    hu = hu + added * (1.0 - solid)  # vessels stay visible through the haze
    hu = _add_noise(hu, patient, scanner, level, noise_rng)
    grey = np.clip((hu - patient.level) / patient.window + 0.5, 0.0, 1.0) * 255.0
    if scanner.circle:
        centre = (spec.size - 1) / 2
        rows, cols = np.ogrid[: spec.size, : spec.size]
        grey = np.where((rows - centre) ** 2 + (cols - centre) ** 2 <= (spec.size / 2) ** 2, grey, 0.0)
    return np.rint(grey).astype(np.uint8), added > 0, patient.label


def render_slice(
    spec: PhantomSpec, site: str, patient_index: int, slice_index: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], int]:
    """One picture, a pure function of its arguments.

    Args:
        site: one of ``spec.sites``.
        patient_index: counts the patients of that site.

    Returns:
        The image (size, size), the mask (size, size) of where lesions were added, and the label (1 for COVID).
    """
    return _draw(spec, site, patient_index, slice_index)


def generate(spec: PhantomSpec, folder: Path, progress: Progress | None = None) -> None:
    """Draw the dataset into ``folder``: ``images/``, ``masks/``, ``manifest.csv`` and ``phantom.json``.

    The folder appears whole or not at all. Of two processes that start at once one builds and the other waits for it.

    Args:
        progress: called with (images done, images in all).

    Raises:
        UserError: ``folder`` holds something else.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if _is_complete(spec, folder):
            return
        building = folder.parent / f".{folder.name}.building"
        shutil.rmtree(building, ignore_errors=True)  # what a killed process left
        for part in ("images", "masks"):
            for site in spec.sites:
                (building / part / site).mkdir(parents=True)
        _write(spec, building, progress)
        building.rename(folder)


def _is_complete(spec: PhantomSpec, folder: Path) -> bool:
    if not folder.exists() or not any(folder.iterdir()):
        return False
    try:
        if json.loads((folder / "phantom.json").read_text())["key"] == spec.key():
            return True
    except (OSError, ValueError, KeyError):
        pass
    raise UserError(f"{folder} holds something other than this phantom; remove it or name another folder.")


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
            rows.append(dict(zip(COLUMNS, (name, path, label, f"{site}-p{index:04d}", site), strict=True)))
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
    folder = root / f"phantom-{spec.key()}"
    if not (folder / "phantom.json").exists():
        generate(spec, folder, progress)
    with (folder / "manifest.csv").open(newline="") as file:
        samples = tuple(
            Sample(row["sample_id"], folder / row["path"], int(row["label"]), row["patient_id"], row["site"])
            for row in csv.DictReader(file)
        )
    return Manifest("phantom", CLASSES, samples, grouping="patient", notes=(NOTE,))


def mask_path(sample: Sample) -> Path:
    """Where the lesion mask of a phantom's sample lies; 255 marks a lesion."""
    folder = sample.path.parents[2]
    return folder / "masks" / sample.path.relative_to(folder / "images")
