"""A finished run again: read, on this machine, with other settings, and its stored predictions scored again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddtl.config import overrides as override_grammar
from ddtl.config.compose import composed, resolved
from ddtl.config.convert import text_keys
from ddtl.config.load import check
from ddtl.config.overrides import format_item
from ddtl.config.where import groups, options
from ddtl.records import run as results_of, settings, small
from ddtl.schema.run import Config, DatasetConfig
from ddtl.training.identity import require_plugins
from ddtl.utils.errors import UserError
from ddtl.utils.files import require_run_folder

if TYPE_CHECKING:
    from ddtl.records.run_folder import RunFolder
    from ddtl.training.results import RunResult


_SECTIONS = ("dataset", "evaluation", "paths")


_KEYS = ("trainer.accelerator", "trainer.precision")
_SHOWN = "verbose"


# What commands that resume a run take from its results.json.
_NEEDED = (
    "positive", "digest", "seed", "weights", "monitor", "precision", "versions", "best_epoch", "threshold_rule",
    "calibration.notes", "interval",
)  # fmt: skip


@dataclass(frozen=True)
class RescoreRequest:
    """The configuration to evaluate with, and whether it names another dataset than the run's own test set."""

    config: Config
    external: bool


def load_run(folder: RunFolder) -> tuple[Config, dict[str, Any]]:
    """Return the configuration and the results of a finished run.

    Raises:
        UserError: there is no such folder, no run in it, or none that is finished; or it cannot be read.
    """
    require_run_folder(folder.path)
    if not folder.config.exists():
        raise UserError(f"{folder.path} is not the folder of a run: it contains no config.yaml.")
    results = folder.finished()
    if results is None:
        raise UserError(f"{folder.path}: the run is not finished. The command that started it resumes it.")
    results_of.require(folder.results, results, *_NEEDED)
    require_plugins(small.identity(folder.path) or {}, folder.path)
    config = settings.config(folder.path)
    _check_head(folder, config)
    return config, results


def _check_head(folder: RunFolder, config: Config) -> None:
    """Refuse a head that the run's weights cannot have: building it would take all memory.

    Raises:
        UserError: it is larger than the file of the weights.
    """
    claimed = sum(a * b for a, b in itertools.pairwise(config.model.head.hidden))
    if folder.weights.exists() and claimed > folder.weights.stat().st_size:
        raise UserError(
            f"{folder.config}: model.head.hidden claims more weights than {folder.weights.name} holds. The record was "
            "changed; put back a copy."
        )


def on_this_machine(saved: Config, paths: Sequence[str], accelerator: str, precision: str | int) -> Config:
    """Return a run's configuration for one device of this machine.

    Args:
        saved: of the run.
        paths: words that say where images and caches are here.
        accelerator: auto, cpu or gpu.
        precision: as ``trainer.precision`` takes it.
    """
    from ddtl.config.load import load

    alone = {"devices": 1, "num_nodes": 1, "strategy": "auto", "accelerator": accelerator, "precision": precision}
    trainer = saved.trainer.model_copy(update=alone)
    return saved.model_copy(update={"trainer": trainer, "paths": load(list(paths), writes=False).paths})


