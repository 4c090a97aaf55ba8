"""Images of a dataset as the network sees them, before and after augmentation; and on a sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddtl.data.loading.datamodule import CTDataModule
from ddtl.utils.errors import UserError

_SIDE = 224  # pixels of an image on the sheet, about: a multiple of its own
_ACROSS = 3  # pairs in a row
_GAP = 12
_INK, _MUTED = (27, 31, 36), (89, 99, 110)


@dataclass(frozen=True)
class Views:
    """Some images of a split.

    Attributes:
        rows: (N,) of the manifest.
        before: (N, C, S, S) float32, 0 to 1: decoded, resized and harmonised; C is 1, or 3 of three windows.
        after: the same, augmented as in the first epoch; equal to ``before`` in validation and test, where nothing is.
        labels: (N,) int64.
    """

    rows: np.ndarray
    before: np.ndarray
    after: np.ndarray
    labels: np.ndarray


def views(module: CTDataModule, split: str, n: int) -> Views:
    """Return images of a split, evenly spread over it in the order of the manifest.

    Args:
        module: a dataset that is loaded.
        split: train, val or test.
        n: how many; all where the split has fewer.

    Raises:
        UserError: the split has no image.
    """
    rows = module.manifest.rows(split)
    if not rows:
        raise UserError(f"split={split}: the dataset has no image there.")
    n = min(n, len(rows))
    picked = [rows[i * len(rows) // n] for i in range(n)]
    keys = [(row, 0, 0) for row in picked]
    plain = module.eval_loader(split).dataset.__getitems__(keys)  # type: ignore[attr-defined]
    seen = module.train_dataloader().dataset.__getitems__(keys) if split == "train" else plain  # type: ignore[attr-defined]
    return Views(np.array(picked), plain["image"].numpy(), seen["image"].numpy(), plain["label"].numpy())


def sheet(found: Views, title: str, classes: Sequence[str]) -> Image.Image:
    """Return a contact sheet: pairs of an image before (left) and after augmentation (right), with its class.

    Of three windows the first is shown.
    """
    size = found.before.shape[-1]
    side = size * max(1, round(_SIDE / size))
    across = min(_ACROSS, len(found.rows))
    down = -(-len(found.rows) // across)
    width, height = 2 * side + _GAP, side + 30
    head = 2 * _GAP + 46
    page = Image.new("RGB", (across * (width + 2 * _GAP), head + down * (height + _GAP)), "white")
    draw = ImageDraw.Draw(page)
    draw.text((_GAP, _GAP), _plain(title), _INK, font=ImageFont.load_default(16))
    about = (
        "Left: as decoded. Right: as the network sees it. Contains patients' pixels: keep it where the images may be."
    )
    draw.text((_GAP, _GAP + 24), about, _MUTED, font=ImageFont.load_default(12))
    for i, label in enumerate(found.labels.tolist()):
        x, y = _GAP + i % across * (width + 2 * _GAP), head + i // across * (height + _GAP)
        for image, left in ((found.before[i, 0], x), (found.after[i, 0], x + side + _GAP)):
            gray = Image.fromarray(np.rint(image * 255).astype(np.uint8))
            page.paste(gray.resize((side, side), Image.Resampling.NEAREST), (left, y))
        draw.text((x, y + side + 6), _plain(classes[label]), _INK, font=ImageFont.load_default(13))
    return page


def _plain(text: str) -> str:
    """Return text with an escape for each letter that the font lacks."""
    return text.encode("ascii", "backslashreplace").decode()
