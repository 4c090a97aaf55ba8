"""Several datasets as one: joined tables, in which no image is twice."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ddtl.data.datasets.classes import matched, require_positive
from ddtl.data.download.published import read_index
from ddtl.data.images.decode import decode_gray
from ddtl.data.images.image_file import read_bytes
from ddtl.data.images.perceptual_hash import difference_hash, near_any
from ddtl.data.manifest import Grouping, Manifest, Note, Sample

logger = logging.getLogger(__name__)

_WEAKEST_FIRST: tuple[Grouping, ...] = ("none", "near_duplicate", "patient")


@dataclass(frozen=True)
class Source:
    """One of the datasets that are joined.

    Attributes:
        site: what its images' ``site`` becomes.
        manifest: its table, split.
        hashes: the difference hash of each image, in the table's order.
    """

    site: str
    manifest: Manifest
    hashes: Sequence[int]


def pool(name: str, sources: Sequence[Source]) -> Manifest:
    """The sources' tables as one, split as they are.

    Sample ids, patients and clusters are prefixed with the dataset's name. Classes are matched by their names
    (:func:`ddtl.data.datasets.classes.matched`) and go by the first source's. Where an image is in two sources
    (hashes within ``NEAR`` bits), the later one loses it, with all images of its patient or cluster: the same person
    may be in the other's test.

    Args:
        name: under which results are filed.
        sources: two or more, split by the same protocol.

    Raises:
        UserError: the names do not say which class of one source is which of another.
    """
    first = sources[0].manifest
    require_positive(first)
    samples: list[Sample] = []
    notes: list[Note] = []
    known: list[int] = []
    for source in sources:
        manifest, renamed = matched(source.manifest, first.classes, f"dataset.own.{source.site}.class_map")
        if renamed:
            notes.append(Note(renamed, is_doubt=True))
        twice = near_any(source.hashes, known)
        out = {sample.group for sample, again in zip(manifest.samples, twice, strict=True) if again}
        kept = [i for i, sample in enumerate(manifest.samples) if sample.group not in out]
        if out:
            text = (
                f"{source.site}: {int(twice.sum())} images are also in the sources before it; they and the others of "
                f"their {len(out)} patients or groups, {len(manifest) - len(kept)} images, are excluded."
            )
            notes.append(Note(text))
            logger.info(text)
        samples += [_moved(manifest.samples[i], manifest.dataset, source.site) for i in kept]
        known += [source.hashes[i] for i in kept]
        notes += [
            Note(f"{source.site}: {note.text}", is_doubt=note.is_doubt, names=note.names)
            for note in manifest.applicable()
        ]
    return Manifest(
        dataset=name,
        classes=first.classes,
        samples=tuple(samples),
        grouping=min((source.manifest.grouping for source in sources), key=_WEAKEST_FIRST.index),
        protocol=first.protocol,
        notes=tuple(dict.fromkeys(notes)),
        fold=first.fold,
    )


def prefixed(dataset: str, group: str) -> str:
    """What a dataset's group (or sample) is called in a pool."""
    return f"{dataset}/{group}"


def image_hashes(manifest: Manifest, published: bool) -> list[int]:
    """The difference hash of each image, in the table's order.

    Args:
        manifest: the dataset.
        published: take them from the dataset's index table, and read no image.

    Raises:
        BadImageError: a file cannot be used.
    """
    if published:
        index = {row.sample_id: row.dhash for row in read_index(manifest.dataset)}
        return [index[sample.sample_id] for sample in manifest.samples]
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(_hash_of, manifest.samples))


def _hash_of(sample: Sample) -> int:
    return difference_hash(decode_gray(read_bytes(sample.path), sample.path, sample.window))


def _moved(sample: Sample, dataset: str, site: str) -> Sample:
    patient, cluster = (
        None if value is None else prefixed(dataset, value) for value in (sample.patient_id, sample.cluster_id)
    )
    return replace(
        sample, sample_id=prefixed(dataset, sample.sample_id), patient_id=patient, cluster_id=cluster, site=site
    )
