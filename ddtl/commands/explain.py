"""``ddtl explain``: where a trained run saw what it answered by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from rich.markup import escape

from ddtl.commands.arguments import PATHS, Command, Words
from ddtl.commands.run_names import run_folder
from ddtl.schema.section import Section
from ddtl.utils import console
from ddtl.utils.errors import UserError


class ExplainSettings(Section):
    """Settings of ``ddtl explain``."""

    images: int = Field(12, ge=1, le=200, description="of each kind")
    layer: str = Field(
        "auto", description="whose feature map: auto (the last), a stage (block3) or a part of one (block3.denseblock3)"
    )
    randomised: int = Field(
        5, ge=0, le=100, description="networks with random weights that the maps are compared with; 0 for none"
    )
    batch_size: int = Field(32, ge=1, le=4096, description="images at once")
    accelerator: Literal["auto", "cpu", "gpu"] = Field("auto", description="the device")


COMMAND = Command(
    "explain",
    ExplainSettings,
    intro="Grad-CAM heat maps of a trained run: true and false positives and negatives of its test set, at its stored "
    "threshold.",
    examples=(
        ("explain RUN", "RUN: a run's folder, as runs/covid19ct/densenet121-full-s0-0123456789"),
        ("explain RUN images=24", "the most images of each kind, those first of which the network was most certain"),
    ),
    notes=(
        "RUN/explain/ gets a contact sheet of each kind (PNG), explain.json and what the run's page shows of it; "
        "report.html is written again with the best and the worst cases. On the phantom the record says how often the "
        "hottest place is in a lesion. The images are those that were scored already: this is not a use of a test set. "
        "Earlier heat maps are replaced.",
        "Needs the extra packages of `pip install 'ddtl[explain]'`. For research: a heat map is not proof of what a "
        "network sees.",
    ),
    exit_codes="0 written, 2 a mistake, 129/130/143 stopped",
    passes=PATHS,
)


def main(argv: Sequence[str]) -> int:
    """Run ``ddtl explain`` with the words that follow it; return the exit code.

    Raises:
        UserError: a mistake in the command, a run that is not finished, or one whose images are not here.
    """
    if COMMAND.wants_help(argv):
        return 0
    path = run_folder("explain", argv)
    record, page = explain_run(path, COMMAND.read(argv[1:]))
    _show(record)
    from ddtl.explain.explain import FOLDER

    console.out.print(escape(f"written to {path / FOLDER}, and shown in {page}"))
    return 0


def explain_run(path: Path, words: Words[ExplainSettings]) -> tuple[dict[str, Any], Path]:
    """Make the heat maps of a run and show them on its page.

    Args:
        path: the run's folder.
        words: what the command takes behind it.

    Returns:
        The record ``explain.json``, and the page.

    Raises:
        UserError: a run that is not finished, or one whose images are not here.
    """
    settings = words.settings
    from ddtl.records.run_folder import RunFolder
    from ddtl.training.rescore import load_run, on_this_machine

    folder = RunFolder(path)
    saved, results = load_run(folder)
    if "test" in results and results.get("evaluation", {}).get("batchnorm", "stored") != "stored":
        raise UserError(
            f"{folder.path} was scored with BatchNorm adapted to its test images (evaluation.batchnorm=adapt), and "
            "heat maps of the network as it is stored would not be those of its answers. `ddtl explain` does without."
        )
    config = on_this_machine(saved, words.passed, settings.accelerator, 32)
    from ddtl.explain import gradcam

    gradcam.require()
    from ddtl.data.datasets import registry
    from ddtl.utils.memory import tune_allocator

    registry.require_images(config)
    tune_allocator()
    from ddtl.commands.report import write
    from ddtl.explain.explain import ExplainOptions, explain

    options = ExplainOptions(settings.images, settings.layer, settings.randomised, settings.batch_size)
    record = explain(folder, config, results, options)
    return record, write(folder.path)


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
        from ddtl.reports.run.sentences import CHECK_EACH

        some = ", ".join(with_text[:3]) + (", …" if len(with_text) > 3 else "")
        what = f"{len(with_text)} of {len(shown)} images seem to contain text or arrows outside the body ({some})."
        console.out.print(escape(f"! {what} {CHECK_EACH}"), style="yellow")
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
