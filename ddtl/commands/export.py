"""``ddtl export``: a run's network for use outside of ddtl, with its model card."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.markup import escape

from ddtl.config.command_line import settings_and_paths
from ddtl.config.load import load
from ddtl.schema.run import Config
from ddtl.utils import console
from ddtl.utils.errors import EXIT_FAILURE, UserError
from ddtl.utils.files import folder_in, output_folder, write_bytes, write_json, write_text
from ddtl.utils.reading import WEIGHTS, read_bytes

if TYPE_CHECKING:
    import numpy as np

    from ddtl.models.network import Network
    from ddtl.records.run_folder import RunFolder

LARGEST = 1e-4  # difference between the network and its ONNX file that is let pass

HELP = """\
Export a trained run: the weights, and a model card to go with them.

  ddtl export RUN                      RUN/export/model.onnx, in fp32, checked against the run's network on real images
  ddtl export RUN format=safetensors   RUN/export/model.safetensors

Beside it: model.json (classes, image size, threshold, temperature) and card.md (intended use, data, protocol, scores
with intervals, limits). The card's gaps are marked [to be filled in: …].

  output=FOLDER         else RUN/export
  images=200            of the run's dataset, for the check of an ONNX file
  paths.data_dir=…, paths.cache_dir=…   where these are, as for train.py

format=onnx needs the extra packages of `pip install 'ddtl[export]'`.
Exit codes: 0 written, 1 the ONNX file differs from the network by over 1e-4 (it is not kept), 2 a mistake.
"""


@dataclass(frozen=True)
class Settings:
    """What was asked for."""

    run: Path
    paths: tuple[str, ...] = ()
    format: Literal["onnx", "safetensors"] = "onnx"
    output: Path | None = None
    images: int = 200


def main(argv: Sequence[str]) -> int:
    """What follows ``ddtl export``; returns the exit code.

    Raises:
        UserError: a mistake in the command, a run that is not finished, or one whose images are not here.
    """
    if not argv or {"--help", "-h"} & set(argv):
        sys.stdout.write(HELP)
        return 0
    from ddtl.records.run_folder import RunFolder
    from ddtl.reports.run import stored
    from ddtl.training.rescore import stored_run

    settings = parse(argv)
    folder = RunFolder(settings.run)
    saved, results = stored_run(folder)
    found = stored.read(settings.run)
    to = settings.output or settings.run / "export"
    try:
        if settings.output is None:
            folder_in(settings.run, to.name)
        to.mkdir(parents=True, exist_ok=True)
        line = _export(folder, saved, results, settings, to)
        if line is None:
            return EXIT_FAILURE
        from ddtl.reports.run import model_card

        write_text(to / "card.md", model_card.render(found, model_card.evaluations(found), [line, _ABOUT_JSON]))
    except OSError as error:
        raise UserError(f"{error.filename or to}: cannot be written ({error.strerror}).") from error
    console.out.print(escape(f"written to {to}"))
    return 0


_ABOUT_JSON = "`model.json`: classes, image size, architecture, threshold and temperature, for programs."


def parse(argv: Sequence[str]) -> Settings:
    """The run and the settings, all mistakes in one message.

    Raises:
        UserError: there are mistakes.
    """
    named, *words = argv
    values, paths = settings_and_paths(words, _READ)
    return Settings(Path(named).expanduser(), tuple(paths), **values)


def facts(config: Config, results: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """What a program must know to use the weights; nothing about this machine."""
    model = config.model
    return {
        "note": "For research. Not for diagnosis.",
        "architecture": {"name": model.name, "grayscale": model.grayscale, "head": model.head.model_dump(mode="json")},
        "classes": results["classes"],
        "positive": results["positive"],
        "image_size": config.dataset.image_size,
        "input": "gray levels / 255 of the whole picture, resized to a square by antialiased bilinear filter",
        "threshold": results["threshold"] if results["positive"] is not None else None,
        "temperature": results["calibration"]["temperature"],
        "trained_on": {key: results[key] for key in ("dataset", "protocol")},
        "weights": digest,
        "versions": results["versions"],
    }


def _export(folder: RunFolder, saved: Config, results: Mapping[str, Any], settings: Settings, to: Path) -> str | None:
    """Write the model and ``model.json``; the card's line about it. None where the model was not kept."""
    if settings.format == "onnx":
        from ddtl.export import onnx

        onnx.require()
    from ddtl.inference import network

    net, digest = network.load(folder, saved, len(results["classes"]))
    about = facts(saved, results, digest)
    if settings.format == "safetensors":
        write_bytes(to / "model.safetensors", read_bytes(folder.weights, WEIGHTS))
        line = (
            "`model.safetensors`: the weights, by the names of ddtl's network; `model.weights=FILE` starts from them."
        )
    else:
        images = _real_images(saved, settings, results["classes"])
        found = _checked_onnx(net, images, about, to / "model.onnx")
        said = f"largest difference from the network on {len(images)} images of {results['dataset']}: {found:.2g}"
        console.out.print(escape(said))
        if not found <= LARGEST:
            console.error(f"that is more than {LARGEST:g}: the ONNX file is not kept.")
            return None
        line = (
            f"`model.onnx`: opset {onnx.OPSET}, fp32; takes `images` (N, 1, {saved.dataset.image_size}, "
            f"{saved.dataset.image_size}), gray levels / 255, and gives `logits` and `probabilities` (N, "
            f"{len(results['classes'])}); {said}."
        )
        about["largest_difference"] = found
    write_json(to / "model.json", about)
    return line


def _real_images(saved: Config, settings: Settings, classes: Sequence[str]) -> np.ndarray:
    """(N, 1, size, size) float32: validation images of the run's dataset, then training images."""
    import numpy as np

    from ddtl.data.download import claims
    from ddtl.data.loading.datamodules import build_datamodule
    from ddtl.data.loading.transforms import NONE, Augmenter

    config = saved.model_copy(update={"paths": load(list(settings.paths), writes=False).paths})
    config_file = settings.run / "config.yaml"
    claims.require_drawable(config_file, config)
    datamodule = build_datamodule(config)
    datamodule.classes = classes
    with claims.named_by(config_file, config.dataset), console.progress("preparing the run's images") as bar:
        datamodule.load(bar)
    rows = [*datamodule.manifest.rows("val"), *datamodule.manifest.rows("train")][: settings.images]
    as_floats = Augmenter(NONE, config.dataset.image_size)
    return np.stack([as_floats(datamodule.cache[row], ()) for row in rows])


def _checked_onnx(net: Network, images: np.ndarray, about: Mapping[str, Any], path: Path) -> float:
    """Write the file and return its largest difference from the network; it is kept where that is small enough."""
    from ddtl.export import onnx
    from ddtl.utils.files import Fresh

    fresh = Fresh(path)
    try:
        onnx.write(net, images.shape[-1], fresh.at, about)
        with console.progress("comparing the file with the network") as bar:
            found = onnx.largest_difference(net, fresh.at, images, 32, bar)
        if found <= LARGEST:
            fresh.keep()
    finally:
        fresh.drop()
    return found


def _format(text: str) -> str:
    if text not in ("onnx", "safetensors"):
        raise ValueError("must be onnx or safetensors.")
    return text


def _images(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("must be a whole number above 0; 200 is usual.")
    return int(text)


_READ: Mapping[str, Callable[[str], Any]] = {"format": _format, "output": output_folder, "images": _images}
