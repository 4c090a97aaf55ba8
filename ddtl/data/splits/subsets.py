"""Training on fewer patients: for learning curves, and for adaptation to a dataset of which little is labelled."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace
from itertools import zip_longest

from ddtl.data.manifest import Manifest, Note
from ddtl.schema.units import SCORED
from ddtl.utils.errors import UserError


def train_on(manifest: Manifest, patients: int | float, seed: int) -> Manifest:
    """The table with only the first so many patients of its training part; validation and test stay as they are.

    The patients of each class are in an order that only the seed and their names decide (sha256), and the classes
    take turns. So the classes are as even as they can be, and fewer patients are a subset of more.

    Args:
        manifest: split. Where it names no patients, its groups take their place.
        patients: how many; or, below 1, which share of those that there are, rounded.
        seed: another seed is another order.

    Raises:
        UserError: there are not so many, or fewer are requested than there are classes.
    """
    order = _order(manifest, seed)
    wanted = patients if isinstance(patients, int) else max(round(patients * len(order)), len(manifest.classes))
    requested, unit_name = f"dataset.train_patients={patients}", SCORED[manifest.grouping]
    if wanted > len(order):
        raise UserError(
            f"{requested}: the training part has {len(order)} {unit_name}. Ask for fewer, or set it to null."
        )
    if wanted < len(manifest.classes):
        raise UserError(f"{requested}: each of {len(manifest.classes)} classes needs one. Ask for more.")
    kept = set(order[:wanted])
    samples = tuple(
        s if s.split != "train" or s.group in kept else replace(s, split=None) for s in manifest.samples
    )  # fmt: skip
    note = f"Trained on {wanted} of the {len(order)} {unit_name} of the training part ({requested})."
    return replace(manifest, samples=samples, notes=(*manifest.notes, Note(note, of_training=True)))


def _order(manifest: Manifest, seed: int) -> list[str]:
    """The groups of the training part, each under its first image's class, in the order in which they are taken."""
    label_of: dict[str, int] = {}
    for i in manifest.rows("train"):
        sample = manifest.samples[i]
        label_of.setdefault(sample.group, sample.label)
    classes: dict[int, list[str]] = defaultdict(list)
    for group in sorted(label_of, key=lambda name: hashlib.sha256(f"{seed}\x1f{name}".encode()).digest()):
        classes[label_of[group]].append(group)
    turns = zip_longest(*(classes[label] for label in sorted(classes)))
    return [group for turn in turns for group in turn if group is not None]
