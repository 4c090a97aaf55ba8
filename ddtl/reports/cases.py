"""The best and the worst cases of a run with their heat maps, as ``ddtl explain`` left them in its folder."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddtl.reports import numbers
from ddtl.reports.page import Block, Photo, Photos, Row, Text
from ddtl.reports.stored import Stored

_MOST = 6  # of each kind: the page stays small
_LARGEST = 200_000  # bytes of a picture; those of ddtl explain take a tenth of it


def blocks(stored: Stored) -> list[Block]:
    """Pictures of each kind of decision; nothing where the run was not explained or cannot be.

    A record or picture that cannot be read, or is of other predictions, takes its place with the reason.
    """
    folder = stored.folder / "explain"
    if not (folder / "explain.json").exists():
        return []
    try:
        record = json.loads((folder / "explain.json").read_text(encoding="utf-8"))
        threshold = stored.record["threshold"] if stored.binary else None
        if (record["digest"], record["threshold"]) != (stored.record["digest"], threshold):
            return [Text("The heat maps in explain/ are of another threshold or of other images: run `ddtl explain`.")]
        shown = [_photos(folder, group) for group in record["groups"] if group["images"]]
        return [Text(_how_far(record)), Row([photos for photos in shown if photos.photos])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"The heat maps in explain/ cannot be shown ({error!r:.80}); `ddtl explain` makes them anew."
        return [Text(why, "bad")]


def _photos(folder: Path, group: Mapping[str, Any]) -> Photos:
    photos = [photo for image in group["images"][:_MOST] if (photo := _photo(folder, image)) is not None]
    most = f"{len(photos)} of {group['total']:,}, the most certain first" if len(photos) < group["total"] else ""
    return Photos(group["title"], photos, most, alike=True)


def _photo(folder: Path, image: Mapping[str, Any]) -> Photo | None:
    path = folder / image["picture"]
    if not path.resolve().is_relative_to(folder.resolve()) or path.stat().st_size > _LARGEST:
        return None
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    p = image["probabilities"][-1 if len(image["probabilities"]) == 2 else 0]
    said = f"p = {p:.3f}, " if len(image["probabilities"]) == 2 else ""
    note = f"{said}called {image['called']}, is {image['true']}"
    return Photo(f"data:image/webp;base64,{data}", image["sample_id"], note)


def _how_far(record: Mapping[str, Any]) -> str:
    """What the pictures are, and how far they can be believed."""
    h, w = record["cells"]
    text = (
        "Left the image as the network sees it, right Grad-CAM (Selvaraju et al. 2017) of the class that it is called, "
        f"from {h} × {w} cells of layer {record['layer']}, each map scaled to its own maximum. A heat map shows what "
        "moved the answer at this resolution; it does not prove that the answer is right for the right reason."
    )
    game, randomised = record["pointing_game"], record["randomised"]
    if game is not None:
        for key, where in (("strict", "in a drawn lesion"), ("tolerant", "in one or within 3 % of the side")):
            one = game[key]
            text += (
                f" The hottest cell lies {where} in {numbers.percent(one['share'])} of {game['images']} true positives "
                f"({numbers.percent(one['low'])} to {numbers.percent(one['high'])}; a random place: "
                f"{numbers.percent(one['chance'])})."
            )
    if randomised and randomised.get("strict_share") is not None:
        text += f" With randomised weights it lies in a lesion in {numbers.percent(randomised['strict_share'])}."
    if randomised and randomised["rank_correlation"] is not None:
        text += (
            " Rank correlation with the maps of randomised weights (Adebayo et al. 2018): "
            f"{randomised['rank_correlation']:.2f}."
        )
    return text
