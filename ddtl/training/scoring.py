"""A trained run to its record: predictions, weights and results, the results last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from ddtl.audit import file_metadata, record as audits
from ddtl.config.sources import base
from ddtl.data.images.decode import BadImageError
from ddtl.data.loading.datamodule import CTDataModule
from ddtl.data.manifest import Manifest
from ddtl.data.splits import protocols
from ddtl.evaluation import record, test_use
from ddtl.evaluation.predictions import Predictions
from ddtl.finetuning.callback import apply_epoch
from ddtl.models.metrics import of_predictions
from ddtl.models.module import Classifier
from ddtl.models.network import Network
from ddtl.records import predictions as prediction_table, run as results_of, test_ledger
from ddtl.records.epochs import AVERAGED
from ddtl.records.run_folder import MACHINE, RunFolder
from ddtl.schema.run import EvaluationConfig
from ddtl.training import batchnorm, checkpoints, hardware, verification
from ddtl.training.identity import scoring as scoring_settings
from ddtl.training.joining import join
from ddtl.training.run import Run
from ddtl.training.weight_averaging import scored_weights
from ddtl.utils.errors import EXIT_FAILURE, InconsistentRecord
from ddtl.utils.files import append_line, write_bytes, write_json
from ddtl.utils.ranks import gather
from ddtl.utils.reading import Unreadable


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

    val = predict(trainer, module, run.datamodule, ["val"])
    warned = _verify(run, folder, trainer, val, checkpoint)  # before the test set is examined

    results = {**setting(run), "best_epoch": epoch, **({} if averaged is None else {AVERAGED: averaged})}
    results["warnings"] = [*results["warnings"], *warned]
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
        table = val.and_then(predict(trainer, module, run.datamodule, ["test"]))
    if not trainer.is_global_zero:
        return results
    manifest = run.datamodule.manifest
    table = table.where(np.argsort(table.sample_id, kind="stable"))  # the manifest's order
    results |= score_predictions(table, table.of("val"), wanted, evaluation, manifest.grouping)
    warn_of_inversion(results, wanted)
    if evaluation.test:
        results["baselines"] = baselines(table.of("test"), manifest, evaluation)
    prediction_table.write(table, folder.predictions)
    _write_weights(folder, run.network, results)
    write_json(folder.results, results)
    return results


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


def transductive(run: Run, config: EvaluationConfig) -> str:
    """Return what a reader must know of scores with adapted BatchNorm."""
    n = len(run.datamodule.manifest.rows("test"))
    prior = config.batchnorm_prior
    mixed = f", mixed with those of the training as if of {prior} images" if prior else ""
    return (
        f"The network was adapted to the test set: BatchNorm's statistics are those of its {n} images, labels unused"
        f"{mixed} (evaluation.batchnorm=adapt). A prediction depends on the other test images."
    )


def score_predictions(
    table: Predictions, val: Predictions, splits_: Sequence[str], config: EvaluationConfig, grouping: str
) -> dict[str, Any]:
    """Return the part of ``results.json`` about predictions: the operating point, then each split.

    Args:
        table: the predictions that are scored.
        val: what decides about threshold and calibration: validation images of the dataset that the run trained on.
        splits_: which splits of the table are scored.
        grouping: of the manifest: what an interval may take for independent.
    """
    choices = record.choose_on_validation(val, config)
    results = record.setting(choices, config, grouping)
    results["evaluation"] = scoring_settings(config)
    return results | {split: record.of_split(table.of(split), choices, config) for split in splits_}


def warn_of_inversion(results: dict[str, Any], splits_: Sequence[str]) -> None:
    """Put it among the warnings where a score is worse than chance."""
    found = record.worse_than_chance(results, splits_)
    results["warnings"] = [*(text for text in results["warnings"] if record.WORSE not in text), *found]


def baselines(test: Predictions, manifest: Manifest, config: EvaluationConfig) -> dict[str, Any]:
    """Return what needs no network: the majority class, and a classifier on file metadata."""
    try:
        metadata = record.baseline(file_metadata.probabilities(manifest), test, config)
    except BadImageError as error:  # the images themselves are in the cache, and their files may be gone by now
        metadata = {"why_not": str(error)}
    return {
        "majority": record.majority(manifest.counts()["train"]["classes"], test),
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
        "warnings": [*protocols.describe(manifest), *manifest.sentences()],
        "warning_names": manifest.named(),
        **({} if run.config.dataset.harmonize == "none" else {"harmonize": run.config.dataset.harmonize}),
        "excluded": None if manifest.left_out is None else asdict(manifest.left_out),
        "leaked_share": protocols.leaked_share(manifest),
        "splits": manifest.counts(),
        "split_seed": run.config.dataset.split_seed,
        "seed": run.config.seed,
        "digest": run.datamodule.digest,
        "audit": audits.newest(run.runs_dir, manifest.dataset, run.datamodule.digest),
        "weights": {"source": run.weights.source, "digest": run.weights.digest},
        "monitor": run.config.trainer.monitor,
        "precision": run.machine.precision,
        "versions": hardware.versions(),
    }


def count_use(run: Run, folder: RunFolder, epoch: int, to: Path) -> test_ledger.TestUse:
    """Count the use of the test set of the run's dataset.

    Args:
        run: what is scored, on its own test set or on another one.
        folder: of the trained run.
        epoch: whose weights are scored.
        to: the folder of the record that the scores will replace, where there is one.
    """
    manifest, config = run.datamodule.manifest, run.config
    scoring = test_ledger.Scoring(
        run=folder.path.resolve().name,
        checkpoint=f"epoch {epoch}",
        digest=run.datamodule.digest,
        images=run.datamodule.test_images(),
        identity=test_ledger.identity_of(folder.path),
        decided=test_ledger.deciding_settings(
            scoring_settings(config.evaluation),
            harmonize=config.dataset.harmonize,
            refit=config.evaluation.refit and to != folder.path,
        ),
    )
    earlier = RunFolder(to).finished()
    if earlier is not None and "test" not in earlier:
        earlier = None
    sources = config.dataset.sources or ()
    return _count(
        folder, run.runs_dir, manifest.dataset, sources, str(manifest.protocol), manifest.fold, scoring, earlier
    )


def count_again(
    folder: RunFolder, runs_dir: Path, config: EvaluationConfig, before: Mapping[str, Any]
) -> test_ledger.TestUse:
    """Count the use of a run's own test set where its stored predictions are scored with other settings.

    Args:
        folder: of the run.
        runs_dir: the folder of all runs.
        config: the settings.
        before: the record that the scores will replace.
    """
    fold = (before["fold"], before["n_folds"]) if "fold" in before else None
    scoring = test_ledger.Scoring(
        run=folder.path.resolve().name,
        checkpoint=f"epoch {before['best_epoch']}",
        digest=before["digest"],
        identity=test_ledger.identity_of(folder.path),
        decided=test_ledger.deciding_settings(scoring_settings(config), harmonize=before.get("harmonize", "none")),
    )
    sources, protocol = before.get("sources", ()), str(before["protocol"])
    return _count(folder, runs_dir, before["dataset"], sources, protocol, fold, scoring, before)


def earlier_uses(run: Run, folder: RunFolder) -> dict[str, int]:
    """For the record of a run that is scored on validation alone: how often its test set was scored before, if ever."""
    manifest = run.datamodule.manifest
    name = _ledger_name(str(manifest.protocol), manifest.fold)
    path = folder.path.resolve()
    n = test_ledger.uses_by_run(run.runs_dir, manifest.dataset, name, path.name, test_ledger.identity_of(path))
    return {test_use.BEFORE: n} if n else {}


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


def check_ledgers(run: Run) -> None:
    """Refuse a run whose use of the test set could not be written down.

    Raises:
        UserError: with the ledger's path.
    """
    manifest = run.datamodule.manifest
    for dataset in _test_sets(manifest.dataset, run.config.dataset.sources or ()):
        test_ledger.check_writable(run.runs_dir, dataset, _ledger_name(str(manifest.protocol), manifest.fold))


def _count(
    folder: RunFolder, runs_dir: Path, dataset: str, sources: Sequence[str], protocol: str,
    fold: tuple[int, int] | None, scoring: test_ledger.Scoring, earlier: Mapping[str, Any] | None,
) -> test_ledger.TestUse:  # fmt: skip
    """Count a use in the ledger of each test set that is scored; the one that was used most."""
    uses = [
        test_ledger.record_use(
            runs_dir,
            name,
            _ledger_name(protocol, fold),
            scoring,
            earlier,
            _earlier_records(folder, name, protocol, fold),
        )
        for name in _test_sets(dataset, sources)
    ]
    return max(uses, key=lambda use: use.number)


def _test_sets(dataset: str, sources: Sequence[str]) -> list[str]:
    """Whose test sets are scored: a pool's is that of its sources as well."""
    return list(dict.fromkeys([dataset, *map(base, sources)]))


def _ledger_name(protocol: str, fold: tuple[int, int] | None) -> str:
    """Return what the ledger of a test set is filed under: each fold is a test set of its own."""
    return protocol if fold is None else "{}-{}-of-{}".format(protocol, *fold)


def _earlier_records(
    folder: RunFolder, dataset: str, protocol: str, fold: tuple[int, int] | None
) -> list[dict[str, Any]]:
    """Return the records of scores on a test set below a run's folder."""
    records = []
    for path in (folder.results, *sorted(folder.path.glob("evaluations/*/results.json"))):
        try:
            record_ = results_of.read(path.parent)
        except (OSError, Unreadable):
            continue
        found = (record_["dataset"], record_["protocol"], record_.get("fold"), record_.get("n_folds"))
        if found == (dataset, protocol, *(fold or (None, None))) and test_use.number(record_) is not None:
            records.append(record_)
    return records


def _write_weights(folder: RunFolder, network: Network, results: Mapping[str, Any]) -> None:
    from safetensors.torch import save

    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    # One entry: safetensors writes several in an order left to chance, and the same run would leave another file.
    metadata = {"ddtl": json.dumps({"dataset": results["dataset"], "classes": results["classes"]})}
    write_bytes(folder.weights, save(state, metadata))
