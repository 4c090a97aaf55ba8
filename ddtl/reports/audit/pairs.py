"""The worst pairs of an audit as small images for its page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from ddtl.audits import burned_in
from ddtl.audits.duplicates import Leaks
from ddtl.audits.fingerprints import Key
from ddtl.audits.pairs import Pair
from ddtl.data.images.decode import decode_gray
from ddtl.data.images.image_file import BadImageError, read_bytes
from ddtl.data.manifest import Manifest

MOST = 60  # pairs
_SIDE = 256  # of an image, at most
_QUALITY = 85
_KINDS = {"same file": "the same file", "same pixels": "the same pixels, another file", "near": "nearly the same"}


@dataclass(frozen=True)
class End:
    """One image of a pair.

    Attributes:
        uri: it as a ``data:`` URI.
        name: its name.
        where: its dataset, class and split.
        with_text: whether it seems to contain text.
    """

    uri: str
    name: str
    where: str
    with_text: bool = False


@dataclass(frozen=True)
class PairView:
    """A pair for the page: what it breaks, its images, and how they were matched."""

    title: str
    ends: tuple[End, End]
    how: str


def worst_first(pairs: Sequence[Pair], leaks: Leaks) -> list[Pair]:
    """Sort label conflicts first, then leaks between splits, then between datasets; else keep the order."""
    lists = [set(found) for found in (leaks.across_labels, leaks.across_splits, leaks.across_datasets)]
    return sorted(pairs, key=lambda pair: [pair not in found for found in lists])


def pair_views(pairs: Sequence[Pair], leaks: Leaks, manifests: Sequence[Manifest]) -> list[PairView]:
    """Return the worst ``MOST`` pairs; images that no longer exist are skipped."""
    names = {
        "different labels": set(leaks.across_labels),
        "different splits": set(leaks.across_splits),
        "different datasets": set(leaks.across_datasets),
    }
    samples = {(m.dataset, sample.sample_id): (m, sample) for m in manifests for sample in m.samples}

    def end(key: Key) -> End:
        manifest, sample = samples[key]
        parts = [manifest.classes[sample.label], sample.split or "no split"]
        gray = decode_gray(read_bytes(sample.path), sample.path, sample.window)
        with_text = burned_in.has_text(gray)
        return End(_uri(gray), key[1], " · ".join([key[0], *parts]), with_text)

    found = []
    for pair in worst_first(pairs, leaks)[:MOST]:
        broken = [name for name, of in names.items() if pair in of]
        turned = "" if pair.transform == "none" else f", the second rotated back: {pair.transform}"
        how = f"{_KINDS[pair.kind]}{turned}; {pair.distance} of 256 bits differ, correlation {pair.similarity:.3f}"
        try:
            found.append(PairView(" and ".join(broken) or "in one split", (end(pair.first), end(pair.second)), how))
        except BadImageError:
            continue
    return found


def _uri(gray: Image.Image) -> str:
    gray.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    gray.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
