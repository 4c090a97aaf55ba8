"""The lung mask against the phantom's true lungs, and its parts against brute force and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from scipy.spatial import Delaunay

from ddtl.data.images.lungs import SIDE, hull, otsu, regions
from ddtl.data.phantom import render as pictures
from ddtl.data.phantom.anatomy import Slice
from ddtl.data.phantom.marks import MARK, mark_box
from ddtl.data.phantom.render import PhantomSpec, render_slice

SPEC = PhantomSpec(n_patients=24, slices_per_patient=3, sites=("a", "b"), size=SIDE, shortcut=1.0)


def true_lungs(site: str, patient: int, cut: int) -> np.ndarray:
    """Where the phantom put lungs, lesions and all."""
    who = pictures._draw_patient(SPEC, site, patient)
    rng = pictures._rng(SPEC, site, patient, 2 + cut)
    rng.spawn(1)
    level = 0.12 + 0.82 / SPEC.slices_per_patient * (cut + rng.uniform(0.15, 0.85))
    return Slice(who.body, who.grid, level, who.findings.effusion).lung > 0


@pytest.fixture(scope="module")
def slices() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, str, int]]:
    """Pictures with their true lungs, true lesions, site and label."""
    return [
        (picture, true_lungs(site, patient, cut), lesions, site, label)
        for site in SPEC.sites
        for patient in range(12)
        for cut in range(3)
        for picture, lesions, label in [render_slice(SPEC, site, patient, cut)]
    ]


def test_the_mask_meets_the_true_lungs(slices: list[tuple[np.ndarray, np.ndarray, np.ndarray, str, int]]) -> None:
    overlaps = []
    for picture, truth, _, _, label in slices:
        lungs = regions(Image.fromarray(picture)).lungs
        if label == 0:  # lesions are bright, and left out of the aerated lungs
            overlaps.append(2 * (lungs & truth).sum() / (lungs.sum() + truth.sum()))
    assert np.median(overlaps) > 0.85
    assert min(overlaps) > 0.6


def test_the_chest_holds_lungs_and_lesions(slices: list[tuple[np.ndarray, np.ndarray, np.ndarray, str, int]]) -> None:
    held, lesions_held = [], []
    for picture, truth, lesions, _, _ in slices:
        chest = regions(Image.fromarray(picture)).chest
        held.append((chest & truth).sum() / truth.sum())
        if lesions.any():
            lesions_held.append((chest & lesions).sum() / lesions.sum())
    assert np.median(held) > 0.99
    assert np.median(lesions_held) > 0.9  # bright lesions along the pleura pass for the wall of the chest
    assert np.mean(np.array(held) > 0.95) > 0.95


def test_no_lung_lies_outside_the_body(slices: list[tuple[np.ndarray, np.ndarray, np.ndarray, str, int]]) -> None:
    for picture, truth, lesions, _, _ in slices:
        assert not (regions(Image.fromarray(picture)).outside & (truth | lesions)).any()


def test_a_mark_in_a_corner_lies_outside_the_body() -> None:
    x0, y0, x1, y1 = mark_box(SIDE)
    shown = []
    for patient in range(12):
        for site in SPEC.sites:
            if pictures.has_mark(SPEC, site, patient):
                outside = regions(Image.fromarray(render_slice(SPEC, site, patient, 1)[0])).outside
                shown.append(outside[y0:y1, x0:x1].mean())
    assert len(shown) == 12
    assert sum(row.count("#") for row in MARK) > 40
    assert np.median(shown) == 1


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (512, 512)])
def test_an_empty_image_has_no_lungs(level: int, size: tuple[int, int]) -> None:
    parts = regions(Image.new("L", size, level))
    assert not parts.lungs.any()
    assert not parts.chest.any()
    assert parts.paper.all() == (level == 255)


def test_paper_around_an_image_is_neither_lung_nor_body() -> None:
    picture, *_ = render_slice(SPEC, "a", 1, 1)
    page = np.full((160, 192), 255, dtype=np.uint8)
    page[16:144, 32:160] = picture
    parts = regions(Image.fromarray(page))
    assert parts.paper[:12].all()
    assert parts.paper[:, :20].all()
    assert not parts.paper[16:112, 24:104].any()
    assert parts.lungs.any()
    assert not (parts.lungs & parts.paper).any()


@given(st.lists(st.integers(0, 255), min_size=2, max_size=60))
@settings(max_examples=100, deadline=None)
def test_otsu_is_the_best_of_all_levels(values: list[int]) -> None:
    pixels = np.array(values, dtype=np.uint8)

    def within(level: int) -> float:
        """The variance that remains within the two parts; the least where that between them is largest."""
        parts = [part.astype(float) for part in (pixels[pixels <= level], pixels[pixels > level]) if len(part)]
        return sum(len(part) * part.var() for part in parts)

    assert within(otsu(pixels)) == pytest.approx(min(within(level) for level in range(256)), abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(3, 12))
@settings(max_examples=60, deadline=None)
def test_the_hull_is_that_of_scipy(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 30, (count, 2))
    if np.linalg.matrix_rank(points - points[0]) < 2:
        return  # all on a line, which scipy refuses
    mask = np.zeros((30, 30), dtype=bool)
    mask[tuple(points.T)] = True
    grid = np.argwhere(np.ones_like(mask))
    inside = Delaunay(points).find_simplex(grid, tol=1e-9) >= 0
    assert (hull(mask).ravel() == inside).all()


def test_the_hull_of_nothing_and_of_a_line() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    assert not hull(mask).any()
    mask[4, 2] = mask[4, 6] = True
    assert hull(mask).sum() == 5
