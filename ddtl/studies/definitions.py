"""What each kind of study consists of: from its settings to a list of runs, and the test sets that each is scored on.

Pure: nothing is read from disk, and nothing is checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ddtl.config import sources
from ddtl.config.overrides import format_item, format_value, key_of
from ddtl.config.where import options
from ddtl.records.study_folder import PLAIN
from ddtl.schema.run import OwnDataset
from ddtl.schema.study import StudyConfig
from ddtl.studies import methods

TESTED = "evaluation.test=true"
SEVERAL = "+"  # between the names of pooled datasets
# Settings of a dataset that are about training, or that an evaluation takes from its run.
_OF_TRAINING = tuple(
    f"dataset.{key}"
    for key in ("image_size", "batch_size", "sampling", "num_workers", "train_patients", "harmonize", "sources", "own")
)
_OF_EVALUATION = ("dataset.", "evaluation.", "paths.")
_MACHINE = ("trainer.accelerator", "trainer.precision")
_REFITTED = "evaluation.refit=true"


@dataclass(frozen=True)
class Target:
    """A test set: its dataset's name, and the words of ``ddtl evaluate RUN``; none for the run's own scores."""

    name: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyJob:
    """A run of the study.

    Attributes:
        overrides: for train.py.
        labels: its place on the axes that this kind of study decides (see ``study.Labels``); what is absent follows
            from the configuration.
        targets: its own test set first.
        after: the job whose run's weights it begins with; its ``overrides`` do not name them.
    """

    overrides: tuple[str, ...]
    labels: Mapping[str, Any]
    targets: tuple[Target, ...]
    after: int | None = None


@dataclass(frozen=True)
class StudyRequest:
    """What all runs of a study share.

    Attributes:
        study: its settings.
        words: for train.py, without the seed.
        seed: the first one.
        name: of the dataset, where the words name it.
        n_folds: of ``kfold``.
        combinations: of ``grid``.
    """

    study: StudyConfig
    words: tuple[str, ...]
    seed: int = 0
    name: str = ""
    n_folds: int = 0
    combinations: Sequence[Sequence[str]] = field(default_factory=tuple)

    @property
    def own(self) -> Mapping[str, OwnDataset]:
        """A person's own datasets."""
        return self.study.own or {}

    @property
    def seeds(self) -> range:
        """Of the runs."""
        return range(self.seed, self.seed + self.study.seeds)

    def overrides(self, own: Sequence[str], phantom: bool = True) -> tuple[str, ...]:
        """Return all words of a run; those about the phantom only where it has one."""
        shared = [word for word in self.words if phantom or not _about_phantom(word)]
        return (*own, *shared, TESTED)

    def external_target(self, name: str, more: Sequence[str] = ()) -> Target:
        """Return another dataset's test set, with the shared words about its images and about scoring."""
        own = dataset_words(name, self.own)
        shared = [word for word in self.words if _for_evaluation(word, has_phantom([name]))]
        return Target(name, (*own, *shared, _REFITTED, *more))

    def own_target(self, name: str, more: Sequence[str] = ()) -> Target:
        """Return the run's own test set, as it was scored or in another way."""
        return Target(
            name, (*(word for word in self.words if key_of(word).startswith("paths.")), *more) if more else ()
        )


def jobs(request: StudyRequest) -> list[StudyJob]:
    """Return the runs of a study, those of the first seed first."""
    return list(_KINDS[request.study.kind](request))


def dataset_words(name: str, own: Mapping[str, OwnDataset]) -> tuple[str, ...]:
    """Return what takes a dataset by the name that a study gives it."""
    if name in own:
        return (
            f"dataset={own[name].reader}",
            f"dataset.name={format_value(name, quoted=True)}",
            *(
                f"dataset.{key}={format_item(key, value)}"
                for key, value in _given_files(own[name]).items()
                if key != "kind"
            ),
        )
    option, _, site = name.partition(":")
    return (f"dataset={option}", f"dataset.phantom.sites=[{site}]") if site else (f"dataset={option}",)


def pool_words(names: Sequence[str], own: Mapping[str, OwnDataset]) -> tuple[str, ...]:
    """Return what takes several datasets as one."""
    declared = {name: _given_files(own[name]) for name in names if name in own}
    more = (f"dataset.own={format_value(declared, quoted=True)}",) if declared else ()
    return "dataset=pooled", f"dataset.sources=[{','.join(names)}]", *more


def has_phantom(names: Sequence[str]) -> bool:
    """Return whether the phantom is among datasets."""
    return any(name.partition(":")[0] == "phantom" for name in names)


def protocols_of(name: str, study: StudyConfig) -> tuple[str, ...]:
    """Return the protocols that ``study=paper_vs_honest`` compares on a dataset: by slice, and the dataset's own."""
    if study.protocols != "auto":
        return study.protocols
    files = (study.own or {}).get(name)
    kind = name.partition(":")[0] if files is None else files.reader
    return "random", sources.usual(kind).protocol if kind in options("dataset") else "grouped"


