"""From the words after ``sweep.py`` to a checked study: its runs, composed as ``train.py`` would, and their labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddtl.config import checks, command_line, load, sources
from ddtl.config.load import ConfigError
from ddtl.config.overrides import format_value, key_of
from ddtl.records.study_folder import PLAIN, Labels, Study, key_of_labels
from ddtl.schema.run import Config
from ddtl.schema.study import StudyConfig
from ddtl.schema.sweep import SweepConfig
from ddtl.studies import definitions
from ddtl.studies.definitions import SEVERAL, TESTED, StudyJob, StudyRequest
from ddtl.studies.methods import METHODS
from ddtl.sweeps.plan import sweep_settings
from ddtl.training import rescore
from ddtl.utils.errors import UserError
from ddtl.utils.suggest import did_you_mean

# The sweep's own keys that a study takes, too.
_ALSO = ("preview", "sweep.retries", "sweep.max_failures", "sweep.trial_minutes", "sweep.storage")
_NOT_SHARED = {
    "evaluation.test": "a study is about test sets, and scores each.",
    "run.name": "every run has a folder of its own. study.name=… names the study.",
    "run.overwrite": "a study resumes its runs, and shares them with others.",
}
# Settings that may change between two calls of one study: they change no result.
_FREE = ("paths", "logger", "trainer.profiler", "dataset.num_workers", "trainer.checkpoint_seconds")


@dataclass(frozen=True)
class StudyPlan:
    """A study as requested.

    Attributes:
        settings: the sweep's own, ``settings.study`` among them.
        jobs: its runs.
        configs: of each run; of one that begins with another's weights, without those.
        labels: of each run, complete.
        identity: what may not change under its name, by dotted key.
        name: of the study.
        folder: where its record lies.
        words: the command line that it was read from.
        notes: lines for the person.
    """

    settings: SweepConfig
    jobs: tuple[StudyJob, ...]
    configs: tuple[Config, ...]
    labels: tuple[Labels, ...]
    identity: dict[str, Any]
    name: str
    folder: Path
    words: tuple[str, ...] = field(compare=False)
    notes: tuple[str, ...] = field(compare=False, default=())

    @property
    def study(self) -> StudyConfig:
        """The study's settings."""
        assert self.settings.study is not None, "read makes no other"
        return self.settings.study


def is_requested(words: Sequence[str]) -> bool:
    """Return whether the words after ``sweep.py`` name a study."""
    return any(key_of(word) == "study" and word.partition("=")[2].strip() not in ("", "null") for word in words)


def read(words: Sequence[str]) -> StudyPlan:
    """Return the study of a command line.

    Raises:
        ConfigError: with one line for every mistake found.
    """
    own = [word for word in words if sweep_settings.is_own(word)]
    problems = [f"{word}: is for a search. Leave it out of a study." for word in own if not _is_a_studys(word)]
    shared = [word for word in words if not sweep_settings.is_own(word)]
    problems += [f"{word}: {_NOT_SHARED[key_of(word)]}" for word in shared if key_of(word) in _NOT_SHARED]
    settings, wrong = sweep_settings.read([word for word in own if _is_a_studys(word)], grid=True)
    problems += wrong
    if settings is None or settings.study is None or problems:
        raise ConfigError(problems)
    study = settings.study
    varied = [word for word in shared if command_line.has_several(word)]
    if study.kind != "grid":
        problems += [f"{word}: several values are for study=grid. Give it one." for word in varied]
    problems += [*_contradictions(study, settings), *_nothing_varied(study, varied)]
    if problems:
        raise ConfigError(problems)
    base, _ = load.check(_base_words(study, shared, varied), also=sweep_settings.keys())
    combinations, problems = command_line.expand(varied)
    request = StudyRequest(
        study,
        tuple(word for word in shared if key_of(word) != "seed" and word not in varied),
        base.seed,
        _source(base),
        base.dataset.n_folds,
        combinations,
    )
    jobs = definitions.jobs(request)
    problems += _clashes(request, jobs, shared)
    if problems:
        raise ConfigError(problems)
    configs, notes = _compose(jobs)
    name = study.name or "-".join([study.kind, *_folder_names(study, base)])
    folder = Path(os.path.expanduser(base.paths.runs_dir)) / "studies" / name
    labels = tuple(_labels(job, config) for job, config in zip(jobs, configs, strict=True))
    return StudyPlan(
        settings,
        tuple(jobs),
        tuple(configs),
        labels,
        _identity(study, request),
        name,
        folder,
        tuple(words),
        tuple(notes),
    )


