"""Runs a study: what is not done yet, as a sweep of listed jobs, on any engine.

What is done is in the study's record and in the folders of runs and evaluations, never in the sweep's memory: each
call makes a sweep of its own from what is left, below ``calls/`` in the study's folder. So a study that was killed
anywhere resumes from the runs' own checkpoints, and one that grows computes only what is new.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ddtl.config import load
from ddtl.config.overrides import format_value
from ddtl.records import run_folder, study_folder, test_ledger
from ddtl.records.checking import inside
from ddtl.records.identity import differences, short_hash
from ddtl.records.study import Planned
from ddtl.records.study_folder import EVALUATIONS, Evaluation, Study
from ddtl.schema.sweep import ClassConfig
from ddtl.studies.definitions import StudyJob
from ddtl.studies.finished_work import FinishedWork
from ddtl.studies.settings import StudyPlan, reductions
from ddtl.sweeps.plan.settings import Plan
from ddtl.sweeps.space.space import list_jobs
from ddtl.sweeps.store.task import REASON, WORDS
from ddtl.training.identity import counting, scoring
from ddtl.utils import console
from ddtl.utils.errors import UserError
from ddtl.utils.wording import now

if TYPE_CHECKING:
    from ddtl.sweeps.store.snapshot import Snapshot
    from ddtl.sweeps.store.store import Store

Show = Callable[["Snapshot"], None]
Run = Callable[["Store", Show], None]


def execute(plan: StudyPlan, run: Run, show: Show) -> Study:
    """Train and evaluate what is not done yet; the study's record, which is written as it goes.

    Args:
        plan: the study.
        run: runs the trials that are left in a store, as :func:`ddtl.sweeps.engines.run` does.
        show: called about once a second with the state of the runs.

    Raises:
        UserError: another study has this name, or another process works at it.
        TrainingFailure: continuing is pointless.
        Stopped: by a signal; the same command resumes it.
    """
    with _locked(plan), run_folder.announced(plan.folder):
        earlier = _earlier(plan)
        study = _start_record(plan, earlier)
        study["planned"] = _planned_uses(plan, study, earlier)
        study_folder.write(plan.folder, study)  # before anything is scored: the plan is not a plan otherwise
        for rows in _remaining_jobs(plan, study):
            if rows:
                _run(plan, study, rows, run, show)
        study["ended"] = now()
        study_folder.write(plan.folder, study)
    return study


def check_same(plan: StudyPlan, earlier: Study) -> None:
    """Refuse to resume another study under a name; asking for more is not another study.

    Raises:
        UserError: with a line for each thing that differs.
    """
    now_ = json.loads(json.dumps(plan.identity))
    changed = differences(earlier["identity"], now_) + reductions(plan, earlier)
    if changed:
        lines = "\n".join(f"  {line}" for line in changed)
        raise UserError(
            f"study {plan.name} in {plan.folder} is another study. What differs:\n{lines}\n"
            "Set another study.name=… for this one, or undo what differs."
        )


@contextmanager
def _locked(plan: StudyPlan) -> Iterator[None]:
    """Keep the study's lock: no other command works at it meanwhile."""
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(plan.folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{plan.folder} is in use by another process. Wait for it, or set another study.name."
        ) from None
    except OSError as error:
        raise UserError(
            f"{plan.folder}: cannot write there ({error.strerror or error}). Make room, or set another paths.runs_dir."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _earlier(plan: StudyPlan) -> Study | None:
    if not (plan.folder / study_folder.NAME).exists():
        return None
    earlier = study_folder.read(plan.folder)
    check_same(plan, earlier)
    return earlier


def _start_record(plan: StudyPlan, earlier: Study | None) -> Study:
    """Return the record with what an earlier call did, as far as it still holds."""
    known = FinishedWork(earlier, study_folder.runs_dir(plan.folder))
    jobs: list[study_folder.JobRecord] = []
    for job, config, labels in zip(plan.jobs, plan.configs, plan.labels, strict=True):
        words = job.overrides if job.after is None else _with_weights(plan, job, jobs[job.after])
        found = known.run(labels, words, config)
        evaluations = [study_folder.evaluation(t.name, None if t.words else found, t.words) for t in job.targets]
        for evaluation in evaluations if found is not None else ():
            evaluation["folder"] = evaluation["folder"] or known.evaluation(labels, config, evaluation)
        jobs.append(study_folder.job(labels, evaluations, words, found))
    return {
        "study": plan.study.kind,
        "name": plan.name,
        "settings": plan.study.model_dump(mode="json"),
        "identity": plan.identity,
        "jobs": jobs,
        "started": earlier["started"] if earlier else now(),
        "ended": None,
    }


def _planned_uses(plan: StudyPlan, study: Study, earlier: Study | None) -> Planned:
    """Return what counts as the study's one planned use of each test set: all that it was to score before its first
    score.

    What was added since, such as further seeds, may have been added for what the scores were, and counts by itself.
    """
    uses = study_folder.uses(study["jobs"])
    if earlier is not None:
        before = earlier.get("planned")
        if before is None:  # of an earlier version, which wrote down its runs as well before it began
            uses = study_folder.uses(earlier["jobs"])
        elif test_ledger.is_used(study_folder.runs_dir(plan.folder), before["plan"]):
            added = len(set(uses) - set(before["uses"]))
            if added:
                console.line(
                    f"{added} scores were added to this study after its first: each counts as a test-set use of its own"
                )
            return before
    # With the settings that all runs share: the same study with others, after the first was deleted, is another plan.
    settings = sorted(
        {short_hash({**counting(c), **test_ledger.deciding_settings(scoring(c.evaluation))}) for c in plan.configs}
    )
    name = f"study {plan.name} {short_hash({'uses': sorted(uses), 'settings': settings})}"
    return {"plan": name, "when": now(), "uses": uses}


def _with_weights(plan: StudyPlan, job: StudyJob, first: study_folder.JobRecord) -> tuple[str, ...]:
    """Return a run's words with the weights of the run that it resumes; without, as long as there are none."""
    if first["run"] is None:
        return job.overrides
    weights = inside(study_folder.runs_dir(plan.folder), first["run"])
    return *job.overrides, f"model.weights={format_value(str(weights), quoted=True)}"


def _remaining_jobs(plan: StudyPlan, study: Study) -> Iterator[list[int]]:
    """Yield the jobs to run, those that resume another's weights after it; one without them has failed."""
    jobs = study["jobs"]
    undone = [row for row, job in enumerate(jobs) if any(each["folder"] is None for each in job["evaluations"])]
    yield [row for row in undone if plan.jobs[row].after is None]
    ready = []
    for row in undone:
        job, after = plan.jobs[row], plan.jobs[row].after
        if after is None:
            continue
        first = jobs[after]
        if first["run"] is None:
            _record_failure(
                jobs[row],
                f"there are no weights to begin with: {study_folder.format_labels(first['labels'])} has failed",
            )
        else:
            words = _with_weights(plan, job, first)
            jobs[row] = study_folder.job(jobs[row]["labels"], jobs[row]["evaluations"], words)
            ready.append(row)
    yield ready


def _run(plan: StudyPlan, study: Study, rows: Sequence[int], run: Run, show: Show) -> None:
    """Run some of the jobs; those with the same words are one run, which is evaluated for all of them."""
    from ddtl.sweeps.store import open

    by_words: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        by_words.setdefault(tuple(study["jobs"][row]["overrides"]), []).append(row)
    groups = list(by_words.values())
    store = open.open_sweep(_call(plan, study, groups))
    ended = -1

    def seen(snapshot: Snapshot) -> None:
        nonlocal ended
        show(snapshot)
        if ended != snapshot.total - snapshot.left:
            ended = snapshot.total - snapshot.left
            _take(study, store, groups)
            study_folder.write(plan.folder, study)

    try:
        run(store, seen)
    finally:
        _take(study, store, groups)
        study_folder.write(plan.folder, study)
        store.close()


def _call(plan: StudyPlan, study: Study, groups: Sequence[Sequence[int]]) -> Plan:
    """Return the sweep of this call: a trial for each group of jobs."""
    jobs = [study["jobs"][group[0]]["overrides"] for group in groups]
    targets = []
    for group in groups:
        each = [e for row in group for e in study["jobs"][row]["evaluations"] if e["words"] or _embeds(plan, row)]
        targets.append(tuple(dict.fromkeys((e["target"], tuple(e["words"])) for e in each)))
    calls = plan.folder / "calls"
    ends = [path.name.rpartition("-")[2] for path in calls.glob(f"{plan.name}-*")]
    number = 1 + max((int(end) for end in ends if end.isdecimal() and len(end) < 10), default=0)
    section = plan.settings.sweep
    typed = any(word.startswith("sweep.max_failures=") for word in plan.words)
    section = section.model_copy(update={"max_failures": section.max_failures if typed else len(jobs) + 1})
    settings = plan.settings.model_copy(
        update={
            "n_trials": len(jobs),
            "finalize": False,
            "pruner": ClassConfig(name="NopPruner", args={}),
            "sweep": section,
        }
    )
    name = f"{plan.name}-{number}"
    base, _ = load.check(jobs[0])
    known = study["planned"]
    planned = [
        known["plan"] if set(study_folder.uses([study["jobs"][row] for row in group])) <= set(known["uses"]) else ""
        for group in groups
    ]
    return Plan(
        settings,
        (),
        list_jobs(jobs),
        base,
        name,
        calls / name,
        plan.words,
        targets=tuple(targets),
        planned=tuple(planned),
    )


def _embeds(plan: StudyPlan, row: int) -> bool:
    """Return whether the embeddings of a run's own images are wanted, in addition to those of others: of one run of
    each source.
    """
    job, labels = plan.jobs[row], plan.labels[row]
    return len(job.targets) > 1 and labels["method"] == study_folder.PLAIN and labels["seed"] == plan.labels[0]["seed"]


def _take(study: Study, store: Store, groups: Sequence[Sequence[int]]) -> None:
    """Put into the record what became of the trials."""
    from optuna.trial import TrialState

    for trial in store.trials():
        attrs = trial.user_attrs
        for row in groups[trial.number]:
            job = study["jobs"][row]
            if trial.state == TrialState.COMPLETE:
                run = _below_runs(attrs["run"], 2)
                study["jobs"][row] = study_folder.job(
                    job["labels"], _record_evaluation(job, run, attrs), job["overrides"], run
                )
            elif trial.state == TrialState.FAIL:
                reason = attrs[REASON].replace("_", " ")
                _record_failure(job, f"{reason}: {attrs[WORDS]}" if attrs[WORDS] else reason)


def _record_evaluation(job: Mapping[str, Any], run: str, attrs: Mapping[str, Any]) -> list[Evaluation]:
    found = {(e["target"], tuple(e["words"])): e for e in attrs.get(EVALUATIONS, [])}
    evaluations = []
    for evaluation in job["evaluations"]:
        target, words = evaluation["target"], evaluation["words"]
        there = found.get((target, tuple(words)))
        if not words:
            evaluations.append(study_folder.evaluation(target, run))
        elif there is None:
            evaluations.append(evaluation)
        else:
            folder = there["folder"] and _below_runs(there["folder"], 4)
            evaluations.append(study_folder.evaluation(target, folder, words, there["reason"]))
    return evaluations


def _record_failure(job: study_folder.JobRecord, reason: str) -> None:
    job["run"], job["state"], job["reason"] = None, "failed", reason


def _below_runs(folder: str, parts: int) -> str:
    """Return a folder as the record names it: the machine that wrote it may have the runs at another place."""
    return "/".join(Path(folder).parts[-parts:])
