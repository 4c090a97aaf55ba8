"""The sweep's memory: which trials there are, who works at which, and which is next."""

from __future__ import annotations

import threading
import time
import uuid
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ddtl.sweeps.store import storages
from ddtl.sweeps.store.outcome import Outcome, failed, verdict
from ddtl.sweeps.store.snapshot import Snapshot, snapshot
from ddtl.sweeps.store.task import ATTEMPTS, OVERRIDES, OWNER, PROCESS, REASON, WORDS, Task, is_alive
from ddtl.utils import console, processes
from ddtl.utils.wording import now

if TYPE_CHECKING:
    from ddtl.sweeps.plan.settings import Plan


class Store:
    """One study and its folder; made by :mod:`ddtl.sweeps.store.open`.

    Attributes:
        plan: the sweep as requested, without a password.
        folder: where the sweep's records lie.
        study: Optuna's.
        environment: variables that another process needs to open the same store.
    """

    def __init__(
        self, plan: Plan, study: optuna.Study, place: storages.StoragePlace, environment: dict[str, str]
    ) -> None:
        self.plan, self.study, self.environment = plan, study, environment
        self.folder = plan.folder
        self._place = place
        self._working: set[int] = set()
        self._beating = threading.Lock()  # no heartbeat of a trial is under way as it leaves _working
        self._closed = threading.Event()
        self._heart: threading.Thread | None = None

    @property
    def storage(self) -> optuna.storages.BaseStorage:
        """Optuna's storage; its writes are seen by all processes at once."""
        return self.study._storage

    def next(self, worker: str = "") -> Task | None:
        """Return a trial to work at: one whose worker is gone first, else a new one; None where there is none to begin.

        None with ``snapshot().left > 0`` means that others work at the rest; one of them may yet come back.

        Args:
            worker: who will work at it, for the record's timeline; this process's host and number where it is empty.
        """
        with self.exclusively():
            self.settle()
            trials = self.trials()
            waits = any(trial.state == TrialState.WAITING for trial in trials)
            if not waits and len(trials) >= self.plan.settings.n_trials:
                return None
            task = self._start_trial(worker)
        self._keep_alive(task.trial_id)
        return task

    def started(self, task: Task, pid: int) -> None:
        """Write down the process on this machine that runs the trial: before it has ended nobody else continues."""
        self.storage.set_trial_user_attr(task.trial_id, PROCESS, processes.process(pid))

    def note(self, number: int, values: Mapping[str, Any]) -> None:
        """Note values of a running trial for its record.

        Args:
            number: the trial's.
            values: ``run`` (its folder), ``phases`` (first epoch of each), ``epochs`` (how many it is planned for),
                ``fit_seconds``; plain JSON.
        """
        for key, value in values.items():
            self.storage.set_trial_user_attr(self._id(number), key, value)

    def report(self, number: int, epoch: int, score: float) -> bool:
        """Return an epoch's score; whether the pruner wants the trial to end. Called in the trial's process, rank 0.

        With two objectives nothing is pruned, but the curve is kept. An epoch may be reported again.
        """
        trial_id = self._id(number)
        self.storage.set_trial_intermediate_value(trial_id, epoch, score)
        if len(self.study.directions) > 1:
            return False
        return bool(self.study.pruner.prune(self.study, self.storage.get_trial(trial_id)))

    def end(self, task: Task, outcome: Outcome) -> None:
        """Record how this attempt ended. Ignored, with a warning, where another worker has taken the trial over in the
        meantime.
        """
        with self._beating:
            self._working.discard(task.trial_id)
        with self.exclusively():
            trial = self.storage.get_trial(task.trial_id)
            if trial.state != TrialState.RUNNING or trial.user_attrs[OWNER]["claim"] != task.claim:
                console.line(f"trial {task.number}: another worker has resumed it, so how it ended here is ignored")
                return
            self._finish(trial, outcome)
            self._place.forget(task.trial_id)  # before another worker takes it over, with heartbeats of its own

    def exclusively(self) -> AbstractContextManager[None]:
        """Return a context in which no other process of the sweep is in the same one, on any host."""
        return self._place.exclusively()

    def settle(self) -> None:
        """Let go of the trials whose workers are gone. Under the lock, as :meth:`next` is."""
        stale: set[int] | None = None
        for trial in self.trials():
            if trial.state != TrialState.RUNNING:
                continue
            alive = is_alive(trial)
            if alive is None:
                stale = self._place.stale(self.study) if stale is None else stale
                alive = trial._trial_id not in stale
            if not alive:
                at = f" (worker {trial.user_attrs[OWNER]['worker']})" if OWNER in trial.user_attrs else ""
                self._finish(trial, failed("killed", f"its process is gone{at}"), self._last_sign(trial))
                self._place.forget(trial._trial_id)

    def snapshot(self) -> Snapshot:
        """Return the current state of the sweep."""
        return snapshot(self.study, self.plan.settings.n_trials)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials there are, by number."""
        return self.study.get_trials(deepcopy=False)

    def close(self) -> None:
        """Stop the heartbeats and let go of the storage."""
        self._closed.set()
        if self._heart is not None:
            self._heart.join()
        self._place.close()

    def _start_trial(self, worker: str) -> Task:
        """Return a trial of this process's own: the first that waits, or a new one."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)  # ours does without optimize()
            trial = self.study.ask()
        trial_id, attempts = trial._trial_id, trial.user_attrs.get(ATTEMPTS, [])
        self._place.heartbeat(trial_id)
        mine = processes.me()
        claim = {"claim": uuid.uuid4().hex, "worker": worker or f"{mine['host']}:{mine['pid']}", "since": now()}
        trial.set_user_attr(OWNER, {**mine, **claim})
        if OVERRIDES not in trial.user_attrs:  # new, or killed before it had all its parameters
            trial.set_user_attr(OVERRIDES, [*self.plan.space.suggest(trial), *self.plan.fixed])
        overrides = tuple(trial.user_attrs[OVERRIDES])
        log = self.folder / "trials" / f"{trial.number}.log"
        return Task(trial.number, trial_id, overrides, len(attempts) + 1, claim["claim"], log)

    def _last_sign(self, trial: FrozenTrial) -> str:
        """Return when a trial whose process is gone was last seen at work: by its heartbeats and its log.

        It may be found a day later; the time in between does not count as the trial's.
        """
        started = trial.user_attrs[OWNER]["since"] if OWNER in trial.user_attrs else now()
        silences = [self._place.silence(trial._trial_id)]
        with suppress(OSError):
            silences.append(time.time() - (self.folder / "trials" / f"{trial.number}.log").stat().st_mtime)
        known = [max(0.0, silence) for silence in silences if silence is not None]
        last = datetime.now(UTC) - timedelta(seconds=min(known)) if known else datetime.fromisoformat(started)
        return max(last, datetime.fromisoformat(started)).isoformat(timespec="milliseconds")

    def _finish(self, trial: FrozenTrial, outcome: Outcome, ended: str | None = None) -> None:
        """Write the attempt down, then let the trial end, fail or wait.

        A process killed between the two leaves an attempt whose end is known, and that end counts.

        Args:
            ended: when the attempt ended; None for now.
        """
        attempts = list(trial.user_attrs.get(ATTEMPTS, []))
        owner = trial.user_attrs.get(OWNER, {"claim": "", "worker": "", "host": "", "since": now()})
        if attempts and attempts[-1]["claim"] == owner["claim"]:
            last = attempts.pop()
            outcome = Outcome(last[REASON], tuple(last["values"]), last[WORDS])
        else:
            this = {
                "claim": owner["claim"],
                "worker": owner["worker"],
                "started": owner["since"],
                "ended": ended or now(),
            }
            this |= {"found": now()} if ended else {}
            this |= {REASON: outcome.end, WORDS: outcome.words, "values": list(outcome.values)}
            self.storage.set_trial_user_attr(trial._trial_id, ATTEMPTS, [*attempts, this])
        what, words = verdict(outcome, attempts, self.plan.settings.sweep.retries)
        if what == "complete":
            self.study.tell(trial.number, list(outcome.values))
        elif what == "pruned":
            self.study.tell(trial.number, state=TrialState.PRUNED)
        elif what == "wait":
            self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        else:
            self.storage.set_trial_user_attr(trial._trial_id, REASON, outcome.end)
            self.storage.set_trial_user_attr(trial._trial_id, WORDS, words)
            self.study.tell(trial.number, state=TrialState.FAIL)

    def _id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)

    def _keep_alive(self, trial_id: int) -> None:
        self._working.add(trial_id)
        if self._heart is None:
            self._heart = threading.Thread(target=self._send_heartbeats, name="heartbeats", daemon=True)
            self._heart.start()

    def _send_heartbeats(self) -> None:
        while not self._closed.wait(storages.HEARTBEAT_SECONDS):
            for trial_id in tuple(self._working):
                # A database may be unreachable for a moment, or a disk full: the next heartbeat counts.
                with suppress(Exception), self._beating:
                    if trial_id in self._working:
                        self._place.heartbeat(trial_id)