def reductions(plan: StudyPlan, earlier: Study) -> list[str]:
    """Return a line for each setting by which a study requests less than it did under this name; none where it
    requests more.

    Args:
        plan: the study now.
        earlier: its record.
    """
    was, now = earlier["settings"], plan.study.model_dump(mode="json")
    request = {
        (key_of_labels(labels), target.name)
        for labels, job in zip(plan.labels, plan.jobs, strict=True)
        for target in job.targets
    }
    before = {(key_of_labels(job["labels"]), each["target"]) for job in earlier["jobs"] for each in job["evaluations"]}
    lost = [key for key in now if now[key] != was.get(key)] if before - request else []
    changed = [name for name, files in (was["own"] or {}).items() if (now["own"] or {}).get(name, files) != files]
    return [f"study.{key}: was {format_value(was.get(key))}, is {format_value(now[key])}" for key in lost] + [
        f"study.own.{name}: was {format_value(was['own'][name])}, is {format_value(now['own'][name])}"
        for name in changed
    ]


def _is_a_studys(word: str) -> bool:
    key = key_of(word)
    return key in _ALSO or key.partition(".")[0] in ("study", "engine")


def _contradictions(study: StudyConfig, settings: SweepConfig) -> Iterator[str]:
    if study.name is not None and not checks.is_folder_name(study.name):
        yield f"study.name={study.name}: must be a plain folder name; paths.runs_dir says where that folder is."
    if settings.engine.gpus_per_trial > 1:
        yield "engine.gpus_per_trial: a study's runs take one device each. Set it to 1."
    for method in study.methods:
        if method not in METHODS:
            hint = did_you_mean(method, METHODS)
            yield f"study.methods: no such method as {method}.{hint} There are {', '.join(METHODS)}."
    for key in ("datasets", "methods", "patients", "schedules", "targets", "protocols"):
        value = getattr(study, key)
        if not isinstance(value, str) and len(set(value)) < len(value):
            yield f"study.{key}={format_value(value)}: names one twice."
    if study.patients and study.kind == "cross_dataset" and PLAIN not in study.methods:
        yield f"study.patients: resumes the runs of the method {PLAIN}. Put it into study.methods."
    if study.kind in ("cross_dataset", "paper_vs_honest", "schedules"):
        yield from _names(study)


def _nothing_varied(study: StudyConfig, varied: Sequence[str]) -> Iterator[str]:
    if study.kind == "grid" and not varied:
        yield "study=grid: gives some settings several values, such as optimizer.lr=1e-4,1e-3."
    if study.kind == "schedules" and not study.schedules:
        yield "study.schedules: names no schedule."
    if study.kind == "learning_curve" and not study.patients:
        yield "study.patients: names no number of patients."
    if study.kind == "paper_vs_honest" and not (study.datasets and study.protocols):
        yield "study=paper_vs_honest: needs study.datasets and study.protocols."


def _names(study: StudyConfig) -> Iterator[str]:
    """Yield what is wrong with the datasets' names, as for a pool of them."""
    key = "targets" if study.kind == "schedules" else "datasets"
    names: tuple[str, ...] = getattr(study, key)
    if len(names) < 2 and study.kind == "cross_dataset":
        yield f"study.datasets=[{', '.join(names)}]: names two datasets or more."
        return
    pool = sources.usual("pooled").model_copy(update={"sources": names, "own": study.own})
    for line in sources.problems(pool):
        if "names two datasets" not in line:
            yield line.replace("dataset.sources", f"study.{key}").replace("dataset.own", "study.own")


