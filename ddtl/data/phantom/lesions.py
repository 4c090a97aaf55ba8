"""What may be wrong with the phantom's lungs: COVID lesions, and the findings that other patients have too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ddtl.data.phantom.anatomy import LUNG_HEIGHT, MUSCLE, Slice
from ddtl.data.phantom.shapes import Array, Rng, paint, step

FAINTEST = 30.0  # HU; a fainter change counts as none
SMALLEST = 40.0  # cm² of lesion in every slice of a COVID patient


@dataclass(frozen=True)
class Disease:
    """A patient's COVID foci; each array contains one value a focus.

    Attributes:
        side: -1 right lung (left in the image), 1 left lung.
        angle: radians from lateral, positive towards the back.
        depth: cm from the pleura to the focus's centre.
        level, reach: at which level its centre is, and how far it extends.
        across, along: half sizes in cm at right angles to the pleura and along it.
        haze: HU that its ground glass adds to the lung.
        solid: HU that consolidation adds to that at its core, 0 for pure ground glass.
        paving: 0 to 1, strength of the crazy-paving pattern.
    """

    side: Array
    angle: Array
    depth: Array
    level: Array
    reach: Array
    across: Array
    along: Array
    haze: Array
    solid: Array
    paving: float


def draw_disease(rng: Rng) -> Disease:
    """Several foci, mostly in both lungs, under the pleura and at the back."""
    n = int(rng.integers(8, 15))
    side = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    if rng.random() < 0.8:
        side[:2] = (-1.0, 1.0)
    else:
        side[:] = side[0]
    central = rng.random(n) < 0.15
    consolidating = rng.random() < 0.55
    return Disease(
        side=side,
        angle=np.clip(0.55 + 0.6 * rng.standard_normal(n), -0.9, 1.35),
        depth=np.where(central, rng.uniform(2.0, 4.0, n), rng.uniform(0.2, 1.4, n)),
        level=np.clip(0.62 + 0.27 * rng.standard_normal(n), 0.05, 1.0),
        reach=rng.uniform(0.15, 0.4, n),
        across=rng.uniform(1.7, 3.1, n),
        along=rng.uniform(2.6, 5.4, n),
        haze=rng.uniform(330.0, 500.0, n),
        solid=np.where(rng.random(n) < 0.5, rng.uniform(250.0, 480.0, n), 0.0) * consolidating,
        paving=float(rng.uniform(0.4, 1.0)) if rng.random() < 0.4 else 0.0,
    )


def _active(disease: Disease, level: float) -> list[tuple[int, float]]:
    """The foci that a slice cuts and the relative size of each cut; there is always one to see."""
    off = np.abs(disease.level - level) / disease.reach
    size = np.sqrt(np.clip(1.0 - off**2, 0.0, 1.0))
    nearest = int(np.argmin(off))
    size[nearest] = max(float(size[nearest]), 0.85)
    return [(i, float(s)) for i, s in enumerate(size) if s > 0.25]


def _pleura_point(cut: Slice, side: float, angle: float, depth: float) -> tuple[float, float, float, float]:
    """A point ``depth`` cm below the pleura on a ray from the lung's middle; returns x, y and the ray's direction."""
    a, b = cut.who.cavity(cut.level)
    ux, uy = side * np.cos(angle), np.sin(angle)
    reach = np.arange(0.0, 1.3 * a, 0.15)
    x, y = side * 0.45 * a + ux * reach, 0.05 * b + uy * reach
    row, col = (np.clip(np.rint(p).astype(np.int64), 0, cut.grid.size - 1) for p in cut.grid.pixels(x, y))
    inside = np.flatnonzero(cut.lung[row, col] > 0.1)
    at = reach[inside[-1]] - depth if len(inside) else 0.0
    return float(side * 0.45 * a + ux * at), float(0.05 * b + uy * at), float(ux), float(uy)


def draw_lesions(cut: Slice, air: Array, disease: Disease, rng: Rng) -> Array:
    """HU that the lesions add to the aerated lung ``air``; zero outside of them."""
    g = cut.grid
    inside, haze, solid = np.full_like(air, -9.0), np.zeros_like(air), np.zeros_like(air)
    for i, size in _active(disease, cut.level):
        x, y, ux, uy = _pleura_point(cut, disease.side[i], disease.angle[i], disease.depth[i])
        across = ((g.x - x) * ux + (g.y - y) * uy) / (disease.across[i] * size)
        along = ((g.y - y) * ux - (g.x - x) * uy) / (disease.along[i] * size)
        focus = np.where(g.x * disease.side[i] > 0, 1.0 - np.sqrt(across**2 + along**2), -9.0)  # stays in its lung
        haze = np.where(focus > inside, disease.haze[i], haze)
        solid = np.where(focus > inside, disease.solid[i], solid)
        inside = np.maximum(inside, focus)
    inside = inside + 0.26 * g.noise(rng, 0.75) + 0.13 * g.noise(rng, 0.3)
    texture = 0.13 * g.noise(rng, 0.3)
    if disease.paving:
        texture = texture + 0.4 * disease.paving * (np.exp(-((g.noise(rng, 0.28) / 0.35) ** 2)) - 0.35)
    aerated = g.cover(cut.lung)
    added = np.zeros_like(air)
    for growth in (0.0, 0.15, 0.3, 0.5, 0.8, 1.2):  # until the foci show, even in a narrow lung
        full = (haze + solid * step(inside + growth, 0.4, 0.8)) * (1.0 + texture)
        added = step(inside + growth, 0.0, 0.55) * np.clip(full, 0.0, MUSCLE - air) * aerated
        added = np.where(added > FAINTEST, added, 0.0)
        if np.count_nonzero(added) * g.pitch**2 >= SMALLEST:
            break
    return added


@dataclass(frozen=True)
class Findings:
    """What is wrong with a patient apart from COVID; zero where there is nothing.

    Attributes:
        nodules: (n, 4): side, level, radius in cm, angle.
        emphysema: 0 to 1.
        dependent: thickness in cm of the dense seam at the back of both lungs.
        effusion: depth in cm of the fluid behind the right and the left lung.
        expiration: HU by which both lungs are denser because the patient breathed out.
    """

    nodules: Array
    emphysema: float
    dependent: float
    effusion: tuple[float, float]
    expiration: float


def draw_findings(rng: Rng, label: int) -> Findings:
    """Each finding occurs in both classes, in non-COVID patients more often.

    Fluid and expiration brighten the image about as much as lesions do, so that brightness does not tell the class.
    """
    often = 1.0 if label == 0 else 0.5
    n = int(rng.integers(1, 5)) if rng.random() < 0.35 * often else 0
    nodules = np.stack(
        [
            np.where(rng.random(n) < 0.5, -1.0, 1.0),
            rng.uniform(0.1, 0.9, n),
            rng.uniform(0.5, 1.5, n),
            rng.uniform(-1.2, 1.2, n),
        ],
        axis=1,
    )
    emphysema = float(rng.uniform(0.3, 0.8)) if rng.random() < 0.25 * often else 0.0
    dependent = float(rng.uniform(0.4, 0.9)) if rng.random() < 0.3 * often else 0.0
    effusion = (0.0, 0.0)
    if rng.random() < (0.40 if label == 0 else 0.12):
        right, left = rng.uniform(0.9, 3.0, 2)
        effusion = (float(right), float(left) if rng.random() < 0.4 else 0.0)
        effusion = effusion if rng.random() < 0.5 else (effusion[1], effusion[0])
    expiration = float(rng.uniform(60.0, 150.0)) if rng.random() < (0.45 if label == 0 else 0.1) else 0.0
    return Findings(nodules, emphysema, dependent, effusion, expiration)


def add_findings(cut: Slice, air: Array, findings: Findings, rng: Rng) -> Array:
    """The aerated lung ``air`` (HU) with nodules, emphysema and a dependent seam in."""
    g = cut.grid
    b = cut.who.cavity(cut.level)[1]
    air = air + findings.expiration
    if findings.emphysema:
        holes = step(g.noise(rng, 0.45) + 0.5 * findings.emphysema * (1.0 - cut.level), 1.0, 1.7)
        air = paint(air, findings.emphysema * holes, -985.0)
    if findings.dependent:
        seam = step(cut.lung + 0.15 * g.noise(rng, 0.5), findings.dependent, 0.4 * findings.dependent)
        air = paint(air, seam * step(g.y / b, 0.35, 0.7), -620.0)
    for side, level, radius, angle in findings.nodules:
        chord = radius**2 - ((cut.level - level) * LUNG_HEIGHT) ** 2
        if chord > 0.04:
            x, y, _, _ = _pleura_point(cut, side, angle, 1.0 + 2.0 * radius)
            lobed = np.sqrt(chord) - np.sqrt((g.x - x) ** 2 + (g.y - y) ** 2) + 0.06 * g.noise(rng, 0.4)
            air = paint(air, g.cover(lobed), MUSCLE)
    return air
