"""The body behind the phantom: an axial slice through a procedural thorax, in Hounsfield units.

Lengths are centimetres. x grows to the right of the image (the patient's left), y downwards (posterior), and
``level`` runs from 0 (lung apex) to 1 (lung base).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ddtl.data.phantom.shapes import Array, Grid, Rng, both, capsule, ellipse, oval, paint, step

AIR, FAT, MUSCLE, BLOOD, FLUID, CORD, MARROW, CORTEX = -1000.0, -105.0, 45.0, 40.0, 8.0, 25.0, 190.0, 750.0
LUNG_HEIGHT = 24.0  # cm from apex to base
CARINA = 0.36  # level at which the trachea divides


@dataclass(frozen=True)
class Anatomy:
    """What all slices of a patient share. Lengths in cm, densities in HU."""

    width: float  # half width of the chest cavity at the base
    depth: float  # half depth of the same
    fat: float  # thickness under the skin
    muscle: float  # thickness of the wall
    breast: float  # 0 for none
    heart: float  # relative size
    heart_tilt: float
    contrast: float  # HU that contrast medium adds to the blood
    lung_hu: float
    gravity: float  # HU by which the back of the lung is denser than its front
    spine: float  # relative size
    rib_phase: float
    vessels: Array  # (n, 4): x, y, z, radius of points along the pulmonary vessels

    def cavity(self, level: float) -> tuple[float, float]:
        """Half width and half depth of the chest cavity at a level."""
        return (
            self.width * (0.74 + 0.26 * float(step(level, -0.05, 0.5))),
            self.depth * (0.72 + 0.28 * float(step(level, 0.0, 0.55))),
        )

    def vertebra_y(self, level: float) -> float:
        """Where the centre of the vertebral body is."""
        return self.cavity(level)[1] - 2.7 * self.spine


def grow_vessels(rng: Rng, width: float, depth: float, girth: float) -> Array:
    """Both lungs' vessel trees, each grown from its hilum by forking; returns (n, 4) points x, y, z, radius."""
    points = []
    for side in (-1.0, 1.0):
        heading = rng.standard_normal((26, 3)) * [1.0, 1.1, 1.5] + [side * 0.8, 0.1, 0.0]
        start = np.array([side * 0.27 * width, 0.05 * depth, 0.5 * LUNG_HEIGHT]) + rng.standard_normal((26, 3)) * [
            0.7,
            0.9,
            1.3,
        ]
        radius = girth * rng.uniform(0.2, 0.55, 26)
        for generation in range(7):
            heading = heading / np.sqrt((heading**2).sum(axis=1, keepdims=True))
            along = np.linspace(0.0, 1.0, 16 - 2 * generation)[None, :, None]
            length = 3.1 * 0.83**generation * rng.uniform(0.6, 1.3, len(heading))[:, None]
            end = start + heading * length
            xyz = start[:, None] + (end - start)[:, None] * along
            bow = rng.standard_normal((len(heading), 1, 3)) * 0.06 * length[:, None]
            xyz = xyz + bow * along * (1.0 - along) * 4.0
            points.append(np.concatenate([xyz, radius[:, None, None] * (1.0 - 0.22 * along)], axis=2).reshape(-1, 4))
            start, heading, radius = np.repeat(end, 2, axis=0), np.repeat(heading, 2, axis=0), np.repeat(radius, 2)
            heading = heading + rng.standard_normal(heading.shape) * 0.42
            radius = np.maximum(radius * rng.uniform(0.58, 0.84, len(radius)), 0.07)
    return np.concatenate(points)


def draw_anatomy(rng: Rng) -> Anatomy:
    """A random patient."""
    width, depth, girth = rng.uniform(12.0, 14.4), rng.uniform(10.0, 12.0), rng.uniform(0.85, 1.2)
    return Anatomy(
        width=width,
        depth=depth,
        fat=rng.uniform(0.4, 2.6),
        muscle=rng.uniform(1.5, 2.3),
        breast=rng.uniform(1.0, 2.6) if rng.random() < 0.4 else 0.0,
        heart=rng.uniform(0.85, 1.18),
        heart_tilt=rng.uniform(0.2, 0.7),
        contrast=rng.uniform(40.0, 140.0) if rng.random() < 0.4 else 0.0,
        lung_hu=rng.uniform(-900.0, -800.0),
        gravity=rng.uniform(10.0, 90.0),
        spine=rng.uniform(0.88, 1.12),
        rib_phase=rng.uniform(0.0, 1.0),
        vessels=grow_vessels(rng, width, depth, girth),
    )