def _base_words(study: StudyConfig, shared: Sequence[str], varied: Sequence[str]) -> list[str]:
    """Return the words of one run, from which what all share is read."""
    once = [word for word in shared if word not in varied]
    if study.kind not in ("cross_dataset", "paper_vs_honest"):
        return [*once, TESTED]
    first = study.datasets[0]
    phantom = definitions.has_phantom([first])
    kept = [word for word in once if phantom or not key_of(word).startswith("dataset.phantom.")]
    return [*kept, *definitions.dataset_words(first, study.own or {}), TESTED]


def _clashes(request: StudyRequest, jobs: Sequence[StudyJob], shared: Sequence[str]) -> Iterator[str]:
    """Yield a line for each shared word that says what the study varies."""
    own = {word for job in jobs for word in job.overrides} - set(request.words)
    keys = {key_of(word) for word in own} - {"seed", "evaluation.test"}
    for word in shared:
        if key_of(word) in keys and not command_line.has_several(word):
            yield f"{word}: study={request.study.kind} sets this for each of its runs. Leave it out."


def _compose(jobs: Sequence[StudyJob]) -> tuple[list[Config], list[str]]:
    """Return the configuration of each run, and the notes that are the same for all of them; the evaluations are
    composed, too.

    Raises:
        ConfigError: with one line for every mistake found.
    """
    configs: list[Config] = []
    notes_of_jobs: list[list[str]] = []
    problems: list[str] = []
    known: dict[tuple[str, ...], tuple[Config, list[str]]] = {}
    for job in jobs:
        # Runs that differ in their seed alone are composed once: it takes a tenth of a second.
        words = tuple(word for word in job.overrides if key_of(word) != "seed" or "${" in " ".join(job.overrides))
        try:
            if words not in known:
                known[words] = load.check(job.overrides)
                for target in job.targets:
                    if target.words:
                        problems += checks.problems(
                            rescore.read_request(known[words][0], target.words).config, trains=False
                        )
            config, notes = known[words]
            configs.append(config.model_copy(update={"seed": job.labels["seed"]}))
            notes_of_jobs.append(notes)
        except ConfigError as error:
            problems += error.problems
        except UserError as error:
            problems.append(str(error))
    devices = {config.trainer.devices * config.trainer.num_nodes for config in configs}
    if devices - {1}:
        problems.append(f"trainer.devices={max(devices)}: a study's runs take one device each. Leave it out.")
    if problems:
        raise ConfigError(problems)
    return configs, [line for line in notes_of_jobs[0] if all(line in notes for notes in notes_of_jobs)]


def _labels(job: StudyJob, config: Config) -> Labels:
    found: dict[str, Any] = {
        "source": _source(config),
        "method": PLAIN,
        "protocol": config.dataset.protocol,
        "schedule": config.finetune.name,
        "fold": None,
        "patients": None,
        **job.labels,
    }
    return {key: found[key] for key in Labels.__annotations__}  # type: ignore[return-value]


def _source(config: Config) -> str:
    return SEVERAL.join(config.dataset.sources) if config.dataset.sources else config.dataset.name


def _folder_names(study: StudyConfig, base: Config) -> list[str]:
    names = study.datasets or [_source(base)]
    return [name.replace(":", "-") for name in names]


def _identity(study: StudyConfig, request: StudyRequest) -> dict[str, Any]:
    """Return what may not change under a name: the kind, the first seed, and the shared settings as they were typed."""
    shared = {
        key_of(word): word.partition("=")[2].strip()
        for word in request.words
        if not any(f"{key_of(word)}.".startswith(f"{free}.") for free in _FREE)
    }
    combinations = {"grid": [" ".join(words) for words in request.combinations]} if study.kind == "grid" else {}
    return {"study": study.kind, "seed": request.seed, **combinations, **shared}
