"""The phantom's patients and images: who is assigned to which class, and what each scanner shows of them.

``anatomy`` builds the body, ``lesions`` what may be wrong with it, ``marks`` what is written
over the images. A patient's images depend on the seed, the site and the patient's number there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ddtl.data.phantom import lesions, marks
from ddtl.data.phantom.anatomy import BLOOD, LUNG_HEIGHT, Anatomy, Slice, airways, draw_anatomy, parenchyma, soft_tissue
from ddtl.data.phantom.shapes import Array, Grid, Rng, paint, step

GENERATOR_VERSION = 2  # part of the folder's key; raised when the images change


@dataclass(frozen=True)
class Scanner:
    """How a site's images look. Ranges are (low, high) of a uniform draw for each patient.

    Attributes:
        fov: side of the image in cm.
        level, window: centre and width in HU of the window that becomes 0..255.
        noise: standard deviation in HU.
        blur: sigma in cm of the reconstruction's point spread.
        grain: width in cm of the noise's grains.
        circle: black outside the round field of view, text in its corners, and the table in sight.
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
    """What to draw, within the bounds of :class:`ddtl.schema.run.PhantomConfig`. Sites get patients in turn.

    Attributes:
        size: the image's side in pixels.
        prevalence: share of the patients with COVID.
        gap: how site b's images differ. ``scanner``: by all that another scanner does. ``grey``: they are taken by
            site a's scanner, of site b's own patients, and then passed through ``marks.grey_map``.
        shortcut: strength of the planted shortcut, 0 for none; see ``has_mark``.
    """

    n_patients: int = 150
    slices_per_patient: int = 4
    sites: tuple[str, ...] = ("a",)
    size: int = 128
    seed: int = 0
    prevalence: float = 0.5
    gap: str = "scanner"
    shortcut: float = 0.0

    def scanner(self, site: str) -> Scanner:
        """What takes a site's images."""
        return SITES["a" if self.gap == "grey" else site]

    def key(self) -> str:
        """Short hash of everything that changes an image; names the folder."""
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
    annotation: marks.Annotation


def patient_label(spec: PhantomSpec, site: str, patient_index: int) -> int:
    """Class of a patient: 1 for COVID."""
    return int(_is_assigned(patient_index, spec.prevalence, lambda pair: _rng(spec, site, pair, 1)))


def has_mark(spec: PhantomSpec, site: str, patient_index: int) -> bool:
    """Whether the planted mark is in a patient's images.

    A shortcut of strength s > 0 puts it into 0.5 + s/2 of the patients with COVID and 0.5 - s/2 of the others, so that
    a classifier of the mark alone is right in 0.5 + s/2 of each class and has that ROC AUC. Without one there is none.
    """
    if spec.shortcut == 0:
        return False
    label = patient_label(spec, site, patient_index)
    pair, place = divmod(patient_index, 2)
    sick = _due(pair, spec.prevalence) + (patient_label(spec, site, patient_index - 1) if place else 0)
    rank = sick if label else patient_index - sick  # among the site's patients of this class
    share = 0.5 + (spec.shortcut if label else -spec.shortcut) / 2
    return _is_assigned(rank, share, lambda pair: _rng(spec, site, pair, 0, 1 + label))


def _due(pairs: int, share: float) -> int:
    """How many of the first ``pairs`` pairs are given a thing that ``share`` of all get."""
    return int(np.floor(2 * pairs * share + 0.5))


def _is_assigned(index: int, share: float, rng_of_pair: Callable[[int], Rng]) -> bool:
    """Whether the one with this number gets it. They come in pairs that share it out, so any number is balanced."""
    pair, place = divmod(index, 2)
    given = _due(pair + 1, share) - _due(pair, share)
    first = int(rng_of_pair(pair).integers(2))
    return given == 2 or (given == 1 and place == first)


def _rng(spec: PhantomSpec, site: str, index: int, *stream: int) -> Rng:
    """A generator for each purpose.

    No stream: draws a patient. 1: a pair of patients. 2 and up: a patient's slices. (0, 1) and (0, 2): the marks
    of a pair of patients without and with COVID.
    """
    return np.random.default_rng([spec.seed, list(SITES).index(site), index, *stream])


@lru_cache(maxsize=2)
def _draw_patient(spec: PhantomSpec, site: str, patient_index: int) -> Patient:
    rng, scanner = _rng(spec, site, patient_index), spec.scanner(site)
    # The two of a pair, one of each class, are scanned with the same settings: these then cannot tell the class.
    pair, writer = _rng(spec, site, patient_index // 2, 1).spawn(2)
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
        annotation=marks.draw_annotation(writer),
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
    """See ``render_slice``; ``healthy`` excludes the lesions and nothing else."""
    patient, scanner = _draw_patient(spec, site, patient_index), spec.scanner(site)
    rng = _rng(spec, site, patient_index, 2 + slice_index)
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
    pixels = np.rint(grey).astype(np.uint8)
    if scanner.circle:
        pixels = marks.burn_in(pixels, patient.annotation.lines(site, level * LUNG_HEIGHT))
    if has_mark(spec, site, patient_index):
        pixels = marks.draw_mark(pixels)
    if spec.gap == "grey" and site == "b":
        pixels = marks.grey_map()[pixels]
    return pixels, added > 0, patient.label


def render_slice(
    spec: PhantomSpec, site: str, patient_index: int, slice_index: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], int]:
    """One image, a pure function of its arguments.

    Args:
        site: one of ``spec.sites``.
        patient_index: counts the patients of that site.

    Returns:
        The image (size, size), the mask (size, size) of where lesions were added, and the label (1 for COVID).
    """
    return _draw(spec, site, patient_index, slice_index)
