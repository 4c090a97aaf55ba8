"""Builds the index tables of the public datasets: ``ddtl/data/index/covid19ct.csv`` and ``sarscov2ct.csv``.

The tables ship in the package, so this runs only when an index itself is to change. Equal input gives equal bytes.

    python tools/build_index.py --data DIR [--out ddtl/data/index]

``DIR`` contains

    covid19ct/      as published, with COVID-CT-MetaInfo.csv, NonCOVID-CT-MetaInfo.csv and Data-split/
    sarscov2ct/     COVID/ and non-COVID/; copies made smaller will do
    index/          covid19ct.csv and sarscov2ct.csv: path, bytes and sha256 of every original file in the repository
                    that publishes it, as ``covid19ct.py`` and ``sarscov2ct.py`` in ``ddtl/data/datasets`` name it

Every image has its 256-bit difference hash (``ddtl/data/images/perceptual_hash.py``) in the table, by which
``ddtl data verify`` knows an image again that was saved again. Copies made smaller change a few of its bits.

Near-duplicates (sarscov2ct, which names no patients). Two images whose hashes differ in at most 20 bits are a pair;
images joined by pairs, directly or through others, are a cluster.

The shipped table was made from grayscale copies of shorter side 256 pixels at most, JPEG quality 95, with Pillow 13.0:
78 pairs, 142 images in 66 clusters (58 of two, 6 of three, 2 of four), none across the classes. Pairs near the limit
depend on the input: on other copies, or with another filter, some come and others go. Seen by eye, all 78 pairs look
like neighbouring slices of one chest, and chaining joined nothing unrelated (the farthest two images of one cluster
differ in 46 bits and still are such neighbours). So do the pairs sampled from 21 to 25 bits: 20 is a cautious limit,
and many slices of one patient share no cluster.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from ddtl.data.images.decode import decode_gray
from ddtl.data.images.image_file import read_bytes
from ddtl.data.images.perceptual_hash import BITS, NEAR, difference_hash, distances

COLUMNS = ("sample_id", "label", "patient_id", "site", "split", "cluster_id", "bytes", "sha256", "dhash")

Row = dict[str, str]


def main() -> None:
    """Write both tables and says what is in them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with covid19ct/, sarscov2ct/ and index/")
    default = Path(__file__).resolve().parent.parent / "ddtl" / "data" / "index"
    parser.add_argument("--out", type=Path, default=default, help="where the tables go (default: the package)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, build in (("covid19ct", covid19ct), ("sarscov2ct", sarscov2ct)):
        rows = build(args.data / name, args.data / "index" / f"{name}.csv")
        write(args.out / f"{name}.csv", rows)
        clusters = Counter(row["cluster_id"] for row in rows if row["cluster_id"])
        sizes = dict(sorted(Counter(clusters.values()).items()))
        print(f"{name}: {len(rows)} images, clusters by size {sizes}")


def covid19ct(folder: Path, originals: Path) -> list[Row]:
    """COVID19-CT: patients from the two metadata tables, splits from the official lists."""
    patients = {
        **{f"CT_COVID/{name}": f"COVID {patient}" for name, patient in covid_patients(folder).items()},
        **{f"CT_NonCOVID/{name}": patient for name, patient in noncovid_patients(folder).items()},
    }
    splits = {
        f"CT_{kind}/{name}": split
        for kind in ("COVID", "NonCOVID")
        for split in ("train", "val", "test")
        for name in (folder / "Data-split" / kind / f"{split}CT_{kind}.txt").read_text("utf-8").split("\n")
        if name
    }
    index = read_originals(originals)
    unlike = sorted({*index} ^ {*patients} | {*index} ^ {*splits})
    if unlike:
        raise SystemExit(
            f"{unlike[0]!r} and {len(unlike) - 1} other files do not be in all of index, metadata and lists."
        )
    return [
        row(
            sample_id,
            original,
            hash_of(folder / sample_id),
            label=int(sample_id.startswith("CT_COVID/")),
            patient_id=patients[sample_id],
            site=covid19ct_site(sample_id, patients[sample_id]),
            split=splits[sample_id],
        )
        for sample_id, original in index.items()
    ]


def covid_patients(folder: Path) -> dict[str, str]:
    """File name -> ``Patient 12``."""
    with (folder / "COVID-CT-MetaInfo.csv").open(encoding="utf-8", newline="") as file:
        return {line["File name"].strip(): line["Patient ID"].strip() for line in csv.DictReader(file)}


def noncovid_patients(folder: Path) -> dict[str, str]:
    """File name -> ``crawled_patient_3`` or ``medpix_patient_7``."""
    with (folder / "NonCOVID-CT-MetaInfo.csv").open(encoding="utf-8", newline="") as file:
        return {line["image name"].strip(): line["patient id"].strip() for line in csv.DictReader(file)}


def covid19ct_site(sample_id: str, patient: str) -> str:
    """Where an image was taken from: ``medpix`` or ``crawled``; for COVID the kind of publication it is a figure of.

    medRxiv and bioRxiv number their preprints by date (``2020.02.10.20021584``), and the images are named after them.
    """
    if sample_id.startswith("CT_NonCOVID/"):
        return patient.partition("_")[0]
    return "preprint" if re.match(r"2020\.\d\d\.\d\d\.", sample_id.removeprefix("CT_COVID/")) else "journal"


def sarscov2ct(folder: Path, originals: Path) -> list[Row]:
    """SARS-CoV-2 CT: no patients and no split, so clusters of near-duplicates."""
    index = read_originals(originals)
    hashes = {sample_id: hash_of(folder / sample_id) for sample_id in index}
    clusters = cluster_ids(hashes)
    return [
        row(
            sample_id,
            original,
            hashes[sample_id],
            label=int(sample_id.startswith("COVID/")),
            site="sao_paulo",
            cluster_id=clusters.get(sample_id, ""),
        )
        for sample_id, original in index.items()
    ]


def cluster_ids(hashes: dict[str, int]) -> dict[str, str]:
    """``d0001``, ``d0002``, ... in the order of their first image, for the images that have a near-duplicate."""
    names = list(hashes)
    distance = distances(list(hashes.values()), list(hashes.values()))
    parent = list(range(len(names)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in np.argwhere(np.triu(distance <= NEAR, k=1)).tolist():
        parent[root(j)] = root(i)
    members: dict[int, list[str]] = defaultdict(list)
    for i, name in enumerate(names):
        members[root(i)].append(name)
    clusters = [group for group in members.values() if len(group) > 1]
    return {name: f"d{number:04}" for number, group in enumerate(clusters, start=1) for name in group}


def hash_of(path: Path) -> int:
    """Return the difference hash of an image file."""
    return difference_hash(decode_gray(read_bytes(path), path))


def read_originals(table: Path) -> dict[str, Row]:
    """Return sample id -> its row in the table of original files, by sample id. The repository's top folder is
    excluded.
    """
    with table.open(encoding="utf-8", newline="") as file:
        found = {line["path"].split("/", 1)[1]: line for line in csv.DictReader(file)}
    return dict(sorted(found.items()))


def row(
    sample_id: str,
    original: Row,
    dhash: int,
    *,
    label: int,
    site: str,
    patient_id: str = "",
    split: str = "",
    cluster_id: str = "",
) -> Row:
    """Return one line of an index table."""
    hashes = (original["bytes"], original["sha256"], f"{dhash:0{BITS // 4}x}")
    values = (sample_id, str(label), patient_id, site, split, cluster_id, *hashes)
    return dict(zip(COLUMNS, values, strict=True))


def write(path: Path, rows: list[Row]) -> None:
    """Write a table with Unix line ends on every system."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