@dataclass(frozen=True)
class Slice:
    """One axial cut: its patient, pixel grid and level, and the shapes that findings and lesions refer to."""

    who: Anatomy
    grid: Grid
    level: float
    effusion: tuple[float, float] = (0.0, 0.0)  # depth in cm of the fluid behind the right and the left lung

    @cached_property
    def chest(self) -> Array:
        """Signed distance of the chest cavity."""
        a, b = self.who.cavity(self.level)
        behind = self.grid.y * (0.06 + 0.12 * (1.0 - self.level)) / b  # the chest is wider at the back
        unit = np.sqrt((self.grid.x / (1.04 * a * (1.0 + np.clip(behind, -0.2, 0.2)))) ** 2 + (self.grid.y / b) ** 2)
        unit = np.maximum(unit, 1e-9)
        return (1.0 - unit) / unit * np.sqrt(self.grid.x**2 + self.grid.y**2)

    @cached_property
    def organs(self) -> list[tuple[Array, float]]:
        """Mediastinal organs as (signed distance, HU)."""
        g, who, level = self.grid, self.who, self.level
        b, yv = who.cavity(level)[1], who.vertebra_y(level)
        blood, organs = BLOOD + who.contrast, []
        great = float(step(level, 0.30, 0.18))  # the vessels above the arch
        if great > 0.05:
            vessels = ((-1.9, -0.30, 0.95), (-0.3, -0.38, 0.8), (1.7, -0.15, 0.75), (2.1, -0.42, 0.8))
            organs += [(ellipse(g, (x, y * b), r * great, r * great), blood) for x, y, r in vessels]
        arch = float(np.exp(-(((level - 0.26) / 0.07) ** 2)))
        if arch > 0.05:
            organs.append((ellipse(g, (1.2, -0.05 * b), 1.5 * arch, 0.45 * b * arch, -0.3), blood))
        outflow = float(step(level, 0.26, 0.36) * step(level, 0.72, 0.55))
        if outflow > 0.05:
            organs += [
                (ellipse(g, (-1.3, -0.33 * b), 1.9 * outflow, 1.8 * outflow), blood),  # ascending aorta
                (ellipse(g, (-2.9, -0.15 * b), 1.0 * outflow, 1.2 * outflow), BLOOD),  # superior vena cava
            ]
            pulmonary = outflow * float(step(level, 0.34, 0.42))
            if pulmonary > 0.05:
                organs.append((ellipse(g, (1.6, -0.28 * b), 3.0 * pulmonary, 1.5 * pulmonary, -0.5), blood))
        heart = who.heart * float(step(level, 0.40, 0.62)) * (1.0 - 0.35 * float(step(level, 0.85, 1.05)))
        if heart > 0.05:
            organs += [
                (ellipse(g, (2.1, -0.27 * b), 6.0 * heart, 0.46 * b * heart, who.heart_tilt), MUSCLE),
                (ellipse(g, (-0.6, -0.2 * b), 3.9 * heart, 0.42 * b * heart, 0.2), blood),
                (ellipse(g, (3.2, -0.25 * b), 2.9 * heart, 0.27 * b * heart, who.heart_tilt), blood),
            ]
        if level > 0.24:
            organs.append((ellipse(g, (1.9, yv - 1.9), 1.3, 1.3), blood))  # descending aorta
        organs.append((ellipse(g, (0.4, yv - 2.3), 0.8, 0.6), MUSCLE))  # oesophagus
        return organs

    @cached_property
    def abdomen(self) -> Array:
        """The domes of liver and spleen, which push into the lungs from below."""
        a, b = self.who.cavity(self.level)
        rise = float(np.sqrt(max(self.level - 0.80, 0.0) / 0.2))
        if rise < 0.1:
            return np.full(self.grid.x.shape, -99.0)
        liver = ellipse(self.grid, (-0.44 * a, -0.12 * b), 0.46 * a * rise, 0.62 * b * rise, -0.2)
        spleen = ellipse(self.grid, (0.52 * a, 0.02 * b), 0.34 * a * rise**2 + 0.1, 0.42 * b * rise**2 + 0.1, 0.3)
        return np.maximum(liver, spleen)

    @cached_property
    def mediastinum(self) -> Array:
        """Everything between and beneath the lungs."""
        g, level = self.grid, self.level
        b = self.who.cavity(level)[1]
        yv, s = self.who.vertebra_y(level), self.who.spine
        waist = 1.9 + 1.5 * float(step(level, 0.3, 0.1)) + 0.5 * float(step(level, 0.4, 0.6))
        shapes = [
            ellipse(g, (0.2, 0.1 * b), waist, 0.75 * b),
            capsule(g, (0.2, -b - 1.0), (0.2, 0.0), 0.35 + 1.3 * float(step(level, 0.3, 0.05))),
            capsule(g, (0.0, yv), (0.0, b + 3.0), 2.35 * s),
            self.abdomen,
            *(shape + 0.25 for shape, _ in self.organs),
        ]
        return np.maximum.reduce(shapes)

    @cached_property
    def lung(self) -> Array:
        """Signed distance of both lungs: the depth below the pleura."""
        return both(both(self.chest, -self.mediastinum, 1.3), -self.fluid, 0.6)

    @cached_property
    def fluid(self) -> Array:
        """Signed distance of pleural fluid, which is at the back and climbs along the outer wall."""
        g = self.grid
        a, b = self.who.cavity(self.level)
        fluid = np.full(g.x.shape, -99.0)
        for side, depth in zip((-1.0, 1.0), self.effusion, strict=True):
            amount = depth * float(step(self.level, 0.1, 0.8))
            if amount > 0.2:
                top = 0.93 * b - amount - 2.2 * amount * np.clip(side * g.x / a - 0.35, 0.0, 1.0) ** 2
                fluid = np.maximum(fluid, both(g.y - top, side * g.x, 0.5))
        return fluid

    @cached_property
    def airways(self) -> list[Array]:
        """Trachea above the carina, the two main bronchi and their branches below it."""
        g, yv = self.grid, self.who.vertebra_y(self.level)
        y, below = yv - 3.6, self.level - CARINA
        if below < 0:
            return [ellipse(g, (-0.1, y), 0.85 + 0.4 * float(step(below, -0.06, 0.0)), 0.95)]
        if below > 0.16:
            return []
        spread, r = 0.9 + 13.0 * below, 0.72 - 1.4 * below
        return [ellipse(g, (side * spread, y + 3.0 * below), r * 1.15, r, side * 0.5) for side in (-1.0, 1.0)]

    @cached_property
    def vessels(self) -> Array:
        """Share of each pixel that a pulmonary vessel fills within a section 0.4 cm thick."""
        x, y, z, r = self.who.vessels.T
        off = np.maximum(np.abs(z - self.level * LUNG_HEIGHT) - 0.2, 0.0)
        hit = off < r
        x, y, r = x[hit], y[hit], np.sqrt(r[hit] ** 2 - off[hit] ** 2)
        return self.grid.discs(x, y, r) * np.sqrt(step(self.lung, 0.05, 1.1))


