"""The pairs of datasets that a study carries something across, for the controls beside it."""

from __future__ import annotations

from ddtl import console
from ddtl.config.schema import Config
from ddtl.data import manifests, pooled
from ddtl.data.catalogue import ORIGINS
from ddtl.studies.controls import Subject
from ddtl.studies.settings import StudyPlan
from ddtl.training import evaluate


def pairs(plan: StudyPlan) -> list[tuple[Subject, Subject]]:
    """Each source with each other dataset that it is tested on, once.

    Raises:
        UserError: images are not there, or cannot be used.
    """
    known: dict[str, Subject] = {}
    found: dict[tuple[str, str], tuple[Subject, Subject]] = {}
    for job, config, labels in zip(plan.jobs, plan.configs, plan.labels, strict=True):
        source = labels["source"]
        for target in job.targets:
            if not target.words or target.name == source or (source, target.name) in found:
                continue
            theirs = evaluate.asked(config, target.words).config
            for name, of in ((source, config), (target.name, theirs)):
                if name not in known:
                    known[name] = _subject(name, of)
            found[source, target.name] = known[source], known[target.name]
    return list(found.values())


def _subject(name: str, config: Config) -> Subject:
    with console.progress(f"looking at {name}") as bar:
        manifest = manifests.prepared(manifests.build(config, bar), config.dataset)
    return Subject(name, manifest, pooled.picture_hashes(manifest, published=config.dataset.kind in ORIGINS))
