"""Draws the contact sheet of the phantom in ``docs/phantom.md``. Equal code gives equal pixels.

    python tools/phantom_contact_sheet.py [--out docs/images/phantom.png]

Columns: site a, site b with its own scanner, site b with grey levels changed and nothing else, site a with a planted
shortcut of strength 1. Rows: a patient with COVID; the same image with its ground truth, lesions red, mark blue and
text green; a patient without COVID.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ddtl.data.phantom.marks import Box, Pixels, mark_box, text_boxes
from ddtl.data.phantom.render import PhantomSpec, has_mark, patient_label, render_slice

SIZE = 128
ZOOM = 2
GAP = 6
SLICE = 2
COLUMNS = (
    ("a", PhantomSpec(size=SIZE)),
    ("b", PhantomSpec(size=SIZE, sites=("a", "b"))),
    ("b", PhantomSpec(size=SIZE, sites=("a", "b"), gap="grey")),
    ("a", PhantomSpec(size=SIZE, shortcut=1.0)),
)
LESION, MARK, TEXT = 255, 254, 253  # the palette's last three colours; the others are grey
COLOURS = {TEXT: (90, 220, 90), MARK: (90, 160, 255), LESION: (255, 90, 60)}


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    default = Path(__file__).resolve().parent.parent / "docs" / "images" / "phantom.png"
    parser.add_argument("--out", type=Path, default=default, help="the PNG to write (default: the one in docs/)")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet().save(args.out, optimize=True)
    print(f"{args.out}: {args.out.stat().st_size} bytes")


def sheet() -> Image.Image:
    """Return the contact sheet, with a palette of greys and three colours."""
    columns = [column(site, spec) for site, spec in COLUMNS]
    wall = np.full((columns[0].shape[0], GAP), min(COLOURS) - 1, dtype=np.uint8)
    parts = [part for shown in columns for part in (shown, wall)]
    image = Image.fromarray(np.hstack(parts[:-1])).convert("P")
    palette = [COLOURS.get(level, (level,) * 3) for level in range(256)]
    image.putpalette([channel for colour in palette for channel in colour])
    return image


def column(site: str, spec: PhantomSpec) -> Pixels:
    """Return a patient with COVID, the same with the ground truth, and a patient without; one below the other."""
    first = patient_label(spec, site, 0)
    sick, healthy = (0, 1) if first else (1, 0)
    image, mask, _ = render_slice(spec, site, sick, SLICE)
    annotated = zoomed(image)
    annotated[outline(mask.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1))] = LESION
    if has_mark(spec, site, sick):
        frame(annotated, mark_box(SIZE), MARK)
    if spec.scanner(site).circle:
        for box in text_boxes(SIZE):
            frame(annotated, box, TEXT)
    other, _, _ = render_slice(spec, site, healthy, SLICE)
    gap = np.full((GAP, SIZE * ZOOM), min(COLOURS) - 1, dtype=np.uint8)
    return np.vstack([zoomed(image), gap, annotated, gap, zoomed(other)])


def zoomed(image: Pixels) -> Pixels:
    """Return the image with larger pixels; its brightest levels make room for the colours."""
    return np.minimum(image, min(COLOURS) - 1).repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels around a mask."""
    grown: NDArray[np.bool_] = ndimage.binary_dilation(mask)
    return grown & ~mask


def frame(image: Pixels, box: Box, colour: int) -> None:
    """A frame around a box, drawn into the image."""
    inside = np.zeros(image.shape, dtype=np.bool_)
    x0, y0, x1, y1 = (ZOOM * edge for edge in box)
    inside[y0:y1, x0:x1] = True
    image[outline(inside)] = colour


if __name__ == "__main__":
    main()