def _cross_dataset(request: StudyRequest) -> Iterator[StudyJob]:
    study = request.study
    names = study.datasets
    pools = _pools(study)
    # The same test images for a dataset alone and in a pool: all are split by one protocol.
    if not any(key_of(word) == "dataset.protocol" for word in request.words):
        request = replace(request, words=(*request.words, "dataset.protocol=grouped"))
    count = 0
    first: dict[tuple[str, int], int] = {}
    for seed in request.seeds:
        for method in study.methods:
            for source in [*((name,) for name in names), *pools]:
                if method == PLAIN and len(source) == 1:
                    first[source[0], seed] = count
                count += 1
                yield _from_source(request, source, method, seed)
    for seed in request.seeds:
        for k in study.patients:
            for source_, target in ((a, b) for a in names for b in names if a != b):
                own = (*dataset_words(target, request.own), f"dataset.train_patients={k}", f"seed={seed}")
                labels = {"source": source_, "method": PLAIN, "patients": k, "seed": seed}
                overrides = request.overrides(own, has_phantom([target]))
                yield StudyJob(overrides, labels, (request.own_target(target),), first.get((source_, seed)))


def _from_source(request: StudyRequest, source: tuple[str, ...], method: str, seed: int) -> StudyJob:
    """Return a run on one dataset or several, tested on its own and on all others."""
    pooled = len(source) > 1
    chosen = methods.of(method, pooled)
    taken = pool_words(source, request.own) if pooled else dataset_words(source[0], request.own)
    name = SEVERAL.join(source)
    targets = [request.external_target(other, chosen.external) for other in request.study.datasets if other != name]
    return StudyJob(
        request.overrides((*taken, *chosen.train, f"seed={seed}"), has_phantom(source)),
        {"source": name, "method": method, "seed": seed},
        (request.own_target(name, chosen.in_domain), *targets),
    )


def _pools(study: StudyConfig) -> list[tuple[str, ...]]:
    """Return the sets of datasets that are trained on together."""
    names = study.datasets
    one_out = study.leave_one_out is True or (study.leave_one_out == "auto" and len(names) > 2)
    pools = [tuple(name for name in names if name != left) for left in names] if one_out else []
    if study.pooled:
        pools.append(tuple(names))
    return [pool for pool in pools if len(pool) > 1]


def _paper_vs_honest(request: StudyRequest) -> Iterator[StudyJob]:
    for seed in request.seeds:
        for name in request.study.datasets:
            for protocol in protocols_of(name, request.study):
                own = (*dataset_words(name, request.own), f"dataset.protocol={protocol}", f"seed={seed}")
                labels = {"source": name, "protocol": protocol, "seed": seed}
                yield StudyJob(request.overrides(own, has_phantom([name])), labels, (Target(name),))


def _seeds(request: StudyRequest) -> Iterator[StudyJob]:
    for seed in request.seeds:
        yield _own_targets(request, (), seed)


def _schedules(request: StudyRequest) -> Iterator[StudyJob]:
    for seed in request.seeds:
        for schedule in request.study.schedules:
            yield _own_targets(request, (f"finetune={schedule}",), seed, request.study.targets, schedule=schedule)


def _kfold(request: StudyRequest) -> Iterator[StudyJob]:
    for seed in request.seeds:
        for fold in range(request.n_folds):
            yield _own_targets(request, ("dataset.protocol=kfold", f"dataset.fold={fold}"), seed, fold=fold)


def _learning_curve(request: StudyRequest) -> Iterator[StudyJob]:
    for seed in request.seeds:
        for k in request.study.patients:
            yield _own_targets(request, (f"dataset.train_patients={k}",), seed, patients=k)
        yield _own_targets(request, (), seed)


def _grid(request: StudyRequest) -> Iterator[StudyJob]:
    for seed in request.seeds:
        for words in request.combinations:
            yield _own_targets(request, tuple(words), seed, method=" ".join(words))


def _own_targets(
    request: StudyRequest, own: tuple[str, ...], seed: int, others: Sequence[str] = (), **labels: Any
) -> StudyJob:
    """Return a run on the dataset that the shared words name."""
    targets = [request.external_target(name) for name in others]
    return StudyJob(
        request.overrides((*own, f"seed={seed}")), {"seed": seed, **labels}, (Target(request.name), *targets)
    )


_KINDS: dict[str, Callable[[StudyRequest], Iterator[StudyJob]]] = {
    "cross_dataset": _cross_dataset,
    "paper_vs_honest": _paper_vs_honest,
    "seeds": _seeds,
    "schedules": _schedules,
    "kfold": _kfold,
    "learning_curve": _learning_curve,
    "grid": _grid,
}


def _given_files(files: OwnDataset) -> dict[str, Any]:
    return files.model_dump(exclude_defaults=True)


def _about_phantom(word: str) -> bool:
    return key_of(word).startswith("dataset.phantom.")


def _for_evaluation(word: str, phantom: bool) -> bool:
    """Return whether a word of the runs is passed to ``ddtl evaluate`` on another dataset."""
    key = key_of(word)
    if key in _OF_TRAINING or key == "evaluation.test" or (_about_phantom(word) and not phantom):
        return False
    return key.startswith(_OF_EVALUATION) or key in _MACHINE
