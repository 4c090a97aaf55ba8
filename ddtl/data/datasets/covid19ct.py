"""COVID19-CT (UCSD-AI4H/COVID-CT; Zhao et al., arXiv 2003.13865): 349 COVID and 397 non-COVID chest-CT slices.

Where it comes from: the COVID images are figures of papers, by their file names from medRxiv and bioRxiv preprints
(site ``preprint``) and from journals (``journal``; one is from a textbook); the others are from MedPix (``medpix``) and
crawled from other sites (``crawled``). The original repository is offline; the images are read as
github.com/KamalEyubov/sose2020-idv has them at commit 6b3a565629e81220ae89010dceaa2ef1566e23e0 (folder ``Images/``).

Licence: the copyright of the figures stays with the papers they come from, and no licence file was found. The package
ships file names, sizes and checksums, never an image.

Patients: 213 with COVID and 171 without, from the dataset's tables ``COVID-CT-MetaInfo`` and ``NonCOVID-CT-MetaInfo``
as github.com/tonydosreis/deeplearning-covid19 contains them at commit 1362e936. Both classes number their patients, so
those with COVID are called ``COVID Patient N`` here.

Official split: the authors' lists, 425 / 118 / 203 images of 233 / 56 / 95 patients, disjoint by patient. All journal
figures are in its test part: no training image of the COVID class comes from a journal.

The index table is made by ``tools/build_index.py``.
"""

from __future__ import annotations

from ddtl.data.datasets.kind import published_kind
from ddtl.data.download.published import Origin
from ddtl.data.manifest import Note
from ddtl.schema.units import PROTOCOLS

_NOT_OFFICIAL = tuple(protocol for protocol in PROTOCOLS if protocol != "official")
_BOTH_CLASSES = (  # one CT slice as COVID (official test part) and as non-COVID (official training part)
    ("CT_COVID/kjr-21-e24-p5-29.png", "CT_NonCOVID/71%0.jpg"),
    ("CT_COVID/kjr-21-e24-p5-31.png", "CT_NonCOVID/71%1.jpg"),
)


def _in_both_classes(covid: str, other: str) -> tuple[Note, Note]:
    text = f"As published, one image is in both classes: {covid} is {other} at another size"
    official = f"{text}; the first is in the official test part, the second in the training part."
    return Note(official, ("official",), (covid, other)), Note(f"{text}.", _NOT_OFFICIAL, (covid, other))


ORIGIN = Origin(
    name="covid19ct",
    title="COVID19-CT",
    repository="KamalEyubov/sose2020-idv",
    commit="6b3a565629e81220ae89010dceaa2ef1566e23e0",
    folder="Images",
    other_sources=" (first published as UCSD-AI4H/COVID-CT, which is offline)",
    licence="none stated; the figures belong to the papers they come from",
    grouping="patient",
    notes=(
        Note(
            "COVID and non-COVID images come from different sources and differ in file format, size and annotations: "
            "a model can score well by telling the sources apart."
        ),
        *(note for pair in _BOTH_CLASSES for note in _in_both_classes(*pair)),
        Note(
            "All 63 COVID figures from journals are in the official test part; the COVID images of its training and "
            "validation parts come from preprints alone.",
            protocols=("official",),
            of_training=True,
        ),
    ),
)

KIND = published_kind(ORIGIN)
