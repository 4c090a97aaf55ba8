"""``ddtl explain``: where a trained run saw what it answered by."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape

from ddtl.config.command_line import settings_and_paths
from ddtl.utils import console
from ddtl.utils.errors import UserError

HELP = """\
Grad-CAM heat maps of a trained run: true and false positives and negatives of its test set, at its stored threshold.

  ddtl explain RUN                  RUN: a run's folder, as runs/covid19ct/densenet121-full-s0-0123456789
  ddtl explain RUN images=24        the most images of each kind, those first of which the network was most certain

  images=12                of each kind
  layer=auto               whose feature map: auto (the last), a stage (block3) or a part of one (block3.denseblock3)
  randomised=5             networks with random weights that the maps are held against; 0 for none
  batch_size=32            images at once
  accelerator=auto         auto, cpu or gpu
  paths.data_dir=…, paths.cache_dir=…   where the run's images and the cache are, as for train.py

RUN/explain/ gets a contact sheet of each kind (PNG), explain.json and what the run's page shows of it; report.html is
written anew with the best and the worst cases. On the phantom the record says how often the hottest place lies in a
lesion. The images are those that were scored already: no look at a test set is taken. Earlier heat maps are replaced.

Needs the extra packages of `pip install 'ddtl[explain]'`. For research: a heat map is no proof of what a network sees.
Exit codes: 0 written, 2 a mistake, 129/130/143 stopped.
"""


@dataclass(frozen=True)
class Settings:
    """What was asked for."""

    run: Path
    paths: tuple[str, ...] = ()
    images: int = 12
    layer: str = "auto"
    randomised: int = 5
    batch_size: int = 32
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"


def main(argv: Sequence[str]) -> int:
    """What follows ``ddtl explain``; returns the exit code.

    Raises:
        UserError: a mistake in the command, a run that is not finished, or one whose images are not here.
    """
    if not argv or {"--help", "-h"} & set(argv):
        sys.stdout.write(HELP)
        return 0
    settings = parse(argv)
    from ddtl.records.run_folder import RunFolder
    from ddtl.training.rescore import on_this_machine, stored_run

    folder = RunFolder(settings.run)
    saved, results = stored_run(folder)
    if "test" in results and results.get("evaluation", {}).get("batchnorm", "stored") != "stored":
        raise UserError(
            f"{settings.run} was scored with BatchNorm adapted to its test images (evaluation.batchnorm=adapt), and "
            "heat maps of the network as it is stored would not be those of its answers. `ddtl explain` does without."
        )
    config = on_this_machine(saved, settings.paths, settings.accelerator, 32)
    from ddtl.explain import gradcam

    gradcam.require()
    from ddtl.data import catalogue
    from ddtl.utils.memory import keep_freed_memory

    catalogue.require_images(config)
    keep_freed_memory()
    from ddtl.commands.report import write
    from ddtl.explain.explain import FOLDER, Asked, explain

    asked = Asked(settings.images, settings.layer, settings.randomised, settings.batch_size)
    record = explain(folder, config, results, asked)
    _show(record)
    console.out.print(escape(f"written to {settings.run / FOLDER}, and shown in {write(settings.run)}"))
    return 0


def parse(argv: Sequence[str]) -> Settings:
    """The run and the settings, all mistakes in one message.

    Raises:
        UserError: there are mistakes.
    """
    named, *words = argv
    values, paths = settings_and_paths(words, _READ)
    return Settings(Path(named).expanduser(), tuple(paths), **values)


def _show(record: Mapping[str, Any]) -> None:
    from ddtl.explain.gradcam import MIN_CELLS

    h, w = record["cells"]
    console.out.print(f"Grad-CAM of layer {record['layer']}: {h} × {w} cells at {record['image_size']} pixels")
    if min(h, w) < MIN_CELLS:
        console.out.print(
            f"! {h} × {w} cells point at no place: train at a larger dataset.image_size for heat maps.", style="yellow"
        )
    shown = [image for group in record["groups"] for image in group["images"]]
    with_text = [str(image["sample_id"]) for image in shown if image["with_text"]]
    if with_text:
        from ddtl.reports.run.sentences import LOOK_AT_EACH

        some = ", ".join(with_text[:3]) + (", …" if len(with_text) > 3 else "")
        what = f"{len(with_text)} of {len(shown)} pictures seem to hold text or arrows beside the body ({some})."
        console.out.print(escape(f"! {what} {LOOK_AT_EACH}"), style="yellow")
    for group in record["groups"]:
        console.out.print(escape(f"{group['title']}: {len(group['images'])} of {group['total']} shown"))
    game, randomised = record["pointing_game"], record["randomised"]
    if game is not None:
        for key, where in (("strict", "in a lesion"), ("tolerant", "in one or within 3 % of the side")):
            one = game[key]
            console.out.print(
                f"hottest cell {where}: {one['hits']} of {game['images']} true positives, {one['share']:.3f} "
                f"({one['low']:.3f}–{one['high']:.3f}); a random place: {one['chance']:.3f}"
            )
    if randomised is None:
        return
    if "strict_share" in randomised:
        console.out.print(f"in a lesion with randomised weights: {randomised['strict_share']:.3f}")
    if randomised["rank_correlation"] is not None:
        console.out.print(f"rank correlation with the maps of randomised weights: {randomised['rank_correlation']:.3f}")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}.")
        return int(text)

    return read


def _accelerator(text: str) -> str:
    if text not in ("auto", "cpu", "gpu"):
        raise ValueError("must be auto, cpu or gpu.")
    return text


_READ: Mapping[str, Callable[[str], Any]] = {
    "images": _whole(1, 200),
    "layer": str,
    "randomised": _whole(0, 100),
    "batch_size": _whole(1, 4096),
    "accelerator": _accelerator,
}
