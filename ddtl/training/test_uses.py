"""How a run's scores on a test set are counted in its ledger; without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddtl.config.sources import base
from ddtl.evaluation import test_use
from ddtl.records import run as results_of, test_ledger
from ddtl.records.run_folder import RunFolder
from ddtl.schema.run import EvaluationConfig
from ddtl.training.identity import scoring as scoring_settings
from ddtl.utils.reading import Unreadable

if TYPE_CHECKING:
    from ddtl.training.run import Run


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
        images=run.datamodule.content("test"),
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