def wall(cut: Slice, rng: Rng) -> Array:
    """HU of the chest wall: air, skin, fat with strands, and muscle around the cavity."""
    g, who = cut.grid, cut.who
    a, b = who.cavity(0.75)
    shoulder = float(step(cut.level, 0.35, 0.0))
    body = oval(g, 0.3, a + who.muscle + who.fat + 1.2 * shoulder, b + who.muscle + 0.8 * who.fat)
    droop = who.breast * float(step(cut.level, 0.25, 0.5) * step(cut.level, 1.15, 0.8))
    if droop > 0.3:
        for side in (-1.0, 1.0):
            bulge = ellipse(g, (side * 0.5 * a, -b - 0.4 * who.muscle), 0.45 * a, 1.6 * droop, side * 0.3)
            body = -both(-body, -bulge, 1.5)
    strands = g.noise(rng, 0.55)
    muscle = oval(g, 0.1, a + who.muscle + 0.9 * shoulder, b + who.muscle) + 0.22 * strands
    marbled = MUSCLE - 55.0 * step(-strands, 0.9, 2.2)
    hu = paint(np.full(g.x.shape, AIR), g.cover(body), MUSCLE)
    hu = paint(hu, g.cover(body - 0.25), FAT + 14.0 * step(strands, 0.6, 2.0))
    return paint(hu, g.cover(muscle), marbled)


