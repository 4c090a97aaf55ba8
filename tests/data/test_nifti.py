"""NIfTI volumes: oriented by their affines to the bit of DICOM and PNG, and refused where they are not sound."""

from __future__ import annotations

import csv
import gzip
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from ddtl.commands import cli
from ddtl.config.load import load
from ddtl.data.datasets import registry
from ddtl.data.images import nifti
from ddtl.data.images.cache import open_cache
from ddtl.data.images.decode import load_image
from ddtl.data.images.image_file import BadImageError
from ddtl.data.images.levels import CTWindow, windowed
from ddtl.data.manifest import Manifest
from ddtl.utils.errors import UserError
from tests.support import ct_slices, nifti_volumes
from tests.support.ct_series import chest, write_table
from tests.support.nifti_volumes import AXES, content, turned

LUNG = (-600.0, 1500.0)


def volume(slices: int = 5, size: int = 40, seed: int = 0, *, ill: bool = False) -> np.ndarray:
    """Hounsfield units, (slices, size, size)."""
    return np.stack([chest(size, place / (slices - 1), ill, 100 * seed + place) for place in range(slices)])


@pytest.mark.parametrize(("order", "signs"), AXES, ids=str)
def test_every_order_and_direction_of_axes_is_the_same_slice(
    tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    """As DICOM, as NIfTI and as the PNG of the windowed values: equal to the bit."""
    units = volume()
    path = nifti_volumes.write(tmp_path / "v.nii.gz", units[:, :, :36], order, signs)
    for number, values in enumerate(units[:, :, :36]):
        slice_ = ct_slices.write(tmp_path / "s.dcm", values)
        grey = windowed(values, *LUNG)
        Image.fromarray(grey).save(tmp_path / "s.png")
        images = [
            load_image(path, 32, CTWindow(*LUNG, number=number)),
            load_image(slice_, 32, CTWindow(*LUNG)),
            load_image(tmp_path / "s.png", 32),
        ]
        assert all(np.array_equal(images[0], image) for image in images)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["int16", "int32", "float32", "float64"])
def test_types_byte_orders_and_versions_are_the_same(tmp_path: Path, version: int, order: str, kind: str) -> None:
    units = volume(3)
    voxels, affine = turned(units, (0, 1, 2), (1, 1, 1))
    (tmp_path / "v.nii").write_bytes(content(voxels.astype(kind), affine, order=order, version=version))
    found = load_image(tmp_path / "v.nii", 40, CTWindow(*LUNG, number=1))
    assert np.array_equal(found, windowed(units[1], *LUNG))


def test_stored_values_are_scaled(tmp_path: Path) -> None:
    units = volume(3)
    voxels, affine = turned(units, (0, 1, 2), (1, 1, 1))
    stored = (voxels + 1024).astype(np.uint16)
    for slope, intercept, expected in ((1, -1024, units), (0, 5, units + 1024), (2, -2048, 2 * units)):
        (tmp_path / "v.nii").write_bytes(content(stored, affine, slope=slope, intercept=intercept))
        found = load_image(tmp_path / "v.nii", 40, CTWindow(*LUNG, number=2))
        assert np.array_equal(found, windowed(expected[2], *LUNG))


def test_a_qform_orients_where_there_is_no_sform(tmp_path: Path) -> None:
    """A half turn around the long axis, as scanners' volumes have it, and the same with the slices upside down."""
    units = volume(4)
    voxels, _ = turned(units, (0, 1, 2), (-1, -1, 1))
    for factor in (1.0, -1.0):
        pixdim = (factor, 0.7, 0.7, 5.0, 1, 1, 1, 1)
        data = content(voxels[:, :, :: int(factor)].astype(np.int16), None, qform=(0, 0, 1, 0, 0, 0), pixdim=pixdim)
        (tmp_path / "v.nii").write_bytes(data)
        found = load_image(tmp_path / "v.nii", 40, CTWindow(*LUNG, number=1))
        assert np.array_equal(found, windowed(units[1], *LUNG))


