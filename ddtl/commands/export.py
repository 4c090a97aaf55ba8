"""``ddtl export``: a run's network for use outside of ddtl, with its model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from rich.markup import escape

from ddtl.commands.arguments import PATHS, Command, OutputFolder, Words
from ddtl.commands.run_names import run_folder
from ddtl.config.load import load
from ddtl.schema.run import Config, DatasetConfig
from ddtl.schema.section import Section
from ddtl.utils import console
from ddtl.utils.errors import EXIT_FAILURE, UserError
from ddtl.utils.files import folder_in, write_bytes, write_json, write_text
from ddtl.utils.reading import WEIGHTS, read_bytes

if TYPE_CHECKING:
    import numpy as np

    from ddtl.models.network import Network
    from ddtl.records.run_folder import RunFolder

LARGEST = 1e-4  # difference between the network and its ONNX file that is let pass


class ExportSettings(Section):
    """Settings of ``ddtl export``."""

    format: Literal["onnx", "safetensors"] = Field(
        "onnx", description="in fp32 and checked against the run's network on real images, or the weights as they are"
    )
    output: OutputFolder | None = Field(None, description="a folder; else RUN/export")
    images: int = Field(200, ge=1, description="of the run's dataset, for the check of an ONNX file")


COMMAND = Command(
    "export",
    ExportSettings,
    intro="Export a trained run: the weights, and a model card to go with them.",
    examples=(
        ("export RUN", "RUN/export/model.onnx"),
        ("export RUN format=safetensors", "RUN/export/model.safetensors"),
    ),
    notes=(
        "In the same folder: model.json (classes, image size, threshold, temperature) and card.md (intended use, data, "
        "protocol, scores with intervals, limits). The card's gaps are marked [to be filled in: …].",
        "format=onnx needs the extra packages of `pip install 'ddtl[export]'`.",
    ),
    exit_codes="0 written, 1 the ONNX file differs from the network by over 1e-4 (it is not kept), 2 a mistake",
    passes=PATHS,
)


def main(argv: Sequence[str]) -> int:
    """Run ``ddtl export`` with the words that follow it; return the exit code.

    Raises:
        UserError: a mistake in the command, a run that is not finished, or one whose images are not here.
    """
    if COMMAND.wants_help(argv):
        return 0
    path = run_folder("export", argv)
    to = export_run(path, COMMAND.read(argv[1:]))
    if to is None:
        return EXIT_FAILURE
    console.out.print(escape(f"written to {to}"))
    return 0


def export_run(path: Path, words: Words[ExportSettings]) -> Path | None:
    """Write the model of a run with its card.

    Args:
        path: the run's folder.
        words: what the command takes behind it.

    Returns:
        The folder of the model; None where the ONNX file differs too much from the network and was not kept.

    Raises:
        UserError: a run that is not finished, one whose images are not here, or a folder that cannot be written to.
    """
    from ddtl.records.run_folder import RunFolder
    from ddtl.reports.run import stored
    from ddtl.training.rescore import load_run

    folder = RunFolder(path)
    settings = words.settings
    saved, results = load_run(folder)
    found = stored.read(folder.path)
    to = settings.output or folder.path / "export"
    try:
        if settings.output is None:
            folder_in(folder.path, to.name)
        to.mkdir(parents=True, exist_ok=True)
        line = _export(folder, saved, results, words, to)
        if line is None:
            return None
        from ddtl.reports.run import model_card

        write_text(to / "card.md", model_card.render(found, model_card.evaluations(found), [line, _ABOUT_JSON]))
    except OSError as error:
        raise UserError(f"{error.filename or to}: cannot be written ({error.strerror}).") from error
    return to


_ABOUT_JSON = "`model.json`: classes, image size, architecture, threshold and temperature, for programs."


def metadata(config: Config, results: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """Return what a program must know to use the weights; nothing about this machine."""
    model, is_file = config.model, config.model.library == "file"
    windows = _windows(config.dataset)
    return {
        "note": "For research. Not for diagnosis.",
        "architecture": {
            "name": model.name,
            "grayscale": model.grayscale,
            "head": model.head.model_dump(mode="json"),
            **({"encoder": {**results["network"], "sha256": results["weights"]["digest"]}} if is_file else {}),
        },
        "classes": results["classes"],
        "positive": results["positive"],
        "image_size": config.dataset.image_size,
        "input": "gray levels / 255 of the whole image, resized to a square by antialiased bilinear filter",
        **({"channels": windows} if windows else {}),
        **({} if config.dataset.harmonize == "none" else {"harmonize": config.dataset.harmonize}),
        "threshold": results["threshold"] if results["positive"] is not None else None,
        "temperature": results["calibration"]["temperature"],
        "trained_on": {key: results[key] for key in ("dataset", "protocol")},
        "weights": digest,
        "versions": results["versions"],
    }


def _windows(c: DatasetConfig) -> list[dict[str, float]]:
    """Return center and width in Hounsfield units of each channel, where there are three; else nothing."""
    sources = c.of_sources().values() if c.kind == "pooled" else [c]
    window = next((one.window for one in sources if one.window is not None and one.window.others), None)
    if window is None:
        return []
    return [{"center": one.center, "width": one.width} for one in (window, *window.others)]


def _export(
    folder: RunFolder, saved: Config, results: Mapping[str, Any], words: Words[ExportSettings], to: Path
) -> str | None:
    """Write the model and ``model.json``; the card's line about it. None where the model was not kept."""
    if words.settings.format == "onnx" and saved.model.library == "file":
        raise UserError(
            "format=onnx: the encoder of model=features is a file already. format=safetensors writes the head, and the "
            "hash of that file."
        )
    if words.settings.format == "onnx":
        from ddtl.export import onnx

        onnx.require()
    from ddtl.inference import network

    net, digest = network.load(folder, saved, len(results["classes"]))
    about = metadata(saved, results, digest)
    if words.settings.format == "safetensors":
        write_bytes(to / "model.safetensors", read_bytes(folder.weights, WEIGHTS))
        line = (
            "`model.safetensors`: the weights, by the names of ddtl's network; `model.weights=FILE` starts from them."
        )
    else:
        images = _real_images(folder, saved, words, results["classes"])
        found = _checked_onnx(net, images, about, to / "model.onnx")
        agreement = f"largest difference from the network on {len(images)} images of {results['dataset']}: {found:.2g}"
        console.out.print(escape(agreement))
        if not found <= LARGEST:
            console.error(f"that is more than {LARGEST:g}: the ONNX file is not kept.")
            return None
        line = (
            f"`model.onnx`: opset {onnx.OPSET}, fp32; takes `images` (N, {saved.dataset.channels}, "
            f"{saved.dataset.image_size}, {saved.dataset.image_size}), gray levels / 255, and gives `logits` and "
            f"`probabilities` (N, {len(results['classes'])}); {agreement}."
        )
        about["largest_difference"] = found
    write_json(to / "model.json", about)
    return line


