"""Compressed pixels: equal to another decoder's to the value, and a decoder that fails costs one file."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1

from ddtl.data.images import dicom, dicom_header, dicom_pixels, pixel_decoder
from ddtl.data.images.dicom_header import HeaderError
from ddtl.data.images.image_file import BadImageError
from ddtl.data.images.pixel_decoder import Decoder
from ddtl.inference.inputs import decode_all, find
from tests.project.test_robust_dicom import HU, change_frame, compressed, text_tag, window
from tests.support import ct_slices

STORED = Path(__file__).resolve().parents[1] / "support" / "covidctmd_pixels.csv"


def values(path: Path) -> np.ndarray:
    """The stored values of a file, as ``ddtl predict`` reads them."""
    with path.open("rb") as file:
        return dicom_pixels.read(dicom_header.parse(file, pixels=True)).values


@pytest.fixture
def hospital(real_data: Path) -> Path:
    """72 slices of six patients, JPEG Lossless, as a hospital exported them."""
    folder = real_data / "covidctmd"
    if not folder.is_dir():
        pytest.fail(f"{real_data} has no folder covidctmd/")
    return folder


@pytest.fixture
def dcmtk() -> None:
    """DCMTK's tools, of which CI requires that they are there."""

    def without(reason: str) -> NoReturn:
        if os.environ.get("DDTL_REQUIRE_DCMTK") == "1":
            pytest.fail(f"DDTL_REQUIRE_DCMTK=1, but {reason}")
        pytest.skip(reason)

    for tool in ("dcmdjpeg", "dcmcjpeg", "dcmcjpls", "dcmdjpls"):
        if shutil.which(tool) is None:
            without(f"{tool} is not installed (apt-get install dcmtk)")


def unpacked(path: Path, to: Path, tool: str = "dcmdjpeg") -> np.ndarray:
    """The stored values of a file, decompressed by DCMTK."""
    subprocess.run([tool, path, to], check=True, capture_output=True, timeout=300)
    ds = pydicom.dcmread(to)
    kind = f"<{'i' if ds.PixelRepresentation else 'u'}{ds.BitsAllocated // 8}"
    found = np.frombuffer(ds.PixelData, kind)[: ds.Rows * ds.Columns].reshape(ds.Rows, ds.Columns)
    if ds.PixelRepresentation and ds.BitsStored < ds.BitsAllocated:  # DCMTK leaves the upper bits 0
        shift = ds.BitsAllocated - ds.BitsStored
        found = found << shift >> shift
    return found.astype(np.int64)


@pytest.mark.realdata
@pytest.mark.usefixtures("dcmtk")
def test_the_hospitals_72_slices_are_dcmtks_to_the_value(hospital: Path, tmp_path: Path) -> None:
    paths = sorted(hospital.rglob("*.dcm"))
    assert len(paths) == 72
    for path in paths:
        np.testing.assert_array_equal(values(path), unpacked(path, tmp_path / "raw"), err_msg=str(path))


@pytest.mark.realdata
def test_the_hospitals_72_slices_are_those_that_were_stored(hospital: Path) -> None:
    with STORED.open(newline="") as file:
        stored = {row["file"]: row["sha256"] for row in csv.DictReader(file)}
    ours = {
        str(path.relative_to(hospital)): hashlib.sha256(values(path).astype("<i4").tobytes()).hexdigest()
        for path in hospital.rglob("*.dcm")
    }
    assert ours == stored
    assert len(ours) == 72


@pytest.mark.realdata
def test_the_hospitals_slices_raise_no_doubt(hospital: Path) -> None:
    found = find([str(hospital)], by_folder=False, progress=lambda done, total: None)
    assert (len(found.files), found.bad, found.warnings) == (72, [], [])
    assert len({picture.patient for picture in found.files}) == 6
    for one in decode_all(found.files, 32, 8, 2):
        assert isinstance(one.image, np.ndarray)
        assert one.notes == ()
    for patient in {picture.patient for picture in found.files}:
        heights = [p.slice.position for p in found.files if p.patient == patient and p.slice]
        assert len(heights) == 12
        assert (np.diff(np.array(heights, dtype=float)) > 10).all()


