"""A trained network on the test set of another dataset."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from ddtl.data.datasets.patient_ids import spelling_key
from ddtl.data.datasets.pooled import prefixed
from ddtl.data.download import claims
from ddtl.data.manifest import Manifest
from ddtl.evaluation import record
from ddtl.evaluation.predictions import Predictions
from ddtl.models.module import Classifier
from ddtl.records import predictions as prediction_table, run as results_of, settings, small
from ddtl.records.identity import short_hash
from ddtl.records.run_folder import RunFolder
from ddtl.schema.run import Config, EvaluationConfig, WindowConfig
from ddtl.training import batchnorm, embeddings, hardware, lightning
from ddtl.training.identity import scoring as scoring_settings
from ddtl.training.results import RunResult, score_predictions, warn_of_inversion
from ddtl.training.run import Run
from ddtl.training.scoring import (
    baselines,
    check_threshold,
    predict,
    setting,
    transductive,
)
from ddtl.training.test_uses import count_use
from ddtl.training.train import assemble
from ddtl.utils.errors import UserError
from ddtl.utils.files import within, write_json
from ddtl.utils.reading import Unreadable

log = logging.getLogger(__name__)


def score_external(folder: RunFolder, config: Config, trained: dict[str, Any]) -> RunResult:
    """Predict and score; written to ``<run>/evaluations/<dataset>-<protocol>/``.

    Other grey levels than the run's own, and adapted BatchNorm, follows that in the folder's name. So does a hash
    of the images where the folder contains the scores of other ones, such as those of another site or split.

    Args:
        folder: of the finished run.
        config: the run's, with the other dataset in it and the run's folder as weights.
        trained: the run's own results.

    Raises:
        UserError: the dataset is not there, or its classes are not the run's.
    """
    run = _assemble(folder, config, trained)
    manifest = run.datamodule.manifest
    to = within(
        folder.path, "evaluations", "-".join([manifest.dataset, str(manifest.protocol), *_methods(config, trained)])
    )
    if _digest(to) not in (None, run.datamodule.digest):
        to = within(folder.path, "evaluations", f"{to.name}-{run.datamodule.digest[:10]}")
    return RunResult(to, _score(run, folder, trained, to))


def _digest(evaluation: Path) -> str | None:
    """Return which images a folder's scores are of; None where it contains none."""
    try:
        found: str | None = results_of.read(evaluation).get("digest")
    except (OSError, Unreadable):
        return None
    return found


def score_target(folder: RunFolder, config: Config, trained: dict[str, Any], target: str) -> Path:
    """Score as :func:`score_external` does, for a study, and return a folder that no other evaluation can have.

    Its name contains a hash of the images, their split and the settings of the evaluation. One that is there and
    finished is left as it is.

    Args:
        folder, config, trained: as there.
        target: what the study calls the dataset.
    """
    run = _assemble(folder, config, trained)
    settings = {
        "digest": run.datamodule.digest,
        "evaluation": scoring_settings(config.evaluation),
        "refit": config.evaluation.refit,
        "harmonize": config.dataset.harmonize,
        "epoch": trained["best_epoch"],
    }
    words = [target.replace(":", "-"), str(run.datamodule.manifest.protocol), *_methods(config, trained)]
    to = within(folder.path, "evaluations", "-".join([*words, short_hash(settings)]))
    if not (to / "results.json").exists():
        _score(run, folder, trained, to, embed=True)
    return to


def _in_words(window: WindowConfig) -> str:
    """Return ``center -600, width 1500``, of each channel."""
    return ", ".join(f"center {one.center:g}, width {one.width:g}" for one in (window, *window.others))


def _typed(window: WindowConfig | None) -> str:
    """Return the word of a command that sets a window."""
    if window is None:
        return "dataset.window"
    each = [f"{{center:{one.center:g},width:{one.width:g}}}" for one in (window, *window.others)]
    return f"'dataset.window={each[0] if len(each) == 1 else '[' + ','.join(each) + ']'}'"


def embed_own(folder: RunFolder, config: Config) -> None:
    """Write ``embeddings.npz`` into a run's folder, for the images and in the order of its ``predictions.csv``.

    Args:
        folder: of the finished and tested run.
        config: the run's, with its folder as weights.
    """
    if (folder.path / embeddings.NAME).exists():
        return
    run = assemble(config)
    splits = ["val", "test"]
    with embeddings.collect_features(run.network) as parts:
        predict(_trainer(run), _module(run), run.datamodule, splits)
    _write_embeddings(run, splits, parts, folder.path)


