"""What is done with a run that was scored just now: its page, and what loggers get.

Loggers get its scores, MLflow and W&B its intervals, and W&B its weights and its page, too.

The page that goes to W&B contains no image and names no patient. Images go there with ``logger.upload_samples=true``
alone, each with its file's name.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import WandbLogger

from ddtl.data.images.cache import first_channel
from ddtl.records import predictions as prediction_table
from ddtl.records.run_folder import RunFolder
from ddtl.reports.run import report, stored
from ddtl.reports.run.write import write_page
from ddtl.training.mlflow_run import MlflowRun
from ddtl.training.run import Run, ScoredRun
from ddtl.utils import ranks

log = logging.getLogger(__name__)

_SAMPLES = 32  # images of the scored split


def publish(scored: ScoredRun, page: bool = True) -> None:
    """Write the run's page and show its results to its loggers; one that cannot be shown to W&B is a warning.

    Args:
        scored: the run, with its predictions, weights and ``results.json`` in its folder.
        page: whether the page is written; `ddtl report` does so later.
    """
    if page and ranks.is_first():
        write_page(scored.folder.path)
    scores = {
        f"final/{split}/{name}": value
        for split in ("val", "test")
        for name, value in scored.results.get(split, {}).items()
        if isinstance(value, float)
    }
    for logger in scored.loggers:
        logger.log_metrics(scores, step=scored.step)
        if isinstance(logger, MlflowRun):  # as W&B's summary
            logger.log_metrics(dict(intervals(scored.results)), step=scored.step)
        if isinstance(logger, WandbLogger):
            try:
                _to_wandb(logger.experiment, scored.run, scored.folder, scored.results)
            except Exception as error:  # W&B's own, or a full disk: the run is whole without it
                log.warning("W&B did not take the run's results: %s", str(error).strip().partition("\n")[0])


def _to_wandb(shown: Any, run: Run, folder: RunFolder, results: Mapping[str, Any]) -> None:
    shown.summary.update(dict(intervals(results)))
    if run.config.logger.wandb.artifacts:
        for kind, name, data in _files(folder):
            _artifact(shown, kind, name, data)
    if run.config.logger.upload_samples:
        shown.log({"samples": list(_samples(run, folder, "test" if "test" in results else "val"))})


def intervals(results: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Return the limits of every interval by image, and scores and limits by patient, as W&B's summary names them.

    ``final/test/roc_auc_low``, ``final/test/patients/roc_auc``, ``final/test/patients/roc_auc_high``.
    """
    for split in ("val", "test"):
        by_image = results.get(split, {})
        by_patient = by_image.get("patients") or {}
        for prefix, scores in ((f"final/{split}", by_image), (f"final/{split}/patients", by_patient)):
            if scores is by_patient:
                yield from ((f"{prefix}/{name}", value) for name, value in scores.items() if isinstance(value, float))
            for name, interval in (scores.get("intervals") or {}).items():
                if interval is not None:
                    yield f"{prefix}/{name}_low", interval["low"]
                    yield f"{prefix}/{name}_high", interval["high"]


def _files(folder: RunFolder) -> Iterator[tuple[str, str, bytes | Path]]:
    yield "model", "model.safetensors", folder.weights
    # The page that was written just now has images only where `ddtl explain` has seen an earlier result of this run.
    if folder.report.exists() and not (folder.path / "explain").exists():
        yield "report", "report.html", folder.report
    else:
        yield "report", "report.html", report.render_run(stored.read(folder.path), images=False).encode()


def _artifact(shown: Any, kind: str, name: str, data: bytes | Path) -> None:
    import wandb

    artifact = wandb.Artifact(f"{kind}-{shown.id}", type=kind)
    if isinstance(data, Path):
        artifact.add_file(str(data), name=name)
    else:
        with artifact.new_file(name, mode="wb") as file:
            file.write(data)
    shown.log_artifact(artifact)


def _samples(run: Run, folder: RunFolder, split: str) -> Iterator[Any]:
    import wandb

    table = prediction_table.read(folder.predictions).of(split)
    rows = {sample.sample_id: i for i, sample in enumerate(run.datamodule.manifest.samples)}
    chosen = np.linspace(0, len(table) - 1, min(_SAMPLES, len(table))).round().astype(int)
    pixels = first_channel(run.datamodule.cache.take([rows[str(table.sample_id[i])] for i in chosen]))
    for i, image in zip(chosen.tolist(), pixels, strict=True):
        shares = zip(table.classes, table.probabilities[i], strict=True)
        probabilities = ", ".join(f"{name} {p:.3f}" for name, p in shares)
        caption = f"{table.sample_id[i]}: is {table.classes[table.label[i]]}; {probabilities}"
        yield wandb.Image(np.asarray(image), mode="L", caption=caption)