def bones(cut: Slice, hu: Array) -> Array:
    """Ribs, scapulae, sternum and a vertebra painted over ``hu``."""
    g, who, level = cut.grid, cut.who, cut.level
    a, b = who.cavity(level)
    yv, s = who.vertebra_y(level), who.spine
    turn = np.arctan2(np.abs(g.x) / a, -g.y / b) / np.pi  # 0 at the sternum, 1 at the spine
    out = -cut.chest
    ribs = np.full(g.x.shape, -9.0)
    along = np.pi * 0.5 * (a + b)
    for i in range(7):
        at = 0.08 + 0.15 * ((i + who.rib_phase + 2.2 * level) % 6.2)
        half = 0.038 + 0.018 * np.sin(5.0 * i + 9.0 * who.rib_phase)
        lean = (turn - at) * along * 0.12  # ribs slope, so one end is deeper in the wall
        ribs = np.maximum(ribs, both(half * along - np.abs(turn - at) * along, 0.38 - np.abs(out - 0.75 - lean), 0.4))
    shapes = [ribs]
    blade = float(step(level, 0.5, 0.3))
    if blade > 0.1:
        shapes.append(capsule(g, (0.5 * a, b + 0.6), (a + 1.2, 0.30 * b), 0.32 * blade, paired=True))  # scapulae
    broad = 1.9 + 0.9 * float(step(level, 0.3, 0.1))
    shapes.append(both(broad - np.abs(g.x), 0.6 - np.abs(g.y + b + 0.75), 0.5))  # sternum
    shapes += [  # vertebra: body, pedicles, transverse processes, laminae, spinous process
        ellipse(g, (0.0, yv), 1.85 * s, 1.45 * s),
        capsule(g, (1.2 * s, yv + 1.0 * s), (1.0 * s, yv + 2.4 * s), 0.42 * s, paired=True),
        capsule(g, (1.0 * s, yv + 2.4 * s), (3.4 * s, yv + 2.1 * s), 0.42 * s, paired=True),
        capsule(g, (1.0 * s, yv + 2.4 * s), (0.0, yv + 3.1 * s), 0.35 * s, paired=True),
        capsule(g, (0.0, yv + 3.0 * s), (0.0, yv + 4.6 * s), 0.32 * s),
    ]
    bone = np.maximum.reduce(shapes)
    hu = paint(paint(hu, g.cover(bone), CORTEX), g.cover(bone - 0.22), MARROW)
    return paint(hu, g.cover(ellipse(g, (0.0, yv + 1.95 * s), 0.85 * s, 0.75 * s)), CORD)


def soft_tissue(cut: Slice, rng: Rng) -> Array:
    """HU of the slice as if the lungs were filled with fat: wall, mediastinal organs, bones, airways."""
    g = cut.grid
    hu = wall(cut, rng)
    hu = paint(hu, g.cover(cut.chest - 0.1), FAT + 45.0)
    if any(cut.effusion):
        hu = paint(hu, g.cover(both(cut.chest, cut.fluid, 0.1)), FLUID)
    for shape, density in cut.organs:
        hu = paint(hu, g.cover(shape), density)
    hu = paint(hu, g.cover(cut.abdomen), MUSCLE + 15.0 + 0.3 * cut.who.contrast)
    y = cut.who.vertebra_y(cut.level)
    for side in (-1.0, 1.0):  # the muscles that run along the spine
        hu = paint(hu, g.cover(ellipse(g, (side * 2.1, y + 3.6), 2.0, 1.35, side * 0.25)), MUSCLE)
    return bones(cut, hu)


def airways(cut: Slice, hu: Array) -> Array:
    """Air-filled trachea or bronchi with their walls, painted over ``hu``."""
    for shape in cut.airways:
        hu = paint(hu, cut.grid.cover(shape + 0.2), MUSCLE)
        hu = paint(hu, cut.grid.cover(shape), AIR + 10.0)
    return hu


def parenchyma(cut: Slice, rng: Rng) -> Array:
    """HU of aerated lung without its vessels: denser towards the back, faintly mottled, parted by a fissure."""
    g, who = cut.grid, cut.who
    b = who.cavity(cut.level)[1]
    hu = who.lung_hu + who.gravity * step(g.y / b, -0.8, 1.0) + 11.0 * g.noise(rng, 0.9) + 9.0 * g.noise(rng, 0.25)
    bend = 0.04 * (np.abs(g.x) - 0.5 * who.width) ** 2
    fissure = 0.05 - np.abs(g.y + bend - b * (0.75 - 1.4 * cut.level))  # runs forward from apex to base
    return paint(hu, 0.5 * g.cover(fissure), -600.0)