@pytest.mark.parametrize(("units", "factor"), [(0, 1.0), (1, 1e-3), (2, 1.0), (3, 1e3)])
def test_spacing_and_position_are_in_millimetres(tmp_path: Path, units: int, factor: float) -> None:
    voxels, affine = turned(volume(4), (0, 1, 2), (1, 1, -1))
    affine = affine * factor
    (tmp_path / "v.nii").write_bytes(content(voxels.astype(np.int16), affine, units=units))
    header = nifti.read_header(tmp_path / "v.nii")
    assert header.spacing == pytest.approx((0.7, 0.7, 5.0))
    assert [header.position(number) for number in range(4)] == pytest.approx([0, 5, 10, 15], abs=1e-4)


def test_a_spacing_is_that_of_the_volume(tmp_path: Path) -> None:
    """As of DICOM with the same PixelSpacing."""
    units = volume(3)
    path = nifti_volumes.write(tmp_path / "v.nii", units)
    slice_ = ct_slices.write(tmp_path / "s.dcm", units[1], PixelSpacing=[0.7, 0.7])
    extent = 40.0
    found = load_image(path, 32, CTWindow(*LUNG, extent, 1))
    assert np.array_equal(found, load_image(slice_, 32, CTWindow(*LUNG, extent)))


def damaged(**how: Any) -> bytes:
    voxels, affine = turned(volume(3, 16), (0, 1, 2), (1, 1, 1))
    return content(voxels.astype(np.int16), how.pop("affine", affine), **how)


def patched(data: bytes, at: int, code: str, *values: float) -> bytes:
    changed = bytearray(data)
    struct.pack_into(code, changed, at, *values)
    return bytes(changed)