@pytest.mark.usefixtures("dcmtk")
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("option", "tool"),
    [("+e1", ""), ("+el", ""), ("+eb", ""), ("+ee", ""), ("+es", ""), ("+ep", ""), ("+el", "jpls"), ("+en", "jpls")],
)
def test_what_dcmtk_compresses_is_read_as_dcmtk_does(tmp_path: Path, option: str, tool: str, signed: bool) -> None:
    """Lossy ones too: baseline, 12-bit extended, spectral selection, full progression, and near-lossless JPEG-LS."""
    if signed and option == "+en":
        pytest.skip("DCMTK does not compress signed pixels near-losslessly")
    ct_slices.write(tmp_path / "raw", HU, bits=12, signed=signed, intercept=-200 if signed else -1024)
    subprocess.run([f"dcmc{tool or 'jpeg'}", option, tmp_path / "raw", tmp_path / "packed"], check=True, timeout=300)
    theirs = unpacked(tmp_path / "packed", tmp_path / "back", f"dcmd{tool or 'jpeg'}")
    np.testing.assert_array_equal(values(tmp_path / "packed"), theirs)


@pytest.mark.usefixtures("dcmtk")
def test_the_command_of_a_message_corrects_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a slice.dcm"
    text_tag("RescaleIntercept", "-1024 HU")(path)
    with pytest.raises(BadImageError) as refused:
        dicom.decode_slice(path)
    _, _, command = refused.value.reason.partition("with: ")
    subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True, timeout=300)
    np.testing.assert_array_equal(np.asarray(dicom.decode_slice(path)), window(HU))


@pytest.mark.parametrize("bits", [8, 16])
def test_pillows_jpeg_2000_is_read(tmp_path: Path, bits: int) -> None:
    words = np.arange(24 * 40).reshape(24, 40) * (65 if bits == 16 else 1) % 2**bits
    image = Image.fromarray(words.astype(f"u{bits // 8}"))
    for name in ("codestream.j2k", "boxed.jp2"):
        image.save(tmp_path / name, irreversible=False)
        ds = ct_slices.dataset(words - 1024.0, bits=bits, allocated=bits)
        ct_slices.encapsulated(ds, (tmp_path / name).read_bytes(), JPEG2000).save_as(tmp_path / "slice")
        np.testing.assert_array_equal(values(tmp_path / "slice"), words)


def test_pillows_jpeg_is_read_as_pillow_does(tmp_path: Path) -> None:
    gray = window(HU).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.jpg", quality=90)
    ds = ct_slices.dataset(gray - 1024.0, bits=8, allocated=8)
    ct_slices.encapsulated(ds, (tmp_path / "gray.jpg").read_bytes(), JPEGBaseline8Bit).save_as(tmp_path / "slice")
    theirs = np.asarray(Image.open(tmp_path / "gray.jpg")).astype(int)
    assert np.abs(values(tmp_path / "slice") - theirs).max() <= 1  # two implementations of the inverse DCT


@pytest.mark.parametrize("bits", [8, 12])
def test_the_sign_of_jpeg_2000_is_the_images_own(tmp_path: Path, bits: int) -> None:
    """Its header may say more bits than the compressed image has."""
    stored = np.arange(-100, 92).reshape(12, 16)
    allocated = 8 if bits == 8 else 16
    ds = ct_slices.dataset(stored - 1024.0, bits=bits, allocated=allocated, signed=True)
    ct_slices.compressed(ds, JPEG2000Lossless)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.save_as(tmp_path / "slice", enforce_file_format=True)
    np.testing.assert_array_equal(values(tmp_path / "slice"), stored)


def test_a_file_in_several_fragments_is_read(tmp_path: Path) -> None:
    ds = ct_slices.compressed(ct_slices.dataset(HU, bits=12), JPEGLosslessSV1)
    _, frame = pydicom.encaps.generate_fragments(ds.PixelData)
    ds.PixelData = pydicom.encaps.encapsulate([frame], fragments_per_frame=5)
    ds.save_as(tmp_path / "slice", enforce_file_format=True)
    np.testing.assert_array_equal(values(tmp_path / "slice"), HU + 1024)


# The process


def crashing(frame: bytes) -> bytes:
    """A JPEG header at which GDCM aborts."""
    return frame[:20] + bytes(40) + frame[60:]


@pytest.fixture
def own_decoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoder]:
    """A decoder with no children yet, in place of the module's."""
    fresh = Decoder()
    monkeypatch.setattr(dicom_pixels, "decoder", fresh)
    yield fresh
    fresh.close()


