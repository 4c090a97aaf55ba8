"""In the process of a study's run, once it is trained: its evaluations, each of which may fail by itself."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from filelock import FileLock

from ddtl.data.datasets import registry
from ddtl.records import study_folder
from ddtl.records.study_folder import Evaluation
from ddtl.reports.run.write import write_page
from ddtl.sweeps.store.reasons import explain_failure
from ddtl.training import rescore
from ddtl.training.evaluate_external import embed_own, score_target
from ddtl.utils import console
from ddtl.utils.errors import TrainingFailure, UserError
from ddtl.utils.files import folder_in

if TYPE_CHECKING:
    from ddtl.records.run_folder import RunFolder
    from ddtl.schema.run import Config
    from ddtl.sweeps.store.store import Store


def all_targets(store: Store, number: int, folder: RunFolder, config: Config, stopped: Callable[[], bool]) -> bool:
    """Evaluate a run on all targets of its trial, and note each; whether it came to the end of them.

    Args:
        store: of the study's trials.
        number: of the trial.
        folder: of its finished run.
        config: of the run.
        stopped: called before each evaluation.

    Raises:
        OSError: the disk is full.
    """
    done: list[Evaluation] = []
    folder_in(folder.path, "evaluations")
    for name, words in store.plan.targets[number]:
        if stopped():
            return False
        with FileLock(folder.path / "evaluations" / ".lock"):  # another study may share the run
            if not words:
                embed_own(folder, rescore.with_weights(config, folder.path))
                continue
            done.append(_evaluate(folder, config, name, words))
        store.note(number, {study_folder.EVALUATIONS: done})
    return True


def _evaluate(folder: RunFolder, config: Config, name: str, words: tuple[str, ...]) -> Evaluation:
    """Return one evaluation, or why there is none."""
    trained = folder.finished()
    assert trained is not None, "it was trained just now"
    console.line(f"evaluating on {name}: {' '.join(words)}")
    try:
        wanted = rescore.with_own_runs(rescore.read_request(config, words).config, folder.path, config.dataset.name)
        wanted = rescore.with_weights(wanted, folder.path)
        registry.require_images(wanted)
        to = score_target(folder, wanted, trained, name)
        if not (to / "report.html").exists():
            write_page(to)
    except Exception as error:
        reason, problem = explain_failure(error)
        if reason == "disk_full":
            raise
        if not isinstance(error, UserError | TrainingFailure):
            traceback.print_exc()
        console.error(problem)
        return study_folder.evaluation(name, words=words, reason=problem)
    return study_folder.evaluation(name, str(to.absolute()), words)
