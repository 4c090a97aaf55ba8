"""The pairs of datasets that a study carries something across, for its controls."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ddtl.data.datasets import pooled, registry
from ddtl.schema.run import Config
from ddtl.studies.controls import ControlSubject
from ddtl.studies.settings import StudyPlan
from ddtl.training import rescore
from ddtl.utils import console
from ddtl.utils.errors import UserError

log = logging.getLogger(__name__)


def pairs(plan: StudyPlan) -> list[tuple[ControlSubject, ControlSubject]]:
    """Return each source with each other dataset that it is tested on, once; those that cannot be read by now are
    excluded.
    """
    known: dict[str, ControlSubject | None] = {}
    found: dict[tuple[str, str], tuple[ControlSubject, ControlSubject]] = {}
    for job, config, labels in zip(plan.jobs, plan.configs, plan.labels, strict=True):
        source = labels["source"]
        for target in job.targets:
            if not target.words or target.name == source or (source, target.name) in found:
                continue
            for name, words in ((source, ()), (target.name, target.words)):
                if name not in known:
                    known[name] = _subject(name, config, words)
            ours, other = known[source], known[target.name]
            if ours is not None and other is not None:
                found[source, target.name] = ours, other
    return list(found.values())


def _subject(name: str, config: Config, words: Sequence[str]) -> ControlSubject | None:
    """Return the dataset of a run, or the one that the words of an evaluation name."""
    try:
        config = rescore.read_request(config, words).config if words else config
        with console.progress(f"examining {name}") as bar:
            manifest = registry.prepared(config, bar)
        is_published = config.dataset.kind in registry.ORIGINS
        return ControlSubject(name, manifest, pooled.image_hashes(manifest, published=is_published))
    except (OSError, UserError) as error:
        log.warning("%s has no controls, and no search for images that are in other datasets: %s", name, error)
        return None