def read_request(saved: Config, words: Sequence[str]) -> RescoreRequest:
    """Return the run's configuration with what the command changes; how images are prepared stays the run's."""
    typed = override_grammar.read(words, groups("train"), set(text_keys(Config)))
    named = {*typed.choices, *(setting.key for setting in typed.settings)}
    for key in sorted(named):
        if key.split(".")[0] not in _SECTIONS and key not in (*_KEYS, _SHOWN):
            fields = {section: type(getattr(saved, section)).model_fields for section in _SECTIONS}
            meant = next((f"{section}.{key}" for section in _SECTIONS if key in fields[section]), "")
            raise UserError(
                f"{key}: a trained run is evaluated as it is. `ddtl evaluate` takes dataset, dataset.…, evaluation.…, "
                f"paths.…, {', '.join(_KEYS)} and {_SHOWN}.{f' Did you mean {meant}?' if meant else ''}"
            )
    external = any(key.split(".")[0] == "dataset" for key in named)
    own = _own_dataset(saved.dataset) if external and "dataset" not in typed.choices else []
    fresh, _ = check([*own, *words, *_unless(named, saved)], writes=False)
    adapts = fresh.evaluation.batchnorm == "adapt" and "evaluation.batchnorm" in named
    changed = {key.removeprefix("evaluation.") for key in named if key.startswith("evaluation.")}
    changes_ = {key: getattr(fresh.evaluation, key) for key in changed}
    evaluation = saved.evaluation.model_copy(update={"refit": False, **changes_})
    # Prepared as the run's images were; and no batch is filled with training images.
    kept = {"image_size": saved.dataset.image_size, "batch_size": 1}
    requested = fresh.dataset if external else saved.dataset
    harmonize = _harmonize(saved, requested) if "dataset.harmonize" in named else saved.dataset.harmonize
    external = external or adapts  # to adapt, the images are needed
    dataset = requested.model_copy(update=kept | {"harmonize": harmonize}) if external else saved.dataset
    trainer = saved.trainer.model_copy(
        update={key.removeprefix("trainer."): getattr(fresh.trainer, key.removeprefix("trainer.")) for key in _KEYS
                if key in named} | {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    )  # fmt: skip
    changes = {"dataset": dataset, "evaluation": evaluation, "trainer": trainer, "paths": fresh.paths}
    return RescoreRequest(saved.model_copy(update=changes), external)


def _harmonize(saved: Config, read_request: DatasetConfig) -> str:
    """Return how grey levels are harmonised; a network sees images that were prepared as those that it trained on."""
    before, now = saved.dataset.harmonize, read_request.harmonize
    # A dataset's own map to itself is the identity, so such a run trained on images as they are.
    as_they_are = saved.dataset.kind != "pooled" and {before, now} <= {"none", "match"}
    if before != now and not as_they_are:
        raise UserError(
            f"dataset.harmonize={now}: the run was trained with dataset.harmonize={before}. Leave it out, or train "
            f"a run with dataset.harmonize={now}."
        )
    return now


def _own_dataset(saved: DatasetConfig) -> list[str]:
    """Return the words that make the run's dataset: settings that the command does not name stay the run's.

    Raises:
        UserError: there is no option of the kind of the run's dataset.
    """
    known = options("dataset")
    option = next((name for name in (saved.name, saved.kind) if name in known), None)
    if option is None:
        raise UserError(f"dataset.…: there is no option of the kind {saved.kind} any more: name the dataset, dataset=…")
    base = resolved(composed("train", {"dataset": option}), [])[0]["dataset"]
    settings = saved.model_dump(mode="json", exclude={"source_settings"})
    return [f"dataset={option}", *_words_of_difference(settings, base, "dataset")]


def _words_of_difference(settings: Mapping[str, Any], base: Mapping[str, Any], at: str) -> Iterator[str]:
    """Yield a word for each setting that differs from ``base`` and can be set there."""
    for name, value in settings.items():
        if name in base and value != base[name]:
            key = f"{at}.{name}"
            if isinstance(value, Mapping) and isinstance(base[name], Mapping) and base[name]:
                yield from _words_of_difference(value, base[name], key)
            else:
                yield f"{key}={format_item(name, value)}"


def _unless(named: set[str], saved: Config) -> list[str]:
    """Where the run's own settings must be next to the new ones, for the checks to see both."""
    target = saved.evaluation.target
    return [] if target is None or "evaluation.target" in named else [f"evaluation.target={target}"]


def rescore_run(folder: RunFolder, config: Config, before: dict[str, Any]) -> RunResult:
    """Return the stored predictions, scored with other settings; ``results.json`` is written again."""
    from ddtl.evaluation.record import choose_on_validation
    from ddtl.records import predictions as prediction_table
    from ddtl.training.results import RunResult, score_predictions, warn_of_inversion
    from ddtl.training.test_uses import count_again
    from ddtl.utils.files import write_json

    if config.evaluation.refit:
        raise UserError("evaluation.refit=true: refits on the validation images of another dataset; name it: dataset=…")
    if config.evaluation.test and "test" not in before:
        raise UserError(
            f"{folder.path} was not scored on its test set. The command that made it does so with evaluation.test=true."
        )
    try:
        table = prediction_table.read(folder.predictions)
    except FileNotFoundError as error:
        raise UserError(
            f"{folder.predictions} is not there. The command that made the run predicts again, without training."
        ) from error
    results_of.match(folder.predictions, table, before, [split for split in ("val", "test") if split in before])
    choose_on_validation(table.of("val"), config.evaluation)  # what it refuses is refused before the use is counted
    use = count_again(folder, Path(config.paths.runs_dir), config.evaluation, before) if "test" in before else None
    present = [split for split in ("val", "test") if split in before]
    results = before | score_predictions(table, table.of("val"), present, config.evaluation, before["grouping"])
    if before.get("baselines", {}).get("file_facts", {}).get("intervals"):  # made without the images: they stay
        metadata = {"level": before.get("interval", {}).get("level"), **before["baselines"]["file_facts"]}
        results["baselines"] = {**before["baselines"], "file_facts": metadata}
    if use is not None:
        results |= use.record()
        results["warnings"] = list(dict.fromkeys([*before["warnings"], *use.warnings]))
        results.pop("look", None)  # its name in records of earlier versions
    warn_of_inversion(results, present)
    write_json(folder.results, results)
    return RunResult(folder.path, results)


def with_own_runs(config: Config, folder: Path, dataset: str) -> Config:
    """Return the configuration with the folder of all runs that a run is in: its ledger counts the uses of test sets.

    Args:
        config: to evaluate with.
        folder: of the run. One that was moved out of <runs>/<dataset>/ has its uses counted in that folder.
        dataset: that the run was trained on.
    """
    path = folder.resolve()
    runs_dir = path.parents[1] if path.parent.name == dataset else path.parent
    return config.model_copy(update={"paths": config.paths.model_copy(update={"runs_dir": str(runs_dir)})})


def with_weights(config: Config, folder: Path) -> Config:
    """Return the configuration with a run's network for its initial weights."""
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": str(folder)})})
