"""What a result is counted by, in words that records, pages and the terminal share."""

from __future__ import annotations

from typing import Literal, get_args

SPLITS = ("train", "val", "test")

# How images come to their splits, see ddtl/data/splits/protocols.py.
Protocol = Literal["official", "grouped", "random", "kfold"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

# What is never split, by ``dataset.grouping``'s values in a manifest: as a heading, and as what is scored.
GROUPS = {"patient": "patients", "near_duplicate": "near-duplicate groups", "none": "images as groups"}
SCORED = {**GROUPS, "none": "images"}

# What is resampled or excluded together: one, several.
UNITS = {
    "patient": ("patient", "patients"),
    "group": ("near-duplicate group", "near-duplicate groups"),
    "image": ("image", "images"),
}
