"""One run from its configuration to its record: ``train`` is the whole story, in order."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.markup import escape
from rich.table import Table

from ddtl.data.images.harmonize import Counts
from ddtl.data.loading.datamodule import CTDataModule
from ddtl.data.manifest import Manifest
from ddtl.data.splits import protocols
from ddtl.models import adapters, weights as initial_weights
from ddtl.models.losses import build_loss
from ddtl.models.network import Network
from ddtl.records import run_folder, small
from ddtl.records.run_folder import RunFolder
from ddtl.schema.run import Config
from ddtl.schema.units import GROUPS
from ddtl.training import checkpoints, hardware, lightning, loggers
from ddtl.training.callbacks import EarlyEnd
from ddtl.training.failures import reported_failures
from ddtl.training.identity import scoring
from ddtl.training.results import RunResult
from ddtl.training.run import Run, ScoredRun
from ddtl.training.scoring import check_monitor, check_threshold, score_run
from ddtl.training.test_uses import check_ledgers
from ddtl.training.trainer import build_trainer
from ddtl.utils import console, memory, ranks
from ddtl.utils.errors import TrainingFailure, UserError
from ddtl.utils.files import write_csv, write_json, write_text
from ddtl.utils.redaction import redact, redact_tree

log = logging.getLogger(__name__)


Publish = Callable[[ScoredRun], None]


class EndedEarly(Exception):
    """A callback ended the fit after an epoch. The run is not scored, and the same configuration resumes it."""

    def __init__(self, why: str, folder: Path) -> None:
        super().__init__(why)
        self.why = why
        self.folder = folder


def train(config: Config, callbacks: Sequence[EarlyEnd] = (), *, publish: Publish | None = None) -> RunResult:
    """Train, score and record one run; resume it where it was stopped; do nothing where it is finished.

    Args:
        config: what to train.
        callbacks: what may end the fit early.
        publish: is given the scored run while its loggers are open, or a finished one that has no page yet.

    Raises:
        UserError: data, weights or hardware are not as requested; no folder is left behind.
        TrainingFailure: training broke; the same command resumes it from the last epoch.
        EndedEarly: a callback ended the fit.
    """
    run = assemble(config)
    check_threshold(run)
    check_monitor(run)
    _announce(run)
    if config.evaluation.test and ranks.is_first():
        check_ledgers(run)
    with _folder(run) as folder:
        results = _results_that_fit(folder, config)
        if results is None:
            with _log(folder), _recorded_failure(folder), reported_failures(folder.path):
                if ranks.is_first():
                    _write_setting(run, folder)
                results = _fit_and_score(run, folder, callbacks, publish)
        else:
            console.line("this run is finished: nothing to train (run.overwrite=true starts it again)")
            if publish is not None and not folder.report.exists():
                publish(ScoredRun(run, folder, results))
    return RunResult(run.path, results)


def _folder(run: Run) -> AbstractContextManager[RunFolder]:
    """Return the run's folder, owned by the first process; the others of a distributed run work under its lock."""
    if ranks.is_first():
        return run_folder.open_run(run.path, run.identity, run.config.run.overwrite)
    return nullcontext(RunFolder(run.path))


def _log(folder: RunFolder) -> AbstractContextManager[None]:
    """Copy what the first process prints into the run's folder."""
    return console.copied_to(folder.log) if ranks.is_first() else nullcontext()


@contextmanager
def _recorded_failure(folder: RunFolder) -> Iterator[None]:
    """Write what breaks training into the run's folder, for lists of runs; the next start removes it."""
    try:
        yield
    except EndedEarly:
        raise
    except Exception as error:
        if ranks.is_first():
            reason = redact(" ".join(f"{error}".split()))[:500] or type(error).__name__
            if not isinstance(error, UserError | TrainingFailure):
                reason = f"{type(error).__name__}: {reason}"
            with suppress(OSError):
                write_json(folder.ended_early, {"why": small.FAILED, "reason": reason})
        raise