def _assemble(folder: RunFolder, config: Config, trained: dict[str, Any]) -> Run:
    """Return the run's network and the other dataset, its classes matched to the run's."""
    reference = reference_histogram(folder) if config.dataset.harmonize.startswith("match") else None
    own, stored = claims.own_files(config.dataset), settings.config(folder.path).dataset
    if config.dataset.channels != stored.channels:
        raise UserError(
            f"dataset={config.dataset.name}: the run was trained on {stored.channels} windows of Hounsfield units, and "
            f"this dataset has another number. Give it as DICOM or NIfTI with the run's own, {_typed(stored.window)}."
        )
    is_stored = bool(own) and own == claims.own_files(stored)
    if claims.pixels(stored.phantom) == claims.pixels(config.dataset.phantom):
        claims.require_drawable(folder.config, config)
    with claims.named_by(folder.config, config.dataset) if is_stored else nullcontext():
        run = assemble(config, reference, trained["classes"])
    for doubt in run.datamodule.manifest.doubts(trained_on=False):
        log.warning(doubt)
    return run


def _methods(config: Config, trained: dict[str, Any]) -> list[str]:
    """Return what is done otherwise than in the run."""
    methods = (config.dataset.harmonize, config.evaluation.batchnorm)
    return [method for method in methods if method not in (trained.get("harmonize", "none"), "stored")]


def _module(run: Run) -> Classifier:
    module = run.module()
    if run.config.trainer.channels_last:
        module.to(memory_format=torch.channels_last)
    return module


