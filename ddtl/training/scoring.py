"""A trained run to its record: predictions, weights and results, the results last."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from ddtl.audits import file_metadata, record as audits
from ddtl.config import phases
from ddtl.data.images.image_file import BadImageError
from ddtl.data.loading.datamodule import CTDataModule
from ddtl.data.manifest import Manifest
from ddtl.data.splits import protocols
from ddtl.evaluation import record
from ddtl.evaluation.patients import WhyNot
from ddtl.evaluation.predictions import Predictions
from ddtl.finetuning.callback import apply_epoch
from ddtl.models import adapters
from ddtl.models.metrics import of_patients, of_predictions
from ddtl.models.module import Classifier
from ddtl.models.network import Network
from ddtl.records import predictions as prediction_table
from ddtl.records.epochs import AVERAGED
from ddtl.records.run_folder import MACHINE, RunFolder
from ddtl.schema.backbones import HEAD
from ddtl.schema.run import EvaluationConfig
from ddtl.schema.scores import BY_PATIENT
from ddtl.training import batchnorm, checkpoints, hardware, nearest, verification
from ddtl.training.embeddings import collect_features
from ddtl.training.identity import plugin_notes
from ddtl.training.joining import join
from ddtl.training.results import score_predictions, warn_of_inversion
from ddtl.training.run import Run
from ddtl.training.test_uses import count_use, earlier_uses
from ddtl.training.weight_averaging import scored_weights
from ddtl.utils.errors import EXIT_FAILURE, InconsistentRecord, UserError
from ddtl.utils.files import append_line, write_bytes, write_json
from ddtl.utils.ranks import gather

log = logging.getLogger(__name__)


def score_run(run: Run, folder: RunFolder, trainer: pl.Trainer, module: Classifier) -> dict[str, Any]:
    """Score the best checkpoint on validation and, where requested, on the test set; ``results.json`` as a dict.

    Where the last epochs' weights are averaged, their mean takes the best checkpoint's place.
    """
    trainer.strategy.barrier("the best checkpoint is written")
    averaged = run.config.trainer.average_last
    checkpoint = checkpoints.read(folder.best if averaged is None else folder.last, run.network.state_dict())
    run.network.load_state_dict(scored_weights(checkpoint))
    epoch = int(checkpoint["epoch"])
    if averaged is not None:
        _remeasure(run, trainer, module, epoch)
    evaluation = run.config.evaluation
    wanted = ["val", "test"] if evaluation.test else ["val"]
    neighbours: dict[str, Any] | None = None

    with _features(run) as val_features:
        val = predict(trainer, module, run.datamodule, ["val"])
    warned = _verify(run, folder, trainer, val, checkpoint)  # before the test set is examined

    results = {**setting(run), "best_epoch": epoch, **({} if averaged is None else {AVERAGED: averaged})}
    results["warnings"] = [*results["warnings"], *warned, *_at_the_edge(run, epoch)]
    table = val
    if evaluation.test and trainer.is_global_zero:
        use = count_use(run, folder, epoch, folder.path)
        results |= use.record()
        results["warnings"] = [*results["warnings"], *use.warnings]
    elif trainer.is_global_zero:
        results |= earlier_uses(run, folder)
    if evaluation.test and evaluation.batchnorm != "stored":
        with batchnorm.adapt_statistics(trainer, module, run.datamodule, evaluation):
            table = val.and_then(predict(trainer, module, run.datamodule, ["test"]))
        results["warnings"] = [*results["warnings"], transductive(run, evaluation)]
    elif evaluation.test:
        with _features(run) as test_features:
            test = predict(trainer, module, run.datamodule, ["test"])
        table = val.and_then(test)
        if run.schedule.penalties is not None:
            neighbours = _nearest(run, trainer, module, (val_features, val), (test_features, test))
    if not trainer.is_global_zero:
        return results
    manifest = run.datamodule.manifest
    table = table.where(np.argsort(table.sample_id, kind="stable"))  # the manifest's order
    results |= score_predictions(table, table.of("val"), wanted, evaluation, manifest.grouping)
    warn_of_inversion(results, wanted)
    if evaluation.test:
        results["baselines"] = baselines(table.of("test"), manifest, evaluation, run.datamodule.cache.folder)
        if neighbours is not None:
            results["baselines"]["nearest"] = neighbours
    prediction_table.write(table, folder.predictions)
    _write_weights(folder, run.network, results)
    _write_adapter(run, folder)
    write_json(folder.results, results)
    return results


def _features(run: Run) -> AbstractContextManager[list[np.ndarray]]:
    """Collect what a fitted head takes; nothing of another one."""
    return nullcontext([]) if run.schedule.penalties is None else collect_features(run.network)


def _nearest(
    run: Run,
    trainer: pl.Trainer,
    module: Classifier,
    val: tuple[list[np.ndarray], Predictions],
    test: tuple[list[np.ndarray], Predictions],
) -> dict[str, Any]:
    """Return the scores of the nearest training images by the features that a fitted head takes."""
    with _features(run) as features:
        train = predict(trainer, module, run.datamodule, ["train"])
    embeddings, *others = (np.concatenate(parts) for parts in (features, val[0], test[0]))
    return nearest.baseline((embeddings, train.label), (others[0], val[1]), (others[1], test[1]), run.config.evaluation)


def _verify(
    run: Run, folder: RunFolder, trainer: pl.Trainer, val: Predictions, checkpoint: Mapping[str, Any]
) -> list[str]:
    """Compare the validation predictions with the epoch's row; averaged weights, which have none, get one of their own.

    Raises:
        InconsistentRecord: they are of other weights than the epoch's.
    """
    found: tuple[str, list[str]] = ("", [])
    epoch = int(checkpoint["epoch"])
    if trainer.is_global_zero and run.config.trainer.average_last is not None:
        scores = of_predictions(torch.from_numpy(val.logits), torch.from_numpy(val.label))
        row = {"epoch": epoch, AVERAGED: run.config.trainer.average_last, "step": trainer.global_step}
        append_line(folder.metrics, {**row, **dict(sorted(scores.items()))})
    elif trainer.is_global_zero:
        try:
            recorded = next((row for row in folder.epochs() if row["epoch"] == epoch), None)
            found = "", verification.check_epoch(run, recorded, val, epoch, checkpoint.get(MACHINE))
        except InconsistentRecord as error:
            found = str(error), []
    wrong, warned = trainer.strategy.broadcast(found)
    if wrong and not trainer.is_global_zero:
        raise SystemExit(EXIT_FAILURE)  # the first process says why
    if wrong:
        raise InconsistentRecord(wrong)
    return list(warned)


def _remeasure(run: Run, trainer: pl.Trainer, module: Classifier, epoch: int) -> None:
    """BatchNorm's statistics of the network's present weights, where the epoch did not leave them fixed."""
    apply_epoch(run.network, run.schedule, epoch)
    layers = [layer for layer in batchnorm.layers_of(module) if not layer.fixed]
    if layers:
        batchnorm.measure(trainer, module, run.datamodule, "train", layers)


def _at_the_edge(run: Run, epoch: int) -> list[str]:
    """Return that a stronger or a weaker penalty than those that were tried may be better."""
    if run.schedule.penalties is None or len(run.schedule.epochs) == 1 or 0 < epoch < len(run.schedule.epochs) - 1:
        return []
    which, change = ("strongest", "raise the first") if epoch == 0 else ("weakest", "lower the last")
    return [f"The {which} of the penalties was the best on validation: {change} of finetune.penalties."]


def transductive(run: Run, config: EvaluationConfig) -> str:
    """Return what a reader must know of scores with adapted BatchNorm."""
    n = len(run.datamodule.manifest.rows("test"))
    prior = config.batchnorm_prior
    mixed = f", mixed with those of the training as if of {prior} images" if prior else ""
    return (
        f"The network was adapted to the test set: BatchNorm's statistics are those of its {n} images, labels unused"
        f"{mixed} (evaluation.batchnorm=adapt). A prediction depends on the other test images."
    )


_NO_TRAINING = {
    "why_not": "the dataset is a test set alone, on which no classifier can be trained",
    "features": list(file_metadata.FEATURES),
}


def baselines(test: Predictions, manifest: Manifest, config: EvaluationConfig, cache: Path) -> dict[str, Any]:
    """Return what needs no network: the majority class, and a classifier on file metadata, whose answers are kept in
    the folder of the decoded images.
    """
    trained_on = manifest.counts()["train"]["classes"]
    try:
        if not any(trained_on.values()):  # a test set alone
            return {"majority": record.majority(manifest.counts()["test"]["classes"], test), "file_facts": _NO_TRAINING}
        metadata = record.baseline(file_metadata.probabilities(manifest, cache), test, config)
    except BadImageError as error:  # the images themselves are in the cache, and their files may be gone by now
        metadata = {"why_not": str(error)}
    return {
        "majority": record.majority(trained_on, test),
        "file_facts": {**metadata, "features": list(file_metadata.FEATURES)},
    }


def predict(trainer: pl.Trainer, module: Classifier, datamodule: CTDataModule, wanted: list[str]) -> Predictions:
    """Return logits for every image of some splits, each once.

    A split that is predicted by itself goes through the network in the batches in which it is validated.

    Raises:
        InconsistentRecord: the network is another one afterwards.
    """
    unchanged = verification.Unchanged(module)
    mine: Any = trainer.predict(module, dataloaders=datamodule.eval_loader(*wanted))
    unchanged.check()
    batches = gather(mine)
    rows = torch.cat([batch["row"] for batch in batches])
    logits = torch.cat([batch["logits"] for batch in batches])
    return join(datamodule.manifest, rows.tolist(), logits.numpy())


def setting(run: Run) -> dict[str, Any]:
    """Return what a reader of the scores must know."""
    manifest = run.datamodule.manifest
    return {
        "dataset": manifest.dataset,
        "protocol": manifest.protocol,
        **({} if run.config.dataset.sources is None else {"sources": list(run.config.dataset.sources)}),
        **({} if manifest.fold is None else {"fold": manifest.fold[0], "n_folds": manifest.fold[1]}),
        "grouping": manifest.grouping,
        "classes": list(manifest.classes),
        "positive": manifest.positive if len(manifest.classes) == 2 else None,
        "warnings": [*protocols.describe(manifest), *manifest.sentences(), *plugin_notes(run.config)],
        "warning_names": manifest.named(),
        **({} if run.config.dataset.harmonize == "none" else {"harmonize": run.config.dataset.harmonize}),
        "excluded": None if manifest.left_out is None else asdict(manifest.left_out),
        "leaked_share": protocols.leaked_share(manifest),
        "splits": manifest.counts(),
        "split_seed": run.config.dataset.split_seed,
        "seed": run.config.seed,
        "digest": run.datamodule.digest,
        "contents": {split: run.datamodule.content(split) for split in ("val", "test")},
        "audit": audits.newest(run.runs_dir, manifest.dataset, run.datamodule.digest),
        "weights": {"source": run.weights.source, "digest": run.weights.digest},
        **({} if run.network.backbone.about is None else {"network": run.network.backbone.about}),
        "monitor": run.config.trainer.monitor,
        "precision": run.machine.precision,
        "versions": hardware.versions(),
    }


def check_threshold(run: Run) -> None:
    """Refuse a threshold rule that the run's validation images cannot meet.

    Raises:
        UserError: with what to do instead.
    """
    manifest = run.datamodule.manifest
    rows = manifest.rows("val")
    samples = [manifest.samples[row] for row in rows]
    record.check_threshold(
        run.config.evaluation,
        len(manifest.classes),
        np.asarray(run.datamodule.labels)[rows],
        np.array([sample.patient_id or "" for sample in samples], dtype=str),
        np.array([sample.group for sample in samples], dtype=str),
    )


def check_monitor(run: Run) -> None:
    """Refuse to monitor patients that the validation images do not have.

    Raises:
        UserError: with what to do instead.
    """
    monitor, manifest = run.config.trainer.monitor, run.datamodule.manifest
    if monitor != BY_PATIENT:
        if run.schedule.penalties is not None and manifest.grouping == "patient" and len(manifest.classes) == 2:
            log.warning("%s by image chooses the penalty; trainer.monitor=%s does by patient.", monitor, BY_PATIENT)
        return
    rows = manifest.rows("val")
    patients = np.array([manifest.samples[row].patient_id or "" for row in rows], dtype=str)
    logits = np.zeros((len(rows), len(manifest.classes)))
    found = of_patients(patients, logits, run.datamodule.labels[rows], run.config.evaluation.patient)
    if isinstance(found, WhyNot):
        raise UserError(
            f"trainer.monitor={BY_PATIENT}: no score by patient of the validation images: {found.reason}. Set "
            "trainer.monitor=val/roc_auc."
        )


def _write_weights(folder: RunFolder, network: Network, results: Mapping[str, Any]) -> None:
    from safetensors.torch import save

    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    # One entry: safetensors writes several in an order left to chance, and the same run would leave another file.
    metadata = {"ddtl": json.dumps({"dataset": results["dataset"], "classes": results["classes"]})}
    write_bytes(folder.weights, save(state, metadata))


def _write_adapter(run: Run, folder: RunFolder) -> None:
    """Write what trained apart, where that is a small part of the backbone: with the initial weights it is all."""
    from safetensors.torch import save

    subsets = {
        (stage, state.parameters)
        for phase in run.schedule.phases
        for stage, state in phase.states.items()
        if not state.frozen
    }
    whole = [stage for stage, parameters in subsets if parameters == "all" and stage != HEAD]
    if whole or all(parameters == "all" for _, parameters in subsets):
        return
    names: set[str] = set()
    for stage, parameters in subsets:
        module, prefix = run.network.stages[stage], f"{HEAD}." if stage == HEAD else f"backbone.stages.{stage}."
        names |= {prefix + name for name in adapters.chosen(module, parameters)}
        if run.config.finetune.batchnorm == "train":
            names |= {prefix + name for name, _ in module.named_buffers()}
    state = {name: value.contiguous() for name, value in run.network.state_dict().items() if name in names}
    update = phases.lora(run.config.finetune)
    scaled = {} if update is None else {"rank": update[0], "alpha": update[1]}
    metadata = {"ddtl": json.dumps({"base": run.weights.digest, **scaled})}
    write_bytes(folder.adapter, save(state, metadata))
