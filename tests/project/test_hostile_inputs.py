"""Images, weights, checkpoints, tables, archives and settings from strangers: one line at once, and bounded memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import time
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ddtl.audits.file_metadata import read_metadata
from ddtl.config import where
from ddtl.config.compose import expansion
from ddtl.config.load import load
from ddtl.data.datasets import folder, table
from ddtl.data.download import archives
from ddtl.data.images import dicom
from ddtl.data.images.bounds import MAX_CHUNKS, MAX_PAGES, MAX_PARTS, MAX_SCANS, MAX_SEGMENTS
from ddtl.data.images.decode import decode_gray, load_image
from ddtl.data.images.dicom_header import SUFFIXES
from ddtl.data.images.image_file import BadImageError, read_bytes
from ddtl.data.images.raster import is_deep
from ddtl.data.manifest import Manifest, Sample
from ddtl.data.splits import exclusion
from ddtl.inference import inputs
from ddtl.models.network import Network
from ddtl.models.weights import Weights, load_into, locate
from ddtl.training import checkpoints
from ddtl.utils.errors import UserError
from tests.support import ct_slices, hostile_files
from tests.support.robust import noise, png

PATH = Path("image")


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What a call gives; it may take so much of this process's time, and five times that on a slow machine."""
    start = time.process_time()
    try:
        return call()
    finally:
        assert time.process_time() - start < 5 * seconds


# ---- files that are no files


def pipe(path: Path) -> None:
    os.mkfifo(path)


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(40 << 30)


NO_FILES = {"pipe": pipe, "endless": zero, "folder": Path.mkdir, "sparse": sparse, "link to itself": circle}


def weights(path: Path) -> None:
    locate(load(["model.weights=none"]).model.model_copy(update={"weights": str(path)}), None)


