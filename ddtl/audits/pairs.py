"""Pairs of images with the same content: found by their hashes, confirmed by their detail.

A hash says which images may have the same content; many of those are neighbouring slices of one patient. So the two are
brought to fit, and their fine detail (structures of one to two pixels at 256) is compared. Slices some millimetres
apart share the chest's outline but not its vessels; one slice that was saved again, cropped, made brighter or shown in
another window keeps them. Slices so thin that their vessels agree cannot be distinguished from copies.

Measured (2026-11-23) on SARS-CoV-2 CT, where 226 near pairs are found: of 99 that were examined
(``tests/support/sarscov2ct_pairs.csv``) 97 show one slice, most of them cropped a little otherwise, and two show
neighbouring slices; of 41 pairs with less detail in common none shows one slice. Some copies are missed: of 253 pairs
within 52 bits whose detail agrees, the hashes of whole and trimmed images within ``RADIUS`` bring 217 together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from ddtl.audits.alignment import align, correlation, detail, overlap
from ddtl.audits.fingerprints import Fingerprints, Key, Progress, decode
from ddtl.audits.neighbours import likely_near, near
from ddtl.data.images.decode import load_image
from ddtl.data.images.perceptual_hash import TRANSFORMS, turned
from ddtl.data.manifest import Manifest, Sample

Kind = Literal["same file", "same pixels", "near"]

RADIUS = 28  # bits of the hash, of 256, within which images are examined more closely
MANY = 20_000  # images, beyond which most near hashes are searched for instead of all
ALIKE = 0.935  # correlation of detail from which two images have the same content

_KINDS: tuple[Kind, ...] = ("same file", "same pixels", "near")
_EVEN = 2.0  # gray levels of standard deviation; an image with less shows nothing that could be compared
_OUTLINE = 0.97  # correlation of the aligned thumbnails below which detail is not examined
_SIDES = (64, 256)  # of the images whose detail is compared: as large as the smaller of the two, within these
_CACHED = 200  # decoded images kept in memory


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images with the same content.

    Attributes:
        first, second: dataset and sample id; ``first < second``.
        kind: the same bytes; other bytes but the same gray pixels; or nearly the same image.
        transform: what turns the second into the first, one of ``ddtl.data.images.perceptual_hash.TRANSFORMS``.
        distance: in how many of the 256 bits of the hash they differ, so turned.
        similarity: correlation of their detail, so turned and brought to fit; at most 1.
    """

    first: Key
    second: Key
    kind: Kind
    transform: str
    distance: int
    similarity: float


def find(
    manifests: Sequence[Manifest], progress: Progress | None = None, fingerprints: Fingerprints | None = None
) -> list[Pair]:
    """Return the pairs within and across datasets, splits and classes.

    Of three or more images with equal pixels each is paired with the first alone, and that one with near images:
    ``ddtl.audits.duplicates.clusters`` joins them again.

    Args:
        progress: called with (pairs compared, pairs to compare), or where images are yet to be decoded with images.
        fingerprints: of just these manifests, where they are decoded already.

    Returns:
        The most certain first: same files, same pixels, then by similarity.
    """
    if fingerprints is None:
        fingerprints, progress = decode(manifests, progress), None
    rows = sorted(range(len(fingerprints.keys)), key=lambda row: fingerprints.keys[row])
    pairs: list[Pair] = []
    contents_by_kind: dict[Kind, list[str]] = {
        "same file": [
            file.sha256 if sample.number is None else f"{file.sha256}, slice {sample.number}"
            for file, sample in zip(fingerprints.files, fingerprints.samples, strict=True)
        ],
        "same pixels": [file.pixels for file in fingerprints.files],
    }
    for kind, contents in contents_by_kind.items():
        rows, copies = _first_of_each(rows, contents)
        pairs += [Pair(fingerprints.keys[i], fingerprints.keys[j], kind, TRANSFORMS[0], 0, 1.0) for i, j in copies]
    pairs += _near_pairs(fingerprints, np.array(rows, dtype=np.int64), progress)
    return sorted(pairs, key=lambda pair: (_KINDS.index(pair.kind), -pair.similarity, pair.first, pair.second))


def _first_of_each(rows: Sequence[int], contents: Sequence[str]) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the first row of each content, and (first row, further row) for each further one."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        groups[contents[row]].append(row)
    return [group[0] for group in groups.values()], [(g[0], row) for g in groups.values() for row in g[1:]]


def _near_pairs(fingerprints: Fingerprints, rows: np.ndarray, progress: Progress | None) -> Iterator[Pair]:
    """Yield the near pairs among some rows, which are in the order of their keys."""
    rows = np.array([row for row in rows if fingerprints.thumbnails[row].std() >= _EVEN], dtype=np.int64)
    candidates = _candidates(fingerprints.hashes[rows], fingerprints.trimmed[rows])
    load = lru_cache(_CACHED)(_load)
    for done, ((i, j), transforms) in enumerate(sorted(candidates.items()), start=1):
        one, other = rows[i], rows[j]
        alike = {name: _similarity(fingerprints, one, other, TRANSFORMS[name], load) for name in transforms}
        best = max(alike, key=alike.__getitem__)
        if alike[best] >= ALIKE:
            bits = int(np.bitwise_count(fingerprints.hashes[one, 0] ^ fingerprints.hashes[other, best]).sum())
            yield Pair(fingerprints.keys[one], fingerprints.keys[other], "near", TRANSFORMS[best], bits, alike[best])
        if progress is not None:
            progress(done, len(candidates))


def _load(sample: Sample, side: int) -> np.ndarray:
    return load_image(sample.path, side, sample.window)


def _candidates(hashes: np.ndarray, trimmed: np.ndarray) -> dict[tuple[int, int], set[int]]:
    """Return pairs ``i < j`` that a hash brings together, and the transforms of ``j`` with which it does."""
    whole = np.ascontiguousarray(hashes[:, 0])
    search = near if len(hashes) <= MANY else likely_near
    candidates: dict[tuple[int, int], set[int]] = defaultdict(set)
    i, query, _ = search(whole, hashes.reshape(-1, 4), RADIUS)
    j, transform = np.divmod(query, len(TRANSFORMS))
    for pair in zip(*(column[i < j].tolist() for column in (i, j, transform)), strict=True):
        candidates[pair[:2]].add(pair[2])
    i, query, _ = search(whole, trimmed.reshape(-1, 4), RADIUS)
    j = query // trimmed.shape[1]
    for one, other in zip(*(column[i != j].tolist() for column in (i, j)), strict=True):
        candidates[min(one, other), max(one, other)].add(0)
    return candidates


def _similarity(
    fingerprints: Fingerprints, i: int, j: int, transform: str, load: Callable[[Sample, int], np.ndarray]
) -> float:
    """Return correlation of the detail of two images, the second turned and brought to fit; 0 where they do not fit."""
    first, second = fingerprints.thumbnails[i], turned(fingerprints.thumbnails[j], transform)
    fit = align(first, second)
    if fit is None or correlation(*overlap(first, second, fit)) < _OUTLINE:
        return 0.0
    smaller = min(side for row in (i, j) for side in (fingerprints.files[row].width, fingerprints.files[row].height))
    side = min(max(smaller, _SIDES[0]), _SIDES[1])
    first, second = load(fingerprints.samples[i], side), turned(load(fingerprints.samples[j], side), transform)
    finer = align(first, second, fit, (side // 2,)) or fit
    return correlation(*map(detail, overlap(first, second, finer)))
