"""Opens a sweep's store: new or as it was left, by its command; or under way, by the processes that join it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.study import StudyDirection

from ddtl.records import journal, plan as plan_record
from ddtl.schema.scores import MONITORS
from ddtl.sweeps.plan import plan_file
from ddtl.sweeps.sampling import pruner, sampler
from ddtl.sweeps.store import storages
from ddtl.sweeps.store.snapshot import SESSIONS
from ddtl.sweeps.store.store import Store
from ddtl.sweeps.store.task import OVERRIDES
from ddtl.utils.errors import UserError
from ddtl.utils.files import folder_in
from ddtl.utils.wording import now

if TYPE_CHECKING:
    from ddtl.sweeps.plan.settings import Plan

_IDENTITY = "identity"


def open_sweep(plan: Plan, workers: int | None = None) -> Store:
    """Return the sweep's store, new or as it was left: for the command, before it starts anything.

    Args:
        plan: the sweep as requested.
        workers: how many will share the store; None: as ``engine`` says, ``auto`` taken for one.

    Raises:
        UserError: another search has this name, the journal is damaged, or the storage does not do; the
            folder is left as it is.
    """
    url = storages.address(plan.settings.sweep.storage)
    engine = plan.settings.engine
    several = engine.kind != "local" or engine.workers not in ("auto", 1) if workers is None else workers > 1
    if several and not storages.several_are_fine(url):
        raise UserError(
            "sweep.storage: SQLite locks its whole file at every write, so several workers block each other until "
            "one fails. Leave sweep.storage out (a journal file), take postgresql://…, or set engine.workers=1."
        )
    plan = plan_file.without_password(plan)
    os.environ.update(_environment(url))  # for what this process starts, and for other studies in the same storage
    document = plan_record.read(plan.folder)
    plan_file.check_same(document and document["identity"], plan)
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        return _open(plan, url)
    except UserError:
        with suppress(OSError):  # it contains something, and is left as it is
            plan.folder.rmdir()
        raise
    except OSError as error:
        raise UserError(
            f"{plan.folder}: cannot write there ({error.strerror or error}). Make room, or set another paths.runs_dir."
        ) from error


def reopen(folder: Path) -> Store:
    """Return the store of a sweep that is under way: for its workers and trials, in other processes and on other hosts.

    Raises:
        UserError: the folder contains no sweep, or its storage cannot be opened.
    """
    plan = plan_file.read(folder)
    url = storages.address(plan.settings.sweep.storage)
    place = storages.place(url, folder, create=False)
    study = optuna.load_study(study_name=plan.name, storage=place.storage, **_parts(plan))
    return Store(plan, study, place, _environment(url))


def _open(plan: Plan, url: str | None) -> Store:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        journal.check(plan.folder / "journal.log")
    place = storages.place(url, plan.folder, create=True)
    with place.exclusively():
        study = optuna.create_study(
            study_name=plan.name,
            storage=place.storage,
            directions=_directions(plan),
            load_if_exists=True,
            **_parts(plan),
        )
        plan_file.check_same(study.user_attrs.get(_IDENTITY), plan)
        study.set_user_attr(_IDENTITY, plan.identity())
        study.set_user_attr(SESSIONS, [*study.user_attrs.get(SESSIONS, []), now()])
        plan_file.write(plan)
        folder_in(plan.folder, "trials")
        store = Store(plan, study, place, _environment(url))
        store.settle()
    return store


def _parts(plan: Plan) -> dict[str, Any]:
    """Who proposes, and who ends early."""
    settings = plan.settings
    own = plan.space.sampler()
    seeded = sampler.Seeded(settings.sampler.name, settings.sampler.args, settings.sweep.seed, OVERRIDES)
    return {"sampler": own or seeded, "pruner": pruner.make_pruner(settings.pruner.name, settings.pruner.args)}


def _directions(plan: Plan) -> list[StudyDirection]:
    up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    score = up if MONITORS[plan.base.trainer.monitor] == "max" else down
    return [{"score": score, "seconds": down}[objective] for objective in plan.settings.sweep.objective]


def _environment(url: str | None) -> dict[str, str]:
    return {} if url is None else {storages.VARIABLE: url}