def exclude(path: Path) -> None:
    samples = (Sample("a", Path("a"), 0), Sample("b", Path("b"), 1))
    exclusion.leave_out(Manifest("mine", ("a", "b"), samples, grouping="none"), path)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "an image": ("a.png", read_bytes),
    "an image's facts": ("a.png", lambda path: read_metadata([path, path])),
    "a DICOM file": ("a.dcm", dicom.read_slice),
    "a DICOM file's pixels": ("a.dcm", dicom.decode_slice),
    "a table": ("a.csv", lambda path: table.read_table(path, ("path",))),
    "a list to exclude": ("a.csv", exclude),
    "weights": ("a.pth", weights),
    "safetensors": ("a.safetensors", weights),
    "a checkpoint": ("last.ckpt", lambda path: checkpoints.read(path, {})),
    "an archive": ("a.zip", lambda path: list(archives.members(path))),
    "settings": ("a.yaml", where.text_of),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, reader: str, kind: str) -> None:
    name, read = READERS[reader]
    path = tmp_path / name
    NO_FILES[kind](path)
    with pytest.raises(UserError) as raised:
        within(1, lambda: read(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    words = {"pipe": "regular", "endless": "regular", "folder": "folder", "sparse": "too large"}
    wanted = "No such file" if kind == "folder" and read is weights else words.get(kind, "")  # the folder of a run
    assert wanted in str(raised.value)


def test_predict_names_what_is_no_file_and_reads_the_rest(tmp_path: Path) -> None:
    pipe(tmp_path / "pipe.png")
    zero(tmp_path / "zero.dcm")
    circle(tmp_path / "circle.png")
    sparse(tmp_path / "sparse.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    Image.fromarray(noise(1, size=64)).save(tmp_path / "good.png")
    ct_slices.write(tmp_path / "good.dcm", np.linspace(-1000, 400, 64 * 64).round().reshape(64, 64))
    found = inputs.find([str(tmp_path)], by_folder=False, progress=lambda done, total: None)
    outcomes = list(inputs.decode_all(found.files, 32, ahead=2, workers=2))
    good = [one.file.path.name for one in outcomes if isinstance(one.image, np.ndarray)]
    bad = {error.path.name for error in found.bad}
    bad |= {one.file.path.name for one in outcomes if not isinstance(one.image, np.ndarray)}
    assert sorted(good) == ["good.dcm", "good.png"]
    assert bad == {"pipe.png", "zero.dcm", "circle.png", "sparse.png"}


def test_predict_stays_in_the_folders_that_are_named(tmp_path: Path) -> None:
    """An archive of a stranger may contain links to all of a disk."""
    for name in ("given", "given/inner", "elsewhere"):
        (tmp_path / name).mkdir()
        Image.fromarray(noise(1, size=32)).save(tmp_path / name / f"{Path(name).name}.png")
    (tmp_path / "given" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "given" / "up").symlink_to("..")
    (tmp_path / "given" / "root").symlink_to("/")
    (tmp_path / "given" / "again").symlink_to("inner")
    (tmp_path / "link").symlink_to(tmp_path / "given")
    for named in ("given", "link"):
        found = inputs.find([str(tmp_path / named)], by_folder=False, progress=lambda done, total: None)
        assert sorted(one.path.name for one in found.files) == ["given.png", "inner.png"]
        assert {error.path.name for error in found.bad} == {"out", "up", "root"}
        assert all("is a link to a folder outside of" in error.reason for error in found.bad)


def test_a_file_that_this_user_may_not_see_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        Image.fromarray(noise(1, size=32)).save(tmp_path / f"{name}.png")

    def kind(path: Path) -> str:
        if path.name == "a.png":
            raise PermissionError(13, "Permission denied")
        return "image"

    monkeypatch.setattr(inputs, "_kind", kind)
    found = inputs.find([str(tmp_path)], by_folder=False, progress=lambda done, total: None)
    assert [one.path.name for one in found.files] == ["b.png"]
    assert [error.reason for error in found.bad] == ["cannot be read: Permission denied"]


def test_a_deep_folder_is_one_line(tmp_path: Path) -> None:
    deep = tmp_path / "images"
    for name in ("a", "b"):
        (deep / name).mkdir(parents=True)
        Image.fromarray(noise(1, size=32)).save(deep / name / "1.png")
    here = os.open(deep / "a", os.O_RDONLY)
    for _ in range(1500):  # deeper than Python can call itself
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        with pytest.raises(UserError, match="is more than 64 folders deep"):
            folder.build_manifest("mine", deep, None, None, None)
        found = inputs.find([str(deep)], by_folder=False, progress=lambda done, total: None)
    finally:
        subprocess.run(["rm", "-rf", str(deep / "a" / "d")], check=True)  # pytest could not
    assert len(found.files) == 2
    assert "64 folders deep" in found.bad[0].reason


# ---- what asks for too much


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, *chunks: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


def tiff_of(*more: tuple[int, int, int, int], body: bytes = b"", following: int = 0, **changed: int) -> bytes:
    """A TIFF of one directory, 8 bits, 4 × 4; ``more`` entries are (tag, type, count, value)."""
    usual = {"w": (256, 4), "h": (257, 4), "bits": (258, 1), "packing": (259, 1), "kind": (262, 1), "at": (273, 8),
             "channels": (277, 1), "rows": (278, 4), "bytes": (279, 16)}  # fmt: skip
    usual["bits"] = (258, 8)
    entries = [(tag, 4, 1, changed.get(name, value)) for name, (tag, value) in usual.items()]
    entries = sorted([*entries, *more])
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<4sIH", b"II*\0", 8, len(entries)) + packed + struct.pack("<I", following) + body


def pages(count: int) -> bytes:
    one = 2 + 12 * 9 + 4
    following = [8 + one * (number + 1) for number in range(count - 1)]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(tiff_of(following=at)[8:] for at in [*following, 0])


def jpeg(progressive: bool = True, side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(1, size=side)).save(buffer, "JPEG", progressive=progressive)
    return buffer.getvalue()


def scans(count: int) -> bytes:
    data = jpeg()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * count + b"\xff\xd9"


def hidden_scans(count: int) -> bytes:
    """Behind a comment that holds what looks like the end of the image."""
    data = scans(count)
    at = data.index(b"\xff\xda")
    comment = b"\xff\xfe\0\x06\xff\xd9\xff\xd9"
    return data[:at] + comment + data[at:]


def overlapping(count: int, size: int) -> bytes:
    return tiff_of(*((50_000 + i, 4, size // 4, 8) for i in range(count)), body=bytes(size))


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a PNG of 4 gigapixels": (lambda: png_of(65_535, 65_535), "is too large: 4295 megapixels"),
    "a PNG of one long row": (lambda: png_of(1_000_000, 1, chunk(b"IDAT", b"")), "over the limit of 65,535 a side"),
    "a PNG of many chunks": (
        lambda: png_of(4, 4, chunk(b"tEXt", b"") * (MAX_CHUNKS + 1)), f"contains more than {MAX_CHUNKS:,} chunks"
    ),
    "a PNG whose EXIF repeats itself": (
        lambda: png_of(4, 4, chunk(b"eXIf", overlapping(500, 1 << 20))), "its tags contain more values"
    ),
    "a JPEG of 3,000 scans": (lambda: scans(3000), f"contains {MAX_SCANS + 1} or more scans"),
    "a JPEG of 3,000 scans behind an end": (lambda: hidden_scans(3000), f"contains {MAX_SCANS + 1} or more scans"),
    "a JPEG of many comments": (
        lambda: jpeg()[:2] + b"\xff\xfe\0\2" * (MAX_SEGMENTS + 1) + jpeg()[2:], f"more than {MAX_SEGMENTS:,} segments"
    ),
    "a JPEG of fill": (lambda: jpeg()[:2] + b"\xff" * (8 << 20) + jpeg()[2:], "more than 64 kB between its segments"),
    "a JPEG of nothing": (lambda: jpeg()[:2] + bytes(8 << 20) + jpeg()[2:], "more than 64 kB between its segments"),
    "a JPEG of endless fill": (lambda: jpeg()[:2] + b"\xff" * (8 << 20), "more than 64 kB between its segments"),
    "a JPEG of fill behind an end": (
        lambda: jpeg()[:2] + b"\xff\xd9" + b"\xff" * (8 << 20) + jpeg()[2:], "more than 64 kB between its segments"
    ),
    "a JPEG whose EXIF repeats itself": (
        lambda: jpeg()[:2] + 40 * _exif_part(overlapping(3000, 60_000)[: 65_000 * 2]) + jpeg()[2:], "more values"
    ),
    "a TIFF of 40,000 pages": (lambda: pages(40_000), f"contains more than {MAX_PAGES:,} pages"),
    "a TIFF of 3 pages": (lambda: pages(3), "contains 3 pages: save each as a file of its own"),
    "a TIFF of a huge tile": (
        lambda: tiff_of((322, 4, 1, 1 << 20), (323, 4, 1, 1 << 20), (324, 4, 1, 8), (325, 4, 1, 9)), "GB of pixels"
    ),
    "a TIFF of many channels": (lambda: tiff_of(w=8000, h=8000, channels=60_000), "GB of pixels"),
    "a TIFF of many strips": (
        lambda: tiff_of(body=bytes(4 * MAX_PARTS + 8)).replace(
            struct.pack("<HHII", 273, 4, 1, 8), struct.pack("<HHII", 273, 4, MAX_PARTS + 1, 122)
        ), f"is in more than {MAX_PARTS:,} parts",
    ),
    "a TIFF whose tags repeat themselves": (lambda: overlapping(500, 1 << 20), "its tags contain more values"),
    "a TIFF of many tags": (
        lambda: tiff_of(*((50_000 + i % 9_000, 4, 1, 8) for i in range(30_000))), "more tags than an image"
    ),
    "a TIFF of JPEGs that never end": (
        lambda: tiff_of(packing=7, body=(b"\xff\xd8" + b"\xff\xfe\0\2" * 50) * 10_000), "segments, as no JPEG"
    ),
    "a JPEG of much EXIF": (
        lambda: jpeg()[:2] + 80 * _exif_part(bytes(60_000)) + jpeg()[2:], "contains more than 4 MB of EXIF"
    ),
    "a TIFF of many fractions": (
        lambda: tiff_of((50_000, 5, 600_000, 122), body=bytes(8 * 600_000)), "its tags contain more values"
    ),
    "a TIFF of an unknown compression": (lambda: tiff_of(packing=48_124), "compression 48124, which is not read"),
    "a BMP of runs": (
        lambda: hostile_files.rle_bmp().replace(struct.pack("<ii", 40, 48), struct.pack("<ii", 4000, 4000)),
        "is a run-length encoded BMP of 16.0 megapixels",
    ),
}  # fmt: skip


def _exif_part(block: bytes) -> bytes:
    body = b"Exif\0\0" + block[:65_000]
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize("name", BOMBS)
def test_what_asks_for_too_much_is_refused_before_it_is_decoded(name: str) -> None:
    make, reason = BOMBS[name]
    data = make()
    for read in (decode_gray, is_deep):
        if reason.startswith("contains 3 pages") and read is is_deep:
            continue
        with pytest.raises(BadImageError, match=reason.replace("(", "\\(")):
            within(0.5, lambda read=read: read(data, PATH))


def test_what_inflates_further_than_its_image_is_cut_there() -> None:
    """A PNG and TIFFs whose pixels go on for a gigabyte are the image, or are refused; never the gigabyte."""
    rows = zlib.compress(b"".join(b"\0" + bytes(range(100)) for _ in range(100)) + bytes(1 << 27), 9)
    gray = within(2, lambda: decode_gray(png_of(100, 100, chunk(b"IDAT", rows)), PATH))
    assert np.array_equal(np.asarray(gray)[5], np.arange(100))
    deep = zlib.compress(bytes(1 << 27), 9)
    data = tiff_of(body=deep, bits=16, packing=8, at=122, bytes=len(deep))
    with pytest.raises(BadImageError):
        within(2, lambda: decode_gray(data, PATH))


def test_ordinary_files_at_the_limits_are_read() -> None:
    """Scans, comments, chunks and tags as far as they may go cost no file."""
    picture = noise(2, size=32)
    assert np.array_equal(np.asarray(decode_gray(png(picture, *[(b"tEXt", b"a\0b")] * 5_000), PATH)), picture)
    plain = np.asarray(decode_gray(jpeg(), PATH))
    comments = jpeg()[:2] + b"\xff\xfe\0\2" * 5_000 + jpeg()[2:]
    assert np.array_equal(np.asarray(decode_gray(comments, PATH)), plain)
    fill = jpeg()[:2] + b"\xff" * 60_000 + jpeg()[2:]
    assert np.array_equal(np.asarray(decode_gray(fill, PATH)), plain)
    assert np.array_equal(np.asarray(decode_gray(jpeg() + b"\xff" * 200_000, PATH)), plain)
    tables = io.BytesIO()  # a JPEG without a scan, and then the image
    Image.fromarray(noise(3, size=600)).save(tables, "TIFF", compression="jpeg")
    assert decode_gray(tables.getvalue() + bytes(100_000), PATH).size == (600, 600)
    behind = jpeg() + b"\xff\xda\0\2" * 5_000  # another file's bytes behind the image
    assert np.array_equal(np.asarray(decode_gray(behind, PATH)), plain)


# ---- DICOM


def written(path: Path, **tags: Any) -> Path:
    values = np.linspace(-1000, 400, 48 * 40).round().reshape(48, 40)
    return ct_slices.write(path, values, **tags)


def with_text(path: Path, keyword: str, text: bytes) -> Path:
    """A slice with an element of another text than pydicom would write."""
    import pydicom
    from pydicom.dataelem import DataElement

    written(path)
    ds = pydicom.dcmread(path)
    element = DataElement(keyword, "LO", "@" * (len(text) + len(text) % 2))
    ds[keyword] = element
    ds.save_as(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"@" * (len(text) + len(text) % 2), text.ljust(len(text) + len(text) % 2)))
    return path


HEADERS = [
    (keyword, text)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber", "RescaleSlope", "Rows",
                    "BitsAllocated", "SamplesPerPixel", "PatientID", "PixelPaddingValue", "NumberOfFrames")
    for text in (b"NaN", b"inf\\inf\\inf", b"1e308\\1e308\\-1e308", b"1e400", b"0", b"65535", b"-1", b"9" * 60,
                 b"1e200\\1e200\\1e200\\1e200\\1e200\\1", b"\xff\xfe\x1b]0;x\x07", b"1" * 4000 + b"x", b"1" * 30_000)
]  # fmt: skip


def test_whatever_one_header_says_the_others_are_read_and_in_order(tmp_path: Path) -> None:
    """Every hostile value in one series with three good slices, whose order and number it does not change."""
    for number, (keyword, text) in enumerate(HEADERS):
        with_text(tmp_path / f"x{number:03}.dcm", keyword, text)
    for name, position in (("c", 1), ("a", 2), ("b", 3)):
        written(tmp_path / f"{name}.dcm", ImagePositionPatient=[0, 0, position], InstanceNumber=position)
    start = time.process_time()
    found = inputs.find([str(tmp_path)], by_folder=False, progress=lambda done, total: None)
    outcomes = list(inputs.decode_all(found.files, 32, ahead=4, workers=2))
    assert time.process_time() - start < 20
    good = [one.file.path.stem for one in outcomes if isinstance(one.image, np.ndarray)]
    assert [name for name in good if name in "abc"] == ["c", "a", "b"]
    reasons = [one.image.reason for one in outcomes if not isinstance(one.image, np.ndarray)]
    reasons += [error.reason for error in found.bad]
    assert len(good) + len(reasons) == len(HEADERS) + 3
    assert len(reasons) > 30
    assert all(reason.isprintable() and "not known (" not in reason for reason in reasons), reasons
    for picture in found.files:
        assert picture.slice is not None
        assert picture.slice.position is None or abs(picture.slice.position) < 1e13
        picture.patient.encode()


def test_a_long_header_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.dcm").read_bytes()
    at = whole.index(b"\x28\x00\x02\x00")  # the group of the image
    many = b"".join(struct.pack("<HH2sH", 0x0021, 0x1000 + i % 0xE000, b"LO", 0) for i in range(120_000))
    (tmp_path / "many.dcm").write_bytes(whole[:at] + many + whole[at:])
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    nested = b"".join(struct.pack("<HH2sHI", 0x0021, 0x1001, b"SQ", 0, 0xFFFFFFFF) + item for _ in range(50_000))
    (tmp_path / "nested.dcm").write_bytes(whole[:at] + nested + whole[at:])
    with pytest.raises(BadImageError, match="has a header that is longer than that of any slice"):
        within(2, lambda: dicom.read_slice(tmp_path / "many.dcm"))
    with pytest.raises(BadImageError, match="is cut off or damaged"):
        within(2, lambda: dicom.read_slice(tmp_path / "nested.dcm"))


def test_fragments_without_end_are_refused(tmp_path: Path) -> None:
    from pydicom.uid import JPEGLosslessSV1

    ds = ct_slices.dataset(np.zeros((48, 40)), bits=12)
    ct_slices.compressed(ds, JPEGLosslessSV1)
    ds.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0" * 20_000
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(BadImageError, match="in 10,000 parts or more"):
        within(2, lambda: dicom.decode_slice(tmp_path / "a.dcm"))


def test_whatever_a_decoder_raises_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(data: bytes, path: Path) -> bool:
        raise MemoryError if path.name == "a.png" else AssertionError("SECRET")

    for name in ("a.png", "b.png"):
        Image.fromarray(noise(3, size=32)).save(tmp_path / name)
    monkeypatch.setattr(inputs, "is_deep", fail)
    found = inputs.find([str(tmp_path)], by_folder=False, progress=lambda done, total: None)
    images = [one.image for one in inputs.decode_all(found.files, 32, ahead=2, workers=2)]
    assert [image.reason for image in images if isinstance(image, BadImageError)] == [
        "needs more memory to decode than there is",
        "is damaged, or of a kind that is not known (AssertionError)",
    ]


def test_files_changed_by_a_seed_are_read_or_refused_in_a_line() -> None:
    outcomes = list(hostile_files.run(0, 220))
    wrong = [(one, hostile_files.faults(one)) for one in outcomes if hostile_files.faults(one)]
    assert not wrong
    assert {one.kind for one in outcomes} == set(hostile_files.KINDS)
    read = sum(not one.reason for one in outcomes)
    assert 20 < read < 200, "the changes reach the decoders, and some break the file"


def test_every_kind_is_read_before_it_is_changed(tmp_path: Path) -> None:
    for number, kind in enumerate(hostile_files.KINDS):
        suffix = min(SUFFIXES) if kind.startswith("DICOM") else ".png"
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(hostile_files.whole(kind))
        assert hostile_files.examine(path) == "", kind
    assert load_image(tmp_path / "0.png", 16).shape == (16, 16)


# ---- weights and checkpoints


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network(load(["model=squeezenet1_1", "model.weights=none"]).model, n_classes=2)


def refused(network: Network, path: Path) -> str:
    with pytest.raises(UserError) as raised:
        within(10, lambda: load_into(network, Weights(path.name, path, "0"), "squeezenet1_1"))
    return str(raised.value)


def changed(network: Network, change: Callable[[torch.Tensor], object]) -> dict[str, object]:
    """The network's weights, the first of them changed."""
    state: dict[str, object] = OrderedDict(network.state_dict())
    first = next(iter(state))
    state[first] = change(network.state_dict()[first])
    return state


ODD: dict[str, tuple[Callable[[torch.Tensor], object], str]] = {
    "of stride 0": (lambda t: torch.zeros(1).expand(t.shape), "claims more values than the file has"),
    "of stride 0 and vast": (lambda t: torch.zeros(1).expand(1 << 40), "claims more values than the file has"),
    "that overlaps": (lambda t: torch.zeros(600).as_strided(t.shape, (1, 1, 1, 1)), "claims more values"),
    "sparse": (lambda t: t.to_sparse(), "is sparse, quantised or nested"),
    "quantised": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "is sparse, quantised or nested"),
    "complex": (lambda t: t.to(torch.complex64), "has values of the type complex64"),
    "of 8 bits": (lambda t: t.to(torch.float8_e4m3fn), "has values of the type float8_e4m3fn"),
    "whole": (lambda t: t.to(torch.int64), "has values of the type int64"),
    "without values": (lambda t: torch.empty_like(t, device="meta"), "has no values"),
    "NaN": (lambda t: torch.full_like(t, float("nan")), "contains values that are infinite or no number"),
    "infinite": (lambda t: t.double() * 1e300, "contains values that are infinite or no number"),
    "of another shape": (lambda t: t[:1].clone(), "1 of another shape"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_that_is_not_plain_is_refused_before_it_is_used(
    network: Network, tmp_path: Path, name: str, zipped: bool
) -> None:
    change, reason = ODD[name]
    path = tmp_path / "weights.pth"
    torch.save(changed(network, change), path, _use_new_zipfile_serialization=zipped)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    text = refused(network, path)
    assert reason in text or (name == "of 8 bits" and not zipped)  # which torch does not load
    assert str(path) in text
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_the_hint_of_what_would_fit_computes_nothing(network: Network, tmp_path: Path) -> None:
    """A first layer of three colours, whose sum would take 2 TB."""
    vast = torch.zeros(1).expand(1 << 36, 3, 3, 3)
    torch.save({"conv1.weight": vast, "features.0.weight": vast}, tmp_path / "weights.pth")
    assert "claims more values" in refused(network, tmp_path / "weights.pth")
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "weights.pth")
    assert "does not fit squeezenet1_1" in refused(network, tmp_path / "weights.pth")


def test_an_archive_that_only_torch_takes_for_one_is_looked_at(network: Network, tmp_path: Path) -> None:
    """Compressed parts, in a file that Python's test for archives does not know: bytes stand behind its end."""
    path = tmp_path / "weights.pth"
    torch.save(dict(network.state_dict()), path)
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    assert "its parts are compressed" in refused(network, packed)
    packed.write_bytes(packed.read_bytes() + b"behind" * 20_000)
    assert "Fetch it again" in refused(network, packed)


def test_names_that_unfold_are_refused(network: Network, tmp_path: Path) -> None:
    """A dict's key of tuples within tuples, each twice: 60 levels are 2**60 values to be hashed."""
    packed = b"\x80\x02}" + pickled(60) + b"K\x01s."
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", packed)
        archive.writestr("archive/version", b"3\n")
    assert "its names are longer" in refused(network, path)
    path.write_bytes(packed)
    assert "its names are longer" in refused(network, path)
    torch.save({"state_dict": dict(network.state_dict()), "betas": [(0.9, 0.999)] * 1000}, path)
    load_into(network, Weights("a", path, "0"), "squeezenet1_1")


def pickled(levels: int) -> bytes:
    """Tuples within tuples, each twice."""
    found = b"K\x01\x85q\x00"
    for level in range(levels):
        found += b"0h" + bytes([level]) + b"h" + bytes([level]) + b"\x86q" + bytes([level + 1])
    return found


def test_a_long_header_of_safetensors_is_refused(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 90 << 20) + b"{")
        file.truncate(200 << 20)
    assert "Fetch it again" in refused(network, path)
    save_file({"a" * 2000: torch.zeros(1)}, path)
    assert "longer names, than any model" in refused(network, path)


def checkpoint(network: Network) -> dict[str, Any]:
    return {
        "epoch": 1, "global_step": 10, "optimizer_states": [], "lr_schedulers": [], "loops": {}, "callbacks": {},
        "state_dict": {f"network.{name}": value for name, value in network.state_dict().items()},
    }  # fmt: skip


def test_a_checkpoint_is_whole_or_one_line(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    good, ours = checkpoint(network), network.state_dict()
    torch.save(good, path)
    assert checkpoints.read(path, ours)["epoch"] == 1
    whole = path.read_bytes()
    bad: dict[str, Any] = {
        "nothing": b"", "cut": whole[: len(whole) // 2], "cut late": whole[:-30], "text": b"not a checkpoint",
        "list": [],
        **{f"no {key}": {k: v for k, v in good.items() if k != key} for key in good},
        "a mean of another kind": {**good, "callbacks": {"mean_of_last": {"mean": {"a": torch.zeros(1)}}}},
        "no weight": {**good, "state_dict": {}},
        "vast moments": {**good, "optimizer_states": [{"state": {0: {"exp": torch.zeros(1).expand(1 << 40)}}}]},
    }  # fmt: skip
    for name, content in bad.items():
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(UserError) as raised:
            checkpoints.read(path, ours)
        text = str(raised.value)
        assert text.startswith(f"{path}: is "), name
        assert text.endswith(f"rm -r {path.parent}"), name
        assert "\n" not in text
    path.unlink()
    with pytest.raises(UserError, match="is not there"):
        checkpoints.read(path, ours)


# ---- tables, archives, settings


def test_tables_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for content, reason in (
        ("path,label\n" + "x" * 2_000_000, "line 2: has 2,000,000 characters"),
        ("path," + ",".join(f"c{i}" for i in range(5_000)) + "\n", "or 1,000 columns"),
        ("root:x:0:0:hunter2\n", "must name the columns."),
    ):
        path.write_text(content)
        with pytest.raises(UserError) as raised:
            within(3, lambda: table.read_table(path, ("path", "label")))
        assert reason in str(raised.value)
        assert "hunter2" not in str(raised.value)


def test_a_table_of_contents_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.png", b"")
    end = bytearray(path.read_bytes()[-22:])
    struct.pack_into("<I", end, 12, 1 << 30)
    with path.open("r+b") as file:
        file.truncate(2 << 30)
        file.seek(0, os.SEEK_END)
        file.write(end)
    with pytest.raises(UserError, match="table of contents that is longer"):
        within(1, lambda: list(archives.members(path)))


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
SETTINGS: dict[str, str] = {
    "laughs": LAUGHS,
    "itself": "a: &a [*a]\n",
    "deep": "a: " + "[" * 20_000 + "]" * 20_000,
    "a date that is none": "a: 2024-99-99\n",
    "a long number": "seed: " + "9" * 5_000,
    "references": "# @package _global_\nrun:\n"
    + "".join(f"  x{i + 1}: ${{run.x{i}}}${{run.x{i}}}\n" for i in range(40)),
}


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import shutil

    shutil.copytree(where.conf_dir(), tmp_path / "conf")
    monkeypatch.setattr(where, "conf_dir", lambda: tmp_path / "conf")
    monkeypatch.setattr("ddtl.config.compose.conf_dir", lambda: tmp_path / "conf")
    return tmp_path / "conf"


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_unfold_are_one_line_at_once(conf: Path, name: str) -> None:
    (conf / "experiment" / "x.yaml").write_text(SETTINGS[name])
    with pytest.raises(UserError) as raised:
        within(2, lambda: load(["experiment=x"]))
    assert "\n" not in str(raised.value)
    assert "under conf" in str(raised.value) or str(conf) in str(raised.value)


def test_ordinary_aliases_and_what_editors_leave_are_no_matter(conf: Path) -> None:
    (conf / "experiment" / ".#x.yaml").symlink_to("user@host.1234")
    (conf / "experiment" / "x.yaml").write_text(
        "# @package _global_\nseed: &n 7\ndataset:\n  split_seed: *n\n  batch_size: ${trainer.max_epochs}\n"
    )
    config = load(["experiment=x", "trainer.max_epochs=9"])
    assert (config.seed, config.dataset.split_seed, config.dataset.batch_size) == (7, 7, 9)


def test_a_pipe_among_the_settings_is_named(conf: Path) -> None:
    pipe(conf / "experiment" / "x.yaml")
    with pytest.raises(UserError, match=r"experiment/x\.yaml: is not a regular file"):
        within(2, lambda: load(["experiment=x"]))


def test_references_are_counted_as_copies() -> None:
    assert expansion({"a": 1, "b": "${a}", "c": ["${b}", "${..a}", "${c[0]}"]}) < 30
    tree = {"x0": "a", **{f"x{i + 1}": f"${{x{i}}}-${{.x{i}}}" for i in range(30)}}
    assert expansion(tree) > 2**30
    assert expansion({"a": {"b": "${a}"}}) < 100  # leads back to itself: refused when it is resolved
    assert expansion({str(i): "${oc.decode:${oc.env:DDTL_X,1}}" for i in range(50)}) < 1000  # a value each
    assert expansion({f"a{i}": "${b.${c}}" for i in range(20)}) > 100_000


def test_a_transfer_syntax_that_is_none_is_not_quoted() -> None:
    from ddtl.data.images.dicom_header import _syntax_name

    for odd in ("\x00SECRET NAME" * 20, "1.2.840.10008.1.2.1.99\x00UI SECRET", "1." * 40):
        assert _syntax_name(odd) == "of a damaged header"
    assert _syntax_name("1.2.840.113619.5.2") == "1.2.840.113619.5.2"
