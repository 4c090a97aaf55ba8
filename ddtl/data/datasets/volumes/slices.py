"""Which slices of a CT volume are used: ``dataset.slices`` and ``dataset.slice_step``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ddtl.data.images import ct
from ddtl.data.images.decode import decode_gray
from ddtl.data.images.image_file import BadImageError, read_bytes
from ddtl.data.images.levels import CTWindow
from ddtl.data.manifest import Sample
from ddtl.schema.run import Slices
from ddtl.utils import threads
from ddtl.utils.progress import Progress

# From -950 to 600 HU: air around the body is black, and no part of it has the grey of a lung.
_CENTER, _WIDTH = -175.0, 1550.0


def chosen(slices: Slices, step: int, n: int) -> list[int]:
    """Return the places of a series' slices that are used, in order; for ``lung`` those that are examined.

    Args:
        slices: ``dataset.slices``; numbers in a list count from 1 at the feet.
        step: every so-manieth of those, beginning with the middle one of the first so many.
        n: how many slices the series has.
    """
    if slices == "lung":
        return list(range(n))
    if slices == "all":
        places = list(range(n))
    elif slices == "middle":
        places = list(range(n // 3, n - n // 3))
    else:
        places = [number - 1 for number in sorted(set(slices)) if number <= n]
    return _every(places, step)


def _every(places: Sequence[int], step: int) -> list[int]:
    return list(places[min(step // 2, max(0, len(places) - 1)) :: step])


def with_lung(samples: Sequence[Sample], step: int, progress: Progress | None) -> list[Sample]:
    """Return the slices that contain lung, of each series every so-manieth.

    Args:
        samples: whole series, one after the other, each from the feet up.
        step: as for :func:`chosen`.
        progress: called with (slices examined, slices in all).
    """
    kept: dict[str, list[Sample]] = defaultdict(list)
    with ThreadPoolExecutor(min(threads.cores(), 8)) as pool:
        for done, (sample, is_of_lung) in enumerate(zip(samples, pool.map(has_lung, samples), strict=True), start=1):
            if is_of_lung:
                kept[sample.sample_id.rpartition("/")[0]].append(sample)
            if progress is not None:
                progress(done, len(samples))
    return [one[place] for one in kept.values() for place in _every(range(len(one)), step)]


def has_lung(sample: Sample) -> bool:
    """Return whether a slice contains lung, by :mod:`ddtl.data.images.lungs`."""
    from ddtl.data.images import lungs  # SciPy, which most commands do without

    window = CTWindow(_CENTER, _WIDTH, number=sample.number)
    try:
        if sample.number is None:
            gray = decode_gray(read_bytes(sample.path), sample.path, window)
        else:
            (gray,) = ct.decode_slice(sample.path, window)
    except BadImageError:  # the decoded cache names all such files
        return True
    return bool(lungs.regions(gray).lungs.any())