REQUEST = {"syntax": str(JPEGLosslessSV1), "rows": 24, "columns": 40, "allocated": 16, "stored": 12, "signed": 0}


def frame() -> bytes:
    ds = ct_slices.compressed(ct_slices.dataset(HU, bits=12), JPEGLosslessSV1)
    _, found = pydicom.encaps.generate_fragments(ds.PixelData)
    return bytes(found)


def test_a_crash_of_the_decoder_costs_one_file(tmp_path: Path, own_decoder: Decoder) -> None:
    ct_slices.write(tmp_path / "raw", HU)
    for name in ("a", "c"):
        compressed(JPEGLosslessSV1, bits=12)(tmp_path / name)
    gray = window(HU).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.jpg")
    broken = crashing((tmp_path / "gray.jpg").read_bytes())
    # Past the parent's own checks: to the child alone.
    request = REQUEST | {"syntax": str(JPEGBaseline8Bit), "allocated": 8, "stored": 8}
    first = own_decoder.decode(REQUEST, frame(), 1920, "JPEG Lossless")
    (before,) = own_decoder._idle
    with pytest.raises(HeaderError, match="the decoder crashed on its JPEG Baseline pixels"):
        own_decoder.decode(request, broken, 960, "JPEG Baseline")
    assert own_decoder._idle == []
    assert own_decoder.decode(REQUEST, frame(), 1920, "JPEG Lossless") == first
    assert own_decoder._idle[0].pid != before.pid
    np.testing.assert_array_equal(values(tmp_path / "a"), HU + 1024)


def test_one_child_decodes_many_files(tmp_path: Path, own_decoder: Decoder) -> None:
    pids = set()
    for _ in range(20):
        own_decoder.decode(REQUEST, frame(), 1920, "JPEG Lossless")
        pids.add(own_decoder._idle[0].pid)
    assert len(pids) == 1


def test_threads_have_children_of_their_own(own_decoder: Decoder) -> None:
    whole = frame()
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: own_decoder.decode(REQUEST, whole, 1920, "x"), range(60)))
    assert len(set(found)) == 1
    assert 1 <= len(own_decoder._idle) <= 3


def test_a_killed_child_is_replaced(own_decoder: Decoder) -> None:
    first = own_decoder.decode(REQUEST, frame(), 1920, "x")
    pid = own_decoder._idle[0].pid
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert own_decoder.decode(REQUEST, frame(), 1920, "x") == first