def assemble(config: Config, reference: Counts | None = None, classes: Sequence[str] | None = None) -> Run:
    """Read the hardware, load the data, fetch the weights and build the network; nothing is written but caches.

    Args:
        config: what to put together.
        reference: the histogram that ``dataset.harmonize`` brings images to; None for that of the training images.
        classes: of a network that is only to be tested, to which the dataset's are matched; None for the dataset's own.
    """
    memory.pass_over_imports()
    lightning.settle_rank(ranks.assign_process(config.trainer.devices, config.trainer.num_nodes))
    machine = hardware.resolve(config.trainer)
    build_loss(config.loss)  # refused here rather than when the folder is there
    d, t = config.dataset, config.trainer
    images = max(1, d.batch_size // (t.devices * t.num_nodes * t.accumulate))
    memory.require_shared_memory(d.num_workers * t.devices, images * 4 * d.channels * d.image_size**2)
    locate = partial(initial_weights.locate, config.model, config.paths.weights_mirror)
    # A file that is not there is refused before images are prepared; nothing is fetched where the dataset is not there.
    weights = None if config.model.weights == "imagenet" else locate()
    datamodule = CTDataModule(config)
    datamodule.reference, datamodule.classes = reference, classes
    with console.progress("preparing images") as bar:
        datamodule.load(bar)
    weights = weights or locate()
    torch.manual_seed(config.seed)
    network = Network.of(config, len(datamodule.manifest.classes))
    if weights.path is not None:
        initial_weights.require_encoder(network, weights.path.parent)
    initial_weights.load_into(network, weights, config.model.key)
    run = Run(config, machine, datamodule, weights, network)
    for phase in run.schedule.phases:
        subsets = {state.parameters for state in phase.states.values() if not state.frozen} - {"all"}
        trained = [module for name, module in network.backbone.stages.items() if not phase.states[name].frozen]
        for subset in subsets:
            adapters.require(trained, subset, phase.name)
    return run


def _announce(run: Run) -> None:
    """Print what is about to happen, before it takes time."""
    _dataset_table(run.datamodule.manifest)
    manifest = run.datamodule.manifest
    for warning in [*protocols.describe(manifest), *manifest.doubts()]:
        log.warning(warning)
    t, machine, batch = run.config.trainer, run.machine, run.config.dataset.batch_size
    if run.network.backbone.about is not None:
        console.line(_about(run.network.backbone.about, run.config.model.library == "file"))
    layout = "channels_last" if t.channels_last else "contiguous"
    console.line(f"{machine.reason}: {machine.accelerator}, {machine.precision}, {layout}")
    devices = t.devices * t.num_nodes
    console.line(
        f"batch {batch} = {batch // (devices * t.accumulate)} images × {devices} device(s) × "
        f"{t.accumulate} accumulated; "
        f"{run.datamodule.steps_per_epoch} steps an epoch"
    )


def _about(network: Mapping[str, Any], is_file: bool) -> str:
    """Return what a network's library states about it, or how an encoder's file is used, in a line."""
    mean, std = (", ".join(f"{value:g}" for value in network[key]) for key in ("mean", "std"))
    size = network["input_size"]
    trained_at = "is given images of" if is_file else "its weights were trained at"
    return (
        f"{network['library']}: {network['name']}; {trained_at} {size} × {size} pixels, mean ({mean}), std ({std}); "
        f"licence: {network['license'] or 'not stated'}"
    )


def _results_that_fit(folder: RunFolder, config: Config) -> dict[str, Any] | None:
    """Return the results of a finished run, if they contain what this command requests; else it is scored again, not
    trained.
    """
    results = folder.finished()
    if results is None or not folder.predictions.exists() or results.get("evaluation") != scoring(config.evaluation):
        return None
    return None if config.evaluation.test and "test" not in results else results


def _write_setting(run: Run, folder: RunFolder) -> None:
    """Write the run's settings, machine and split, as they were at its first start."""
    if not folder.config.exists():
        write_text(folder.config, yaml.safe_dump(redact_tree(run.config.model_dump(mode="json")), sort_keys=False))
    if not folder.environment.exists():
        write_json(folder.environment, hardware.environment())
    if not folder.histogram.exists():
        write_json(folder.histogram, {"train": run.datamodule.histogram().tolist()})
    if not folder.split.exists():
        manifest, files = run.datamodule.manifest, run.datamodule.cache.file_hashes
        rows = (
            (s.sample_id, s.split or "", s.group, manifest.classes[s.label], small.content(sha256))
            for s, sha256 in zip(manifest.samples, files, strict=True)
        )
        write_csv(folder.split, small.SPLIT_COLUMNS, rows)


def _fit_and_score(
    run: Run, folder: RunFolder, callbacks: Sequence[EarlyEnd], publish: Publish | None
) -> dict[str, Any]:
    module = run.module()
    if run.config.trainer.channels_last:
        module.to(memory_format=torch.channels_last)
    if ranks.is_first():
        folder.ended_early.unlink(missing_ok=True)
    checkpoint = folder.last if os.path.lexists(folder.last) else None
    if checkpoint is not None:
        checkpoints.read(checkpoint, run.network.state_dict())
        _warn_if_moved(folder)
        console.line(f"resuming {folder.path}")
    with loggers.opened(run.config, folder, run.public_settings()) as shown_to:
        trainer = build_trainer(run, folder, shown_to, callbacks)
        with _compile(run), checkpoints.restoring(checkpoint, trainer):
            trainer.fit(module, datamodule=run.datamodule, ckpt_path=checkpoint, weights_only=True)
        why = next((callback.ended for callback in callbacks if callback.ended is not None), None)
        if why is None:
            results = score_run(run, folder, trainer, module)
            if publish is not None:
                publish(ScoredRun(run, folder, results, shown_to, trainer.global_step))
    if why is not None:  # here, so that the loggers end as finished
        if ranks.is_first():
            write_json(folder.ended_early, {"why": why})
        raise EndedEarly(why, folder.path)
    return results


@contextmanager
def _compile(run: Run) -> Iterator[None]:
    """Train the network compiled in place, where that is requested: its parameters and their names stay as they are."""
    if not run.config.trainer.compile:
        yield
        return
    from torch._dynamo import config
    from torch._dynamo.exc import TorchDynamoException

    console.line("compiling the network: the first steps of a phase take minutes")
    run.network.compile()
    # Each phase is compiled again, for other parameters want a gradient; beyond its limit torch quietly stops
    # compiling.
    try:
        with config.patch(recompile_limit=config.recompile_limit + len(run.schedule.phases)):
            yield
    except TorchDynamoException as error:
        reason = " ".join(str(error).split())[:300]
        raise TrainingFailure(f"torch.compile failed ({reason}). trainer.compile=false goes without it.") from error


def _warn_if_moved(folder: RunFolder) -> None:
    """Warn where a resumed run cannot repeat an uninterrupted one to the bit: another torch or number of threads."""
    before, now = small.environment(folder.path), hardware.environment()
    changes = {
        "torch": (before.get("packages", {}).get("torch"), now["packages"].get("torch")),
        "the number of threads": (before.get("threads"), now["threads"]),
    }
    for what, (was, is_) in changes.items():
        if was is not None and was != is_:
            log.warning("%s was %s and is now %s: the run continues, but not to the same bit.", what, was, is_)


def _dataset_table(manifest: Manifest) -> None:
    """Images, groups and classes of each split."""
    table = Table(title=escape(f"{manifest.dataset} · protocol {manifest.protocol}"), title_justify="left")
    table.add_column("split")
    for heading in ("images", GROUPS[manifest.grouping], *map(escape, manifest.classes)):
        table.add_column(heading, justify="right")
    for split, counts in manifest.counts().items():
        table.add_row(split, *map(str, (counts["images"], counts["groups"], *counts["classes"].values())))
    if not console.out.quiet:
        console.err.print(table)