def _real_images(folder: RunFolder, saved: Config, words: Words[ExportSettings], classes: Sequence[str]) -> np.ndarray:
    """Return (N, channels, size, size) float32: validation images of the run's dataset, then training images."""
    import numpy as np

    from ddtl.data.download import claims
    from ddtl.data.loading.datamodule import CTDataModule
    from ddtl.data.loading.transforms import Augmenter
    from ddtl.schema.augment import NONE

    config = saved.model_copy(update={"paths": load(list(words.passed), writes=False).paths})
    claims.require_drawable(folder.config, config)
    datamodule = CTDataModule(config)
    datamodule.classes = classes
    with claims.named_by(folder.config, config.dataset), console.progress("preparing the run's images") as bar:
        datamodule.load(bar)
    rows = [*datamodule.manifest.rows("val"), *datamodule.manifest.rows("train")][: words.settings.images]
    as_floats = Augmenter(NONE, config.dataset.image_size)
    return np.stack([as_floats(datamodule.cache[row], ()) for row in rows])


def _checked_onnx(net: Network, images: np.ndarray, about: Mapping[str, Any], path: Path) -> float:
    """Write the file and return its largest difference from the network; it is kept where that is small enough."""
    from ddtl.export import onnx
    from ddtl.utils.files import Fresh

    fresh = Fresh(path)
    try:
        onnx.write(net, images.shape[-1], fresh.at, about, images.shape[1])
        with console.progress("comparing the file with the network") as bar:
            found = onnx.largest_difference(net, fresh.at, images, 32, bar)
        if found <= LARGEST:
            fresh.keep()
    finally:
        fresh.drop()
    return found
