"""Time and peak memory of the search for duplicates, at three numbers of images.

python -m benchmarks.audit_scale                  # the search among hashes alone
python -m benchmarks.audit_scale --whole          # image files written, decoded, hashed, searched and compared

The images are bodies drawn from smooth random fields, so that bits of a hash depend on each other as those of images
do. One in a hundred is a changed copy of another.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measuring import finish, in_own_process
from ddtl.audits.fingerprints import decode
from ddtl.audits.neighbours import likely_near
from ddtl.audits.pairs import RADIUS, find
from ddtl.data.images.perceptual_hash import orientation_hashes
from ddtl.data.manifest import Manifest, Sample

SIDE = 96
COPIES = 100  # one image in so many is a copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    parser.add_argument("--whole", action="store_true", help="with image files")
    arguments = parser.parse_args()
    level = whole if arguments.whole else hashes
    results = {}
    for n in arguments.images:
        results[str(n)] = in_own_process(build, level.__name__, n)()
        print(n, results[str(n)], flush=True)
    finish(benchmark="audit_scale", whole=arguments.whole, results=results)


def build(level: str, n: int):  # type: ignore[no-untyped-def]
    """What ``in_own_process`` calls in its process, so that the peak of memory is of this number of images alone."""
    return lambda: {"hashes": hashes, "whole": whole}[level](n)


def hashes(n: int) -> dict[str, float]:
    """Near pairs among the hashes of ``n`` images in eight orientations."""
    made = np.stack([orientation_hashes(image) for image in images(n)])
    before = peak_mb()
    started = time.perf_counter()
    rows, query, _ = likely_near(np.ascontiguousarray(made[:, 0]), made.reshape(-1, 4), RADIUS)
    seconds = time.perf_counter() - started
    pairs = set(zip(rows.tolist(), (query // 8).tolist(), strict=True))
    found = sum((copy - COPIES // 2, copy) in pairs for copy in copies(n))
    return {"search_s": seconds, "before_mb": before, "peak_mb": peak_mb(), "found": found / len(copies(n))}


def whole(n: int) -> dict[str, float]:
    """Return everything from image files to pairs, on two processes."""
    with tempfile.TemporaryDirectory() as folder:
        samples = []
        for i, image in enumerate(images(n)):
            path = Path(folder) / f"{i:06}.png"
            image.save(path, compress_level=1)
            samples.append(Sample(path.name, path, i % 2))
        manifest = Manifest("synthetic", ("a", "b"), tuple(samples), "none")
        before = peak_mb()
        started = time.perf_counter()
        decoded = decode([manifest])
        between = time.perf_counter()
        pairs = {(pair.first[1], pair.second[1]) for pair in find([manifest], fingerprints=decoded)}
        seconds = time.perf_counter() - between
    wanted = [(f"{copy - COPIES // 2:06}.png", f"{copy:06}.png") for copy in copies(n)]
    return {
        "decode_s": between - started,
        "find_s": seconds,
        "before_mb": before,
        "peak_mb": peak_mb(),
        "pairs": len(pairs),
        "found": sum(pair in pairs for pair in wanted) / len(wanted),
    }


def copies(n: int) -> range:
    """Return which images are copies, each of that ``COPIES // 2`` before it."""
    return range(COPIES - 1, n, COPIES)


def images(n: int) -> Iterator[Image.Image]:
    """Bodies of smooth random fields with fine structures; copies are flipped or darker, and have other noise."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    for i in range(n):
        source = i - COPIES // 2 if i in copies(n) else i
        rng = np.random.default_rng(source)
        width, height = rng.uniform(0.8, 0.95, 2)
        body = 1 / (1 + np.exp(20 * ((x / width) ** 2 + (y / height) ** 2 - 1)))
        field = 120 + 35 * smooth(rng, 6) + 25 * smooth(rng, 24) + 10 * smooth(rng, 48)
        if source != i:
            field = 0.85 * field if i // COPIES % 2 else field[:, ::-1]
            body = body if i // COPIES % 2 else body[:, ::-1]
        noise = np.random.default_rng(n + i).normal(0, 1, (SIDE, SIDE))
        yield Image.fromarray((body * field + noise).clip(0, 255).astype(np.uint8))


def smooth(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Return a random field of ``cells`` x ``cells`` bumps, of about unit variance."""
    bumps = Image.fromarray(rng.normal(0, 1.5, (cells, cells)).astype(np.float32))
    return np.asarray(bumps.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def peak_mb() -> float:
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
