"""Made-up CT series of chests as DICOM files: patients, studies and series, whose slices show where lungs begin."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from tests.support import ct_slices

BODY, LUNG, AIR, LESION = 40, -850, -1000, -100  # Hounsfield units


def chest(size: int, place: float, ill: bool, seed: int) -> np.ndarray:
    """Hounsfield units of a slice, (size, size): at ``place`` 0 the belly, at 1 the neck, lungs between 0.2 and 0.8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    values = np.full((size, size), float(AIR))
    values[(x / 0.9) ** 2 + (y / 0.7) ** 2 < 1] = BODY
    if 0.2 <= place <= 0.8:
        for side in (-1, 1):
            lung = ((x - 0.42 * side) / 0.3) ** 2 + (y / 0.45) ** 2 < 1
            values[lung] = LUNG + 120 * random.normal(size=int(lung.sum()))
            if ill:
                values[((x - 0.42 * side) / 0.15) ** 2 + ((y - 0.15) / 0.2) ** 2 < 1] = LESION
    noise = random.normal(0, np.where(values == AIR, 5, 60))
    return (values + noise).round().clip(-1024, 3000)


def write_series(
    folder: Path, patient: str, *, slices: int = 6, size: int = 64, ill: bool = False, seed: int = 0, number: int = 1,
    syntax: str = ExplicitVRLittleEndian, spacing: float = 0.7, thickness: float = 5, **tags: Any,
) -> list[Path]:  # fmt: skip
    """Write a series, its files in no order of place, and return them from the feet up.

    Args:
        number: of the series, by which its UIDs differ from those of the patient's others.
        syntax: UID of the transfer syntax.
        tags: further elements of every slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    base = f"1.2.{sum(map(ord, patient)) * 7 + len(patient)}.{seed}"
    for place in range(slices):
        values = chest(size, place / max(1, slices - 1), ill, 1000 * seed + place)
        ds = ct_slices.dataset(
            values,
            **{
                "PatientID": patient, "StudyInstanceUID": base, "SeriesInstanceUID": f"{base}.{number}",
                "SOPInstanceUID": f"{base}.{number}.{place + 1}", "FrameOfReferenceUID": f"{base}.0",
                "InstanceNumber": slices - place, "ImagePositionPatient": [0, 0, thickness * place],
                "PixelSpacing": [spacing, spacing], **tags,
            },
        )  # fmt: skip
        if syntax != ExplicitVRLittleEndian:
            ds = ct_slices.compressed(ds, syntax)
        path = folder / f"{(place * 7 + 3) % 101:03d}-{place}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_hospital(root: Path, patients: int = 12, **how: Any) -> Path:
    """Write patients, every other one ill, and return the table of their labels."""
    rows = []
    for number in range(patients):
        patient = f"MRN{number:04d}"
        write_series(root / f"s{number}", patient, ill=number % 2 == 1, seed=number, **how)
        rows.append((patient, "COVID" if number % 2 else "non-COVID"))
    return write_table(root.parent / f"{root.name}.csv", ("patient_id", "label"), rows)


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Path:
    """Write a CSV."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path