FAULTS = {
    "hangs": ("import time; time.sleep(10_000)", "take more than 4 s"),
    "ends": ("raise SystemExit(3)", "the decoder crashed"),
    "does not start": ("raise SystemExit(1)", "does not start on this machine"),
    "is killed": ("import os; os.kill(os.getpid(), 9)", "the system ended the decoder"),
    "is killed, and some time later gone": (
        "import os, time; os.close(1); time.sleep(0.8); os.kill(os.getpid(), 9)",
        "the system ended the decoder",
    ),
    "aborts": ("import os; os.abort()", "the decoder crashed"),
    "says nonsense": ("print('nonsense', flush=True)", "the decoder crashed"),
    "says too much": ('print(\'{"size": 999999999999, "error": ""}\', flush=True)', "not as many as Rows"),
    "says too little": ('print(\'{"size": 7, "error": ""}\', flush=True)', "not as many as Rows"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_a_child_does_costs_one_file(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    code, reason = FAULTS[fault]
    ready = "print('{\"ready\": true}', flush=True)" if fault != "does not start" else ""
    script = f"import sys\nsys.stdin.readline()\n{ready}\n{code}\nimport time; time.sleep(10_000)"
    # A busy machine may take seconds to start a process, whose own fault is to be seen.
    monkeypatch.setattr(pixel_decoder, "_WAIT", 100)
    decoder = Decoder([sys.executable, "-c", script], seconds=3 if fault == "hangs" else 300)
    with pytest.raises(HeaderError, match=reason):
        decoder.decode(REQUEST, b"12345", 1920, "JPEG Lossless")
    assert decoder._idle == []


def test_a_child_has_limits(tmp_path: Path) -> None:
    """The worker's own limits, with smaller numbers: of memory where an image is large, of processor time always."""
    large = ct_slices.dataset(np.zeros((3000, 3000)), bits=12)
    ct_slices.compressed(large, JPEGLosslessSV1)
    _, packed = pydicom.encaps.generate_fragments(large.PixelData)
    request = REQUEST | {"rows": 3000, "columns": 3000}
    command = pixel_decoder._command("x")
    small = Decoder([*command[:-2], str(150 * 2**20), "60"])
    with pytest.raises(HeaderError, match=r"of memory|the decoder crashed|cannot be decoded"):
        small.decode(request, packed, 18_000_000, "JPEG Lossless")
    assert Decoder(command).decode(request, packed, 18_000_000, "x") == large_words().tobytes()


def large_words() -> np.ndarray:
    return np.full((3000, 3000), 1024, dtype="<u2")


def test_processor_time_is_limited() -> None:
    code = """
import resource
print('{"ready": true}', flush=True)
resource.setrlimit(resource.RLIMIT_CPU, (1, 5))
while True:
    pass
"""
    with pytest.raises(HeaderError, match="take more than 4 s"):
        Decoder([sys.executable, "-c", code]).decode(REQUEST, b"", 1920, "x")


def test_nothing_is_imported_from_the_current_folder(tmp_path: Path) -> None:
    """Neither a module of the standard library nor GDCM, for a program that runs from there and has it on its path."""
    for name in ("json", "gdcm", "_gdcm", "signal", "tempfile", "resource", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w'); raise SystemExit(9)")
    compressed(JPEGLosslessSV1, bits=12)(tmp_path / "slice")
    root = Path(__file__).resolve().parents[2]
    code = (
        f"import sys, os; sys.path.insert(0, {str(root)!r}); "
        "from ddtl.data.images import dicom; from pathlib import Path; "
        f"os.chdir({str(tmp_path)!r}); sys.path.insert(0, ''); sys.path.insert(0, {str(tmp_path)!r}); "
        "print(dicom.decode_slice(Path('slice')).size)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "(40, 24)\n"), done.stderr
    assert not (tmp_path / "imported").exists()


def test_the_child_is_small(tmp_path: Path) -> None:
    text = Path(pixel_decoder.__file__).with_name("pixel_worker.py").read_text()
    imported = {line.split()[1] for line in text.splitlines() if line.strip().startswith(("import ", "from "))}
    assert imported <= {"json", "os", "signal", "sys", "tempfile", "contextlib", "typing", "resource", "gdcm"}


def test_without_gdcm_the_file_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compressed(JPEGLosslessSV1, bits=12)(tmp_path / "slice")
    monkeypatch.setattr(dicom_pixels, "decoder", Decoder())
    monkeypatch.setattr(pixel_decoder.PathFinder, "find_spec", lambda *arguments: None)
    with pytest.raises(BadImageError, match=r"compressed \(JPEG Lossless\).*pip install python-gdcm"):
        dicom.decode_slice(tmp_path / "slice")


def test_children_end_with_their_parent(tmp_path: Path) -> None:
    compressed(JPEGLosslessSV1, bits=12)(tmp_path / "slice")
    code = (
        "import sys, os; from ddtl.data.images import dicom, pixel_decoder; from pathlib import Path; "
        "dicom.decode_slice(Path(sys.argv[1])); print(pixel_decoder.decoder._idle[0].pid, flush=True); "
        "os.kill(os.getpid(), 9) if sys.argv[2] == 'killed' else None"
    )
    for how in ("ends", "killed"):
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "slice", how],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        pid = int(done.stdout)
        until = time.monotonic() + 120
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < until, "the child is left"
            time.sleep(0.1)
        assert done.stderr == ""


def test_a_forked_process_leaves_its_parents_children_alone(own_decoder: Decoder) -> None:
    own_decoder.decode(REQUEST, frame(), 1920, "x")
    own_decoder.forget()
    assert own_decoder._idle == []
    own_decoder.decode(REQUEST, frame(), 1920, "x")
    assert threading.active_count() < 50


def test_damage_within_the_pixels_is_seen_where_the_library_sees_it(tmp_path: Path) -> None:
    """Bytes that are lost in the middle leave the rest of a lossless JPEG image wrong."""
    change_frame(JPEGLosslessSV1, lambda whole: whole[: len(whole) // 2] + whole[len(whole) // 2 + 40 :])(
        tmp_path / "x"
    )
    with pytest.raises(BadImageError, match="cannot be decoded"):
        dicom.decode_slice(tmp_path / "x")