def _trainer(run: Run) -> pl.Trainer:
    """Return a trainer that predicts without output."""
    return lightning.build(
        accelerator=run.machine.accelerator, precision=run.machine.precision,
        deterministic=run.config.trainer.deterministic, logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip


def _write_embeddings(run: Run, splits: Sequence[str], parts: Sequence[np.ndarray], to: Path) -> None:
    rows = [row for split in splits for row in run.datamodule.manifest.rows(split)]
    embeddings.write(parts, rows, to / embeddings.NAME)


def _score(run: Run, folder: RunFolder, trained: dict[str, Any], to: Path, embed: bool = False) -> dict[str, Any]:
    """Predict and score, into the folder ``to``; ``embed``: with the embeddings."""
    config = run.config
    harmonize = config.dataset.harmonize
    manifest = run.datamodule.manifest
    module, trainer = _module(run), _trainer(run)
    known = prediction_table.read(folder.predictions)
    results_of.match(folder.predictions, known, trained, ["val"] if "val" in trained else [])
    val = known.of("val")
    record.choose_on_validation(val, config.evaluation)  # what it refuses is refused before the use is counted
    if config.evaluation.refit:
        if not manifest.rows("val"):
            raise UserError(
                f"evaluation.refit=true: {manifest.dataset} has no validation images, by which to choose a threshold. "
                "Leave evaluation.refit out, or give it a split with some."
            )
        check_threshold(run)
    use = count_use(run, folder, trained["best_epoch"], to)
    results = setting(run) | {
        "trained_on": {"dataset": trained["dataset"], "protocol": trained["protocol"], "run": folder.path.name},
        "seed": trained["seed"],
        "weights": trained["weights"],
        "best_epoch": trained["best_epoch"],
        **use.record(),
    }
    evaluation = config.evaluation
    with batchnorm.adapt_statistics(trainer, module, run.datamodule, evaluation):
        splits = ["val", "test"] if evaluation.refit else ["test"]
        with embeddings.collect_features(run.network) as parts:
            both = predict(trainer, module, run.datamodule, splits)
    table = both.of("test")
    # How the other dataset was split gives no information here: what matters is whether the run trained on its test
    # images.
    tested_on = manifest.dataset if config.dataset.sources is None else None
    seed = None if config.dataset.phantom is None else config.dataset.phantom.seed
    contents = dict(zip((s.sample_id for s in manifest.samples), run.datamodule.cache.file_hashes, strict=True))
    results["leaked_share"] = _share_seen(folder, table, contents, tested_on, trained, seed)
    results["warning_names"] = manifest.named(trained_on=False)
    results["warnings"] = [*manifest.sentences(trained_on=False), *use.warnings, *_leak(results["leaked_share"])]
    results["warnings"] += _same_ids(folder, run, trained)
    seen, window = settings.config(folder.path).dataset.window, config.dataset.window
    if seen is not None and window is not None and seen != window:
        results["warnings"].append(
            f"These images are shown through another window of Hounsfield units than those that the run trained on "
            f"({_in_words(window)}; trained through {_in_words(seen)})."
        )
    if evaluation.batchnorm != "stored":
        results["warnings"].append(transductive(run, evaluation))
    if harmonize == "match":
        results["warnings"].append(
            "Grey levels were brought to those of the images that the run trained on, by one map made of the "
            f"training images of {manifest.dataset}, labels unused (dataset.harmonize=match)."
        )
    results |= score_predictions(table, val, ["test"], evaluation, manifest.grouping)
    warn_of_inversion(results, ["test"])
    if evaluation.refit:
        results["refitted"] = score_refitted(both, evaluation, manifest)
    results["baselines"] = baselines(table, manifest, evaluation, run.datamodule.cache.folder)
    to.mkdir(parents=True, exist_ok=True)
    write_json(to / "environment.json", hardware.environment())
    prediction_table.write(both, to / "predictions.csv")
    if embed:
        _write_embeddings(run, splits, parts, to)
    write_json(to / "results.json", results)
    return results


def score_refitted(both: Predictions, config: EvaluationConfig, manifest: Manifest) -> dict[str, Any]:
    """Return the test set's scores with threshold and temperature of the same dataset's validation images.

    A fixed threshold has nothing to be fitted; Youden's rule takes its place.
    """
    val = both.of("val")
    chosen = config.threshold if isinstance(config.threshold, str) or len(manifest.classes) != 2 else "youden"
    config = config.model_copy(update={"threshold": chosen})
    choices = record.choose_on_validation(val, config)
    note = (
        f"Threshold and temperature refitted on {len(val)} labelled validation images of {manifest.dataset}: what this "
        "model would score with labels from there."
    )
    how = record.setting(choices, config, manifest.grouping)
    return {"note": note, "val_images": len(val), **how, "test": record.of_split(both.of("test"), choices, config)}


def reference_histogram(folder: RunFolder) -> np.ndarray:
    """Return the grey levels of the images that the run trained on, as a histogram."""
    try:
        return np.array(small.histogram(folder.histogram), dtype=np.int64)
    except FileNotFoundError:
        raise UserError(
            f"{folder.path} contains no histogram.json, which dataset.harmonize=match needs: an older version of ddtl "
            "made the run. The command that made it retrains it with run.overwrite=true."
        ) from None


def _share_seen(
    folder: RunFolder, test: Predictions, contents: Mapping[str, str], dataset: str | None, trained: dict[str, Any],
    seed: int | None,
) -> float:  # fmt: skip
    """Return the share of the test images that are files, or of patients or groups, that the run trained on.

    Args:
        folder: of the run.
        test: predictions of the test images.
        contents: sha256 of the file of each image, by sample_id: files are the same ones under any dataset's name.
        dataset: theirs; None for a pool, where each group already has its dataset's name before it.
        trained: the run's own results.
        seed: of the phantom's patients among them; None where there are none. Another seed draws other people.
    """
    trained_groups, trained_files = small.trained_on(folder.split)
    if not trained.get("sources"):
        trained_groups = {prefixed(trained["dataset"], group) for group in trained_groups}
    if seed != _phantom_seed(folder):
        trained_groups = {group for group in trained_groups if not re.match(r"phantom(:[ab])?/", group)}
    groups = [group if dataset is None else prefixed(dataset, group) for group in test.group.tolist()]
    # Another table of the same patients may spell them otherwise.
    trained_groups, groups = set(map(spelling_key, trained_groups)), list(map(spelling_key, groups))
    files = [small.content(contents[sample_id]) for sample_id in test.sample_id.tolist()]
    seen = [group in trained_groups or file in trained_files for group, file in zip(groups, files, strict=True)]
    return float(np.mean(seen))


def _same_ids(folder: RunFolder, run: Run, trained: Mapping[str, Any]) -> list[str]:
    """Return the doubt where patients of another dataset of DICOM files have the ids of those that the run trained on.

    The names of the datasets are people's own: the patients of both may be those of one hospital.
    """
    stored, manifest = settings.config(folder.path).dataset, run.datamodule.manifest
    if {stored.kind, run.config.dataset.kind} != {"dicom"} or manifest.dataset == trained["dataset"]:
        return []
    known, _ = small.trained_on(folder.split)
    same = {manifest.samples[row].patient_id for row in manifest.rows("test")} & known
    if not same:
        return []
    who = "patient of the test set has" if len(same) == 1 else "patients of the test set have"
    warning = f"{len(same)} {who} a PatientID that is also in the training: of one hospital they are the same people."
    log.warning(warning)
    return [warning]


def _phantom_seed(folder: RunFolder) -> int | None:
    """Return the seed of the phantom's patients that a run trained on; None where there are none."""
    phantom = settings.config(folder.path).dataset.phantom
    return None if phantom is None else phantom.seed


def _leak(share: float) -> list[str]:
    if not share:
        return []
    warning = f"{share:.0%} of the test images, or their patients or groups, are among those trained on: optimistic."
    log.warning(warning)
    return [warning]
