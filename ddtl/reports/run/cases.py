"""The best and the worst cases of a run with their heat maps, as ``ddtl explain`` left them in its folder."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ddtl.explain import sheets
from ddtl.records import explanation
from ddtl.records.checking import inside
from ddtl.reports.html import format
from ddtl.reports.html.page import Block, Cell, Drawing, Photo, Photos, Section, Table, Text
from ddtl.reports.run.sentences import CHECK_EACH
from ddtl.reports.run.stored import Stored
from ddtl.utils.reading import Unreadable, read_bytes

_MOST = 6  # of each kind: the page stays small
_LARGEST = 30_000  # bytes of an image: 24 of them leave the page below 6 MB; those of ddtl explain take 10,000


def section(stored: Stored) -> Section:
    """Return images of each kind of decision; nothing where the run was not explained or cannot be.

    A record or image that cannot be read, or is of other predictions, is replaced by the reason.
    """
    return Section("Cases", _blocks(stored))


def _blocks(stored: Stored) -> list[Block]:
    folder = stored.folder / "explain"
    if not (folder / "explain.json").exists():
        return []
    try:
        record = explanation.read(folder)
        threshold = stored.record["threshold"] if stored.binary else None
        if (record["digest"], record["threshold"]) != (stored.record.get("digest"), threshold):
            return [Text("The heat maps in explain/ are of another threshold or of other images: run `ddtl explain`.")]
        shown = [_photos(folder, group, stored.classes, threshold) for group in record["groups"] if group["images"]]
        return [*_with_text(record), *_heat_maps(record), *(photos for photos in shown if photos.photos)]
    except Unreadable as problem:
        why = f"The heat maps in explain/ cannot be shown: {problem.path.name} {problem.reason}."
    except OSError as error:
        why = f"The heat maps in explain/ cannot be shown ({error.strerror or error})."
    return [Text(f"{why} `ddtl explain` makes them again.", "bad")]


def _photos(folder: Path, group: Mapping[str, Any], classes: Sequence[str], threshold: float | None) -> Photos:
    made = (_photo(folder, image, classes, threshold) for image in group["images"][:_MOST])
    photos = [photo for photo in made if photo is not None]
    most = f"{len(photos)} of {group['total']:,}, the most certain first" if len(photos) < group["total"] else ""
    return Photos(group["title"], photos, most, wide=True)


def _photo(folder: Path, image: Mapping[str, Any], classes: Sequence[str], threshold: float | None) -> Photo | None:
    path = inside(folder, image["picture"])
    if path.stat().st_size > _LARGEST:
        return None
    content = read_bytes(path, _LARGEST)
    if content[:4] + content[8:12] != b"RIFFWEBP":
        raise Unreadable(path, "is not a WebP image")
    data = base64.b64encode(content).decode("ascii")
    note = f"{_probability(image, classes, threshold)}predicted {image['called']}, true class {image['true']}"
    alt = f"{image['sample_id']}, and the same under its heat map"
    return Photo(f"data:image/webp;base64,{data}", image["sample_id"], note, alt)


def _probability(image: Mapping[str, Any], classes: Sequence[str], threshold: float | None) -> str:
    """Return ``P(COVID) = 0.04, ``: of the positive class, of more than two classes that of the predicted one."""
    ps = image["probabilities"]
    if len(ps) != len(classes) or (len(ps) > 2 and image["called"] not in classes):
        return ""
    of = 1 if len(ps) == 2 else list(classes).index(image["called"])
    # Near the threshold two digits would not show on which side of it a probability is.
    is_near = threshold is not None and abs(ps[of] - threshold) < 0.01
    return f"P({classes[of]}) = {ps[of]:.{4 if is_near else 2}f}, "


def _with_text(record: Mapping[str, Any]) -> list[Block]:
    """Return what to do where images may name a patient; records of earlier versions do not say whether they do."""
    shown = [image for group in record["groups"] for image in group["images"][:_MOST]]
    found = sum(bool(image.get("with_text")) for image in shown)
    if not found:
        return []
    seem = "seems" if found == 1 else "seem"
    return [
        Text(f"{found} of {len(shown)} images {seem} to contain text or arrows outside the body. {CHECK_EACH}", "bad")
    ]


def _heat_maps(record: Mapping[str, Any]) -> list[Block]:
    """Return what the heat maps are, and how far they can be trusted."""
    h, w = record["cells"]
    blocks: list[Block] = [
        Text(
            "Left the image as the network sees it, right Grad-CAM (Selvaraju et al. 2017) of the predicted "
            f"class, from {h} × {w} cells of layer {record['layer']}, each map scaled to its own maximum. A heat map "
            "shows what moved the prediction at this resolution, not that it is right for the right reason."
        ),
        _legend(),
    ]
    game, randomised = record["pointing_game"], record["randomised"] or {}
    if game is not None:
        blocks.append(_game(game, randomised))
    if randomised.get("rank_correlation") is not None:
        blocks.append(
            Text(
                f"Rank correlation with the maps of randomised weights: {randomised['rank_correlation']:.2f}. Near 1 "
                "the maps would show the image, and not the trained weights (Adebayo et al. 2018)."
            )
        )
    return blocks


def _legend() -> Drawing:
    """Return the colours of the maps, the less opaque the lower as on them, and what is drawn on top."""
    stops = "".join(
        f'<stop offset="{i / 8:g}" stop-color="{sheets.colour(i / 8)}" stop-opacity="{sheets.opacity(i / 8):.3f}"/>'
        for i in range(9)
    )
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 46" role="img" width="300" '
        'font-family="system-ui,sans-serif" font-size="12" fill="currentColor">'
        "<title>Colours from transparent, where nothing spoke for the class, to the maximum of each map.</title>"
        f'<defs><linearGradient id="heat-colours">{stops}</linearGradient></defs>'
        '<rect width="300" height="16" rx="3" fill="#808080"/>'
        '<rect width="300" height="16" rx="3" fill="url(#heat-colours)"/>'
        '<text x="0" y="34">0, transparent</text>'
        '<text x="300" y="34" text-anchor="end">maximum of each map</text></svg>'
    )
    return Drawing("Colours of the heat maps", svg, "White ring: the hottest cell. Cyan outline: a known lesion.")


def _game(game: Mapping[str, Any], randomised: Mapping[str, Any]) -> Table:
    rows: list[list[str | Cell]] = []
    for key, where in (("strict", "in a lesion"), ("tolerant", "or within 3 % of the side")):
        one = game[key]
        played = [n["pointing_game"][key]["share"] for n in randomised.get("networks", []) if n["pointing_game"]]
        controls = (one["chance"], one["other_patients"], fmean(played) if played else None)
        share = Cell(format.score(one["share"]), format.interval(one))
        rows.append([where, share, *(format.score(value) for value in controls)])
    return Table(
        "How often the hottest cell is in a lesion",
        ["hottest cell", "this network", "a random place", "lesions of other patients", "randomised weights"],
        rows,
        f"Pointing game (Zhang et al. 2018) on {game['images']:,} true positives of {game['patients']:,} patients, "
        "with 95 % intervals by patient. Lesions of other patients: what knowing where lesions usually are is worth.",
    )
