"""CT series as DICOM: time to read their headers, and to decode them into the cache, next to pydicom alone.

    python -m benchmarks.ct_input            # 300 series of 100 slices of 512 × 512, twice: 16 GB, removed afterwards
    python -m benchmarks.ct_input --quick    # to see that it works: 6 series of 10 slices

pydicom reads a file, decodes its pixels (by GDCM), makes Hounsfield units of them and applies the window; ddtl does
that, resizes the image, hashes the file, and writes the cache. Both have as many workers as there are cores: pydicom
processes, ddtl threads whose decoders are processes. Memory is that of ddtl's process at its highest.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.measuring import finish
from ddtl.utils import threads

SYNTAXES = ("uncompressed", "JPEG Lossless")
WINDOW = (-600.0, 1500.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=300)
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--side", type=int, default=512, help="pixels")
    parser.add_argument("--folder", type=Path, help="where the files are made; a temporary folder if omitted")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    series, slices = (6, 10) if arguments.quick else (arguments.series, arguments.slices)
    found: dict[str, dict[str, float]] = {}
    for syntax in SYNTAXES:
        folder = Path(tempfile.mkdtemp(dir=arguments.folder))
        try:
            labels = write(folder / "root", syntax, series, slices, arguments.side)
            found[syntax] = measure(folder, labels)
            print(f"{syntax}: {found[syntax]}", flush=True)
        finally:
            shutil.rmtree(folder)
    finish(benchmark="ct_input", series=series, slices=slices, side=arguments.side, figures=found)


def write(root: Path, syntax: str, series: int, slices: int, side: int) -> Path:
    """Write series of a few different chests; no two files are equal. Return the table of their labels."""
    from pydicom.uid import UID, JPEGLosslessSV1

    from tests.support import ct_slices
    from tests.support.ct_series import chest

    made = []
    for seed in range(8):
        ds = ct_slices.dataset(chest(side, 0.5, seed % 2 == 1, seed), bits=12, PixelSpacing=[0.7, 0.7])
        made.append(ct_slices.compressed(ds, JPEGLosslessSV1) if syntax != "uncompressed" else ds)
    rows = ["patient_id,label"]
    for number in range(series):
        folder = root / f"{number:04d}"
        folder.mkdir(parents=True)
        rows.append(f"P{number:05d},{'covid' if number % 2 else 'normal'}")
        for place in range(slices):
            ds = made[(number + place) % len(made)]
            uid = f"1.2.{number}.1"
            ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID = f"P{number:05d}", f"1.2.{number}", uid
            ds.SOPInstanceUID = f"{uid}.{place + 1}"
            ds.file_meta.MediaStorageSOPInstanceUID = UID(f"{uid}.{place + 1}")
            ds.InstanceNumber, ds.ImagePositionPatient = place + 1, [0, 0, 2 * place]
            ds.save_as(folder / f"{place:04d}.dcm", enforce_file_format=True)
    table = root.parent / "labels.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def measure(folder: Path, labels: Path) -> dict[str, float]:
    """Seconds, slices a second, and bytes of memory; each in a process of its own, pydicom before and after ddtl."""
    paths = sorted((folder / "root").rglob("*.dcm"))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(threads.cores(), mp_context=spawn) as pool:
        list(pool.map(_read, paths[:8]))  # the imports
        first = _timed(pool, paths)
        with ProcessPoolExecutor(1, mp_context=spawn) as alone:
            manifest_s, cache_s, peak = alone.submit(_ours, folder, labels).result()
        second = _timed(pool, paths)
    n = len(paths)
    pydicom_s = min(first, second)
    return {
        "slices": n,
        "manifest_s": manifest_s,
        "cache_s": cache_s,
        "slices_per_second": n / cache_s,
        "pydicom_slices_per_second": n / pydicom_s,
        "ratio": pydicom_s / cache_s,
        "peak_gib": peak / 2**30,
    }


def _timed(pool: ProcessPoolExecutor, paths: Sequence[Path]) -> float:
    started = time.perf_counter()
    for _ in pool.map(_read, paths, chunksize=16):
        pass
    return time.perf_counter() - started


def _ours(folder: Path, labels: Path) -> tuple[float, float, float]:
    """Seconds of the manifest and of the cache, and the most memory, of this process."""
    import resource

    from ddtl.config.load import load
    from ddtl.data.datasets import registry
    from ddtl.data.images.cache import open_cache

    config = load(["dataset=dicom", f"dataset.root={folder / 'root'}", f"dataset.labels={labels}"])
    started = time.perf_counter()
    manifest = registry.prepared(config)
    manifest_s = time.perf_counter() - started
    started = time.perf_counter()
    open_cache(manifest, size=config.dataset.image_size, root=folder / "cache")
    cache_s = time.perf_counter() - started
    return manifest_s, cache_s, 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _read(path: Path) -> int:
    import pydicom
    from pydicom.pixels import apply_modality_lut, apply_windowing

    ds = pydicom.dcmread(path)
    ds.WindowCenter, ds.WindowWidth = WINDOW
    units = apply_modality_lut(ds.pixel_array, ds)
    return int(np.asarray(apply_windowing(units, ds)).shape[0])


if __name__ == "__main__":
    main()