OBLIQUE = np.array([[0.5, 0, 0.5, 0], [0, 1, 0, 0], [-0.5, 0, 0.5, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not a NIfTI volume"),
        (b"\x1f\x8b" + b"x" * 40, "is not a NIfTI volume"),
        (damaged()[:200], "is not a NIfTI volume"),
        (damaged()[:-1], "is cut off: it has"),
        (gzip.compress(damaged()[:-1]), "is cut off: it has"),
        (gzip.compress(damaged(), 9)[:-400], "is cut off: it has"),
        (damaged(affine=None), r"does not say how it is oriented \(neither sform nor qform\)"),
        (damaged(affine=np.zeros((4, 4))), "its affine has no size"),
        (damaged(affine=np.full((4, 4), np.nan)), "damaged header: its affine"),
        (damaged(affine=np.ones((4, 4))), "slices that are not axial"),
        (damaged(affine=OBLIQUE), "slices that are not axial"),
        (damaged(affine=None, qform=(1.0, 1.0, 1.0, 0, 0, 0)), "its qform is not a rotation"),
        (damaged(affine=None, qform=(np.nan, 0, 0, 0, 0, 0)), "its qform is not a rotation"),
        (damaged(intercept=np.inf), "make no Hounsfield units"),
        (damaged(units=7), "damaged header: its affine"),
        (patched(damaged(), 40, "<8h", 3, -1, 2, 3, 1, 1, 1, 1), "damaged header: dim"),
        (patched(damaged(), 40, "<8h", 9, 1, 2, 3, 1, 1, 1, 1), "damaged header: dim"),
        (patched(damaged(), 40, "<8h", 4, 16, 16, 3, 7, 1, 1, 1), "contains several volumes"),
        (patched(damaged(), 40, "<8h", 3, 32000, 32000, 3, 1, 1, 1, 1), "is too large"),
        (patched(damaged(), 70, "<h", 128), "stores values of NIfTI type 128"),
        (patched(damaged(), 108, "<f", np.inf), "vox_offset"),
        (patched(damaged(), 344, "4s", b"ni1\0"), "has its values in another file"),
    ],
)  # fmt: skip
def test_unsound_files_are_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "v.nii"
    path.write_bytes(data)
    with pytest.raises(BadImageError, match=reason):
        load_image(path, 32, CTWindow(*LUNG, number=0))


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    voxels, affine = turned(volume(3, 16), (0, 1, 2), (1, 1, 1))
    voxels = voxels.astype(np.float32)
    voxels[0, 0, 1] = np.nan
    (tmp_path / "v.nii").write_bytes(content(voxels, affine))
    load_image(tmp_path / "v.nii", 32, CTWindow(*LUNG, number=0))
    with pytest.raises(BadImageError, match="infinite or no number, in slice 2"):
        load_image(tmp_path / "v.nii", 32, CTWindow(*LUNG, number=1))
    with pytest.raises(BadImageError, match="has 3 slices, and none of the number 4"):
        load_image(tmp_path / "v.nii", 32, CTWindow(*LUNG, number=3))


def test_a_packed_file_is_unpacked_no_further_than_its_header_says(tmp_path: Path, monkeypatch: Any) -> None:
    """A bomb behind the values is never unpacked; a header that claims too much is refused before anything is."""
    plain = damaged()
    header, values = nifti.unpack(gzip.compress(plain), tmp_path)
    assert (header.slices, values.shape, header.end) == (3, (3, 16, 16), len(plain))
    data = gzip.compress(plain + b"\0" * 50_000_000)
    with pytest.raises(BadImageError, match=f"unpacks to more than the {len(plain):,} bytes of its header"):
        nifti.unpack(data, tmp_path)
    monkeypatch.setattr(nifti, "MAX_VOLUME", 1000)
    with pytest.raises(BadImageError, match="is too large"):
        nifti.unpack(data, tmp_path)


def test_members_of_a_packed_file_are_joined_in_linear_time(tmp_path: Path, monkeypatch: Any) -> None:
    plain = damaged()
    begin = gzip.compress(plain[:600])  # a header is in one member
    parts = [gzip.compress(plain[start : start + 100]) for start in range(600, len(plain), 100)]
    _, values = nifti.unpack(begin + b"".join(parts) + gzip.compress(b"") + b"\0" * 512, tmp_path)
    assert (values == nifti.unpack(plain, tmp_path)[1]).all()
    empty = gzip.compress(b"")
    given: list[int] = []

    class Counted:
        """A decompressor; what it is given was copied."""

        def __init__(self, form: int) -> None:
            self._real = zlib.decompressobj(form)

        def decompress(self, chunk: bytes, most: int) -> bytes:
            given.append(len(chunk))
            return self._real.decompress(chunk, most)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    with monkeypatch.context() as patch:
        patch.setattr(nifti, "zlib", SimpleNamespace(decompressobj=Counted, error=zlib.error))
        packed = begin + empty * 20_000
        assert nifti._gunzip(packed, 600, tmp_path) == plain[:600]
    assert len(given) >= 20_000
    assert max(given) <= nifti._CHUNK < len(packed) / 5, "each member costs a copy of a chunk, not of the whole rest"
    monkeypatch.setattr(nifti, "_MEMBERS", 10)
    with pytest.raises(BadImageError, match="more than 10 gzip members"):
        nifti._gunzip(begin + empty * 20, 600, tmp_path)


def test_damage_of_a_packed_file_is_found_by_its_check_sum(tmp_path: Path) -> None:
    """Each bit that a gzip reader finds wrong; also where what is unpacked has its length all the same."""
    plain = damaged()
    data = gzip.compress(plain)
    accepted = 0
    for at in range(10, len(data)):
        wrong = bytearray(data)
        wrong[at] ^= 1 << at % 8
        try:
            gzip.decompress(bytes(wrong))
        except (OSError, EOFError, zlib.error):
            with pytest.raises(BadImageError):
                nifti.unpack(bytes(wrong), tmp_path)
        else:
            accepted += 1
    assert accepted < len(data) / 10
    with pytest.raises(BadImageError, match="the check sum at its end is missing"):
        nifti.unpack(data[:-3], tmp_path)


# dataset=nifti


def words(root: Path, labels: Path, *more: str) -> list[str]:
    return [
        "dataset=nifti", f"dataset.root={root}", f"dataset.labels={labels}", "model=squeezenet1_1",
        "model.weights=none", "finetune=full", "logger=none", "dataset.image_size=32", "dataset.batch_size=4",
        "trainer.max_epochs=1", *more,
    ]  # fmt: skip


def hospital(root: Path, patients: int = 12) -> Path:
    rows = []
    for number in range(patients):
        name = f"v{number}.nii{'.gz' * (number % 2)}"
        nifti_volumes.write(root / name, volume(4, 40, number, ill=number % 2 == 1), *AXES[number])
        rows.append((name, "COVID" if number % 2 else "non-COVID", f"p{number}"))
    return write_table(root.parent / "labels.csv", ("path", "label", "patient_id"), rows)


def build(root: Path, labels: Path, *more: str) -> Manifest:
    return registry.build(load(words(root, labels, *more)))


def test_volumes_are_slices_of_their_patients(tmp_path: Path) -> None:
    labels = hospital(tmp_path / "root", 4)
    manifest = build(tmp_path / "root", labels)
    assert len(manifest) == 16
    assert {sample.patient_id for sample in manifest.samples} == {"p0", "p1", "p2", "p3"}
    assert manifest.samples[5].sample_id == "v1.nii.gz/0002"
    assert not [note for note in manifest.notes if "dataset.labels" in note.text or "patient_id" in note.text]
    middle = build(tmp_path / "root", labels, "dataset.slices=middle", "dataset.slice_step=2")
    assert [sample.sample_id[-4:] for sample in middle.samples] == ["0003"] * 4
    lung = build(tmp_path / "root", labels, "dataset.slices=lung")
    assert {sample.sample_id[-4:] for sample in lung.samples} == {"0002", "0003"}


def test_a_volume_without_a_patient_is_one(tmp_path: Path) -> None:
    nifti_volumes.write(tmp_path / "root" / "a.nii", volume(3))
    nifti_volumes.write(tmp_path / "root" / "b.nii", volume(3, seed=1))
    nifti_volumes.write(tmp_path / "root" / "c.nii", volume(3, seed=2))
    labels = write_table(tmp_path / "l.csv", ("path", "label"), [("a.nii", "normal"), ("b.nii", "covid")])
    manifest = build(tmp_path / "root", labels)
    assert {sample.patient_id for sample in manifest.samples} == {"a.nii", "b.nii"}
    texts = [note.text for note in manifest.notes]
    assert "2 volumes have no patient_id: each is taken for a patient of its own." in texts
    assert "dataset.labels has no row for 1 NIfTI file under dataset.root: not used." in texts


def test_a_file_under_two_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.nii").write_bytes(damaged())
    (tmp_path / "w.nii").symlink_to("v.nii")
    labels = write_table(tmp_path / "l.csv", ("path", "label"), [("v.nii", "normal"), ("w.nii", "covid")])
    with pytest.raises(UserError, match="lines 2 and 3 name the same file"):
        build(tmp_path, labels)


def test_absent_and_unsound_volumes_are_refused(tmp_path: Path) -> None:
    nifti_volumes.write(tmp_path / "root" / "a.nii", volume(3))
    (tmp_path / "root" / "b.nii").write_bytes(damaged(affine=None))
    labels = write_table(tmp_path / "l.csv", ("path", "label"), [("a.nii", "normal"), ("b.nii", "covid")])
    with pytest.raises(UserError, match=r"1 of 2 volumes cannot be used:\n.*b\.nii does not say how it is oriented"):
        build(tmp_path / "root", labels)
    labels = write_table(tmp_path / "l.csv", ("path", "label"), [("a.nii", "normal"), ("x.nii", "covid")])
    with pytest.raises(UserError, match=r"1 of 2 files are not there, first .*x\.nii \(line 3\)"):
        build(tmp_path / "root", labels)


def test_a_cache_reads_each_volume_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for its hash, and once for all of its slices; the images are those of the slices."""
    units = [volume(6, seed=number) for number in range(3)]
    for number, each in enumerate(units):
        nifti_volumes.write(tmp_path / "root" / f"{number}.nii.gz", each)
    rows = [(f"{number}.nii.gz", "covid" if number else "normal") for number in range(3)]
    manifest = build(tmp_path / "root", write_table(tmp_path / "l.csv", ("path", "label"), rows))
    unpack, seen = nifti.unpack, []
    monkeypatch.setattr(nifti, "unpack", lambda data, path: seen.append(path.name) or unpack(data, path))
    cache = open_cache(manifest, size=40, root=tmp_path / "cache", workers=1)
    assert sorted(seen) == ["0.nii.gz", "1.nii.gz", "2.nii.gz"]
    for row, sample in enumerate(manifest.samples):
        assert np.array_equal(cache[row], windowed(units[int(sample.sample_id[0])][row % 6], *LUNG))


@pytest.mark.slow
def test_the_same_slice_in_three_forms_is_predicted_alike(tmp_path: Path) -> None:
    """A run on volumes predicts DICOM, volumes of four affines and PNG of its own windowing within 1e-6."""
    labels = hospital(tmp_path / "root")
    given = [*words(tmp_path / "root", labels), f"paths.runs_dir={tmp_path}/runs", f"paths.cache_dir={tmp_path}/cache"]
    assert cli.main(["train", *given, "run.name=r"]) == 0
    units = volume(3, 40, 77, ill=True)
    new = tmp_path / "new"
    for order, signs in (AXES[0], AXES[6], AXES[21], AXES[35]):
        nifti_volumes.write(new / f"{order}{signs}.nii.gz", units, order, signs)
    for number, values in enumerate(units):
        ct_slices.write(new / f"{number}.dcm", values, ImagePositionPatient=[0, 0, 5 * number])
        Image.fromarray(windowed(values, *LUNG)).save(new / f"{number}.png")
    assert cli.main(["predict", str(tmp_path / "runs/nifti/r"), str(new), f"output={tmp_path}/out"]) == 0
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    found: dict[float, list[list[float]]] = {}
    for row in rows:
        place = float(row["position_mm"]) / 5 if row["position_mm"] else float(Path(row["file"]).stem)
        found.setdefault(round(place), []).append([float(row["logit_non-COVID"]), float(row["logit_COVID"])])
    assert {place: len(each) for place, each in found.items()} == {0: 6, 1: 6, 2: 6}
    for each in found.values():
        assert np.ptp(np.array(each), axis=0) == pytest.approx([0, 0], abs=1e-6)
    assert rows[0]["file"].endswith(".nii.gz slice 1")


@pytest.mark.realdata
def test_a_real_slice_is_the_same_as_nifti_and_as_png(tmp_path: Path, real_data: Path) -> None:
    folder = real_data / "covidctmd" / "COVID" / "P001"
    paths = sorted(folder.glob("*.dcm"))[:2]
    read = [pydicom.dcmread(path) for path in paths]
    units = np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in read])
    for index in (0, 9, 22, 41):
        path = nifti_volumes.write(tmp_path / "v.nii.gz", units, *AXES[index])
        for number, source in enumerate(paths):
            Image.fromarray(windowed(units[number], *LUNG)).save(tmp_path / "s.png")
            images = [
                load_image(source, 224, CTWindow(*LUNG)),
                load_image(path, 224, CTWindow(*LUNG, number=number)),
                load_image(tmp_path / "s.png", 224),
            ]
            assert all(np.array_equal(images[0], image) for image in images)
