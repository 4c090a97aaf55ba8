"""SARS-CoV-2 CT-scan (Soares, Angelov et al. 2020): 1,252 COVID and 1,229 non-COVID chest-CT slices.

Where it comes from: hospitals of Sao Paulo, Brazil, reportedly of 120 patients. Published as Kaggle dataset
``plameneduardo/sarscov2-ctscan-dataset``; sizes and checksums are those of github.com/dwaipayan05/CovCNN-WebApp at
commit 1b912a4ba27b4548103a598b169e939d0b933806 (folder ``Dataset/``; its newest commit contains only Git LFS pointers).
``Non-Covid (151).png`` is missing from public copies.

Licence: stated to be CC BY-NC-SA 4.0. The package ships file names, sizes and checksums, never an image.

Patients: none are named, and there is no official split. What is never split are near-duplicates: 142 images in
66 clusters, most of them pairs (256-bit difference hashes at most 20 bits apart, see ``tools/build_index.py``, which
makes the index table). All other images are groups of their own, though many show the same patients.
"""

from __future__ import annotations

from ddtl.data.datasets.kind import published_kind
from ddtl.data.download.published import Origin
from ddtl.data.manifest import Note

ORIGIN = Origin(
    name="sarscov2ct",
    title="SARS-CoV-2 CT-scan",
    repository="dwaipayan05/CovCNN-WebApp",
    commit="1b912a4ba27b4548103a598b169e939d0b933806",
    folder="Dataset",
    other_sources=", and on Kaggle as plameneduardo/sarscov2-ctscan-dataset",
    licence="CC BY-NC-SA 4.0, as its publishers state",
    grouping="near_duplicate",
    notes=(
        Note(
            "The dataset names no patients. About 120 of them share 2,481 slices, so under every split slices of one "
            "patient are in training and in test, and scores may be optimistic.",
            of_training=True,
        ),
        Note(
            "Intervals assume that images outside a near-duplicate cluster are independent; slices of one patient are "
            "not, so the intervals are too narrow."
        ),
    ),
)

KIND = published_kind(ORIGIN)
