"""Opening one image: by content, whole or not at all, as 8-bit gray."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ddtl.data.images.decode import decode_gray, decode_image, load_image, squared
from ddtl.data.images.image_file import BadImageError
from ddtl.data.images.levels import grey_levels, has_few_levels
from ddtl.utils.errors import UserError

HERE = Path("scan.png")
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def test_large_images_in_colour_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    for mode, reason in (("RGBA", "is too large: 42 megapixels, over the limit of 40 in colour or with transparency"),
                         ("L", None)):  # fmt: skip
        Image.new(mode, (7000, 6000)).save(path, compress_level=1)
        if reason is None:
            assert load_image(path, 32).shape == (32, 32)
        else:
            with pytest.raises(BadImageError, match=reason):
                load_image(path, 32)


def encode(image: Image.Image, fmt: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def noise(height: int = 24, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def reason(data: bytes) -> str:
    with pytest.raises(BadImageError) as caught:
        decode_image(data, 16, HERE)
    assert caught.value.path == HERE
    assert str(caught.value) == f"scan.png {caught.value.reason}"
    return caught.value.reason


@given(hnp.arrays(np.uint8, st.integers(1, 20).map(lambda n: (n, n))), st.sampled_from(["PNG", "TIFF", "BMP"]))
def test_gray_pixels_of_the_right_size_are_kept_as_they_are(pixels: np.ndarray, fmt: str) -> None:
    decoded = decode_image(encode(Image.fromarray(pixels), fmt), len(pixels), HERE)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64), st.integers(0, 255))
@settings(max_examples=30)
def test_a_flat_image_stays_flat_at_every_size(height: int, width: int, size: int, level: int) -> None:
    decoded = decode_image(encode(Image.new("L", (width, height), level)), size, HERE)
    assert decoded.shape == (size, size)
    assert (decoded == level).all()


def test_reducing_is_antialiased_and_squashes_the_aspect_ratio() -> None:
    stripes = np.zeros((512, 256), np.uint8)
    stripes[:, ::2] = 255
    decoded = decode_image(encode(Image.fromarray(stripes)), 32, HERE)
    assert decoded.shape == (32, 32)
    assert np.abs(decoded[:, 1:-1].astype(int) - 127).max() <= 8  # picking single pixels would give 0 or 255


@pytest.mark.parametrize(
    ("mode", "colour", "level"),
    [
        ("1", 1, 255),
        ("L", 90, 90),
        ("LA", (200, 255), 200),
        ("LA", (200, 0), 0),
        ("LA", (200, 51), 40),
        ("RGB", (255, 0, 0), 76),
        ("RGB", (10, 10, 10), 10),
        ("RGBA", (255, 255, 255, 255), 255),
        ("RGBA", (255, 255, 255, 0), 0),
        ("RGBA", (255, 255, 255, 102), 102),
        ("CMYK", (0, 0, 0, 0), 255),
        ("CMYK", (0, 0, 0, 255), 0),
        ("I;16", 65535, 255),
        ("I;16", 257 * 40, 40),
        ("I;16", 4095, 16),
        ("YCbCr", (80, 128, 128), 80),
    ],
)
def test_each_mode(mode: str, colour: int, level: int) -> None:
    fmt = "TIFF" if mode in {"CMYK", "YCbCr"} else "PNG"
    decoded = decode_image(encode(Image.new(mode, (6, 4), colour), fmt), 4, HERE)
    assert np.unique(decoded).tolist() == [level]


@given(hnp.arrays(np.uint8, (8, 8, 4)))
@settings(max_examples=30)
def test_alpha_is_composited_on_black(rgba: np.ndarray) -> None:
    luma = rgba[..., :3].astype(float) @ [0.299, 0.587, 0.114]
    expected = luma * rgba[..., 3] / 255
    decoded = decode_image(encode(Image.fromarray(rgba, "RGBA")), 8, HERE)
    assert np.abs(decoded - expected).max() <= 1.5


def test_palettes_with_and_without_a_transparent_entry() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 200, 200])
    assert (decode_image(encode(image), 4, HERE) == 200).all()
    assert (decode_image(encode(image, transparency=1), 4, HERE) == 0).all()
    assert (decode_image(encode(Image.new("L", (4, 4), 9), transparency=9), 4, HERE) == 0).all()


def test_both_byte_orders_of_16_bits() -> None:
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    for order in ("<u2", ">u2"):
        data = encode(Image.fromarray(values.astype(order)), "TIFF")
        np.testing.assert_array_equal(decode_image(data, 16, HERE), values // 257)


@settings(max_examples=60)
@given(
    height=st.integers(1, 70), width=st.integers(1, 70), quality=st.integers(1, 100), progressive=st.booleans(),
    restarts=st.integers(0, 3), seed=st.integers(0, 9),
)  # fmt: skip
def test_a_gray_jpeg_has_pillows_pixels(
    height: int, width: int, quality: int, progressive: bool, restarts: int, seed: int
) -> None:
    data = encode(
        Image.fromarray(noise(height, width, seed)), "JPEG",
        quality=quality, progressive=progressive, restart_marker_blocks=restarts,
    )  # fmt: skip
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.asarray(decode_gray(data, HERE)), np.asarray(image))


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(fmt: str, orientation: int) -> None:
    upright = np.zeros((32, 32), np.uint8)
    upright[:8, :16] = 255  # no two orientations of it look the same
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: np.rot90(upright, 2).T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), fmt, exif=exif)
    assert np.abs(decode_image(data, 32, HERE).astype(int) - upright).max() < 20


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    for name, fmt in {"a.png": "JPEG", "b.jpg": "PNG", "c%20 (1)": "BMP", "d.txt": "TIFF"}.items():
        (tmp_path / name).write_bytes(encode(Image.new("L", (8, 8), 100), fmt))
        assert (load_image(tmp_path / name, 8) == 100).all()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"hello, this is a note\n", "contains text"),
        (LFS_POINTER, "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html><body>404", "web page"),
        (b"GIF89a" + bytes(50), "GIF"),
        (b"\x1f\x8b\x08" + bytes(50), "gzip"),
        (b"PK\x03\x04" + bytes(50), "zip archive"),
        (bytes(128) + b"DICM" + bytes(50), "DICOM"),
        (bytes(range(200)), "is not a PNG, JPEG, TIFF or BMP image"),
        (encode(Image.fromarray(noise()))[:20], "cut off or damaged"),
        (encode(Image.fromarray(noise(200, 200)))[:-8000], "cut off or damaged"),
        (encode(Image.fromarray(noise(200, 200)), "JPEG")[:3000], "cut off or damaged"),
        (encode(Image.new("F", (4, 4), 0.5), "TIFF"), "32-bit or floating-point values"),
        (encode(Image.new("I", (4, 4), 5), "TIFF"), "32-bit or floating-point values"),
        (encode(Image.new("LAB", (4, 4)), "TIFF"), "colour mode LAB"),
        (encode(Image.new("L", (4, 4)), "TIFF", save_all=True, append_images=[Image.new("L", (4, 4))]), "2 pages"),
    ],
)
def test_bad_files_are_named_with_their_reason(data: bytes, words: str) -> None:
    assert words in reason(data)


def test_unreadable_paths(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_image(tmp_path / "none.png", 8)
    with pytest.raises(UserError, match="is a folder"):
        load_image(tmp_path, 8)


@pytest.mark.parametrize(("width", "height"), [(9000, 7200), (10_000, 9000), (60_000, 60_000)])
@pytest.mark.parametrize("pillow_warning", ["error", "ignore"])
def test_decompression_bombs_are_refused_before_they_are_unpacked(
    width: int, height: int, pillow_warning: Literal["error", "ignore"]
) -> None:
    data = bytearray(encode(Image.new("L", (4, 4))))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    message = f"is too large: {width * height / 1e6:.0f} megapixels, over the limit of 64"
    with warnings.catch_warnings():
        warnings.simplefilter(pillow_warning, Image.DecompressionBombWarning)
        assert reason(bytes(data)) == message


def test_pillows_bomb_warning_is_an_error_for_those_who_import_the_module() -> None:
    code = (
        "import warnings, ddtl.data.images.raster as m\n"
        "assert ('error', m.Image.DecompressionBombWarning) in {(f[0], f[2]) for f in warnings.filters}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


WHOLE = {fmt: encode(Image.fromarray(noise()), fmt) for fmt in ("PNG", "JPEG", "TIFF", "BMP")}


@pytest.mark.parametrize("fmt", WHOLE)
@given(st.data())
def test_a_file_cut_anywhere_fails_or_gives_every_pixel(fmt: str, data: st.DataObject) -> None:
    whole = WHOLE[fmt]
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        decoded = decode_image(cut, 24, HERE)
    except BadImageError:
        return
    np.testing.assert_array_equal(decoded, decode_image(whole, 24, HERE))


@given(st.integers(33, len(WHOLE["PNG"]) - 1), st.integers(1, 255))
def test_a_changed_byte_in_a_png_fails_or_changes_no_pixel(position: int, flip: int) -> None:
    damaged = bytearray(WHOLE["PNG"])
    damaged[position] ^= flip
    try:
        decoded = decode_image(bytes(damaged), 24, HERE)
    except BadImageError:
        return
    np.testing.assert_array_equal(decoded, decode_image(WHOLE["PNG"], 24, HERE))


@given(st.sampled_from(["", *WHOLE]), st.binary(max_size=200))
def test_garbage_is_always_a_bad_image(fmt: str, garbage: bytes) -> None:
    with pytest.raises(BadImageError):
        decode_image(WHOLE.get(fmt, b"")[:30] + garbage, 8, HERE)


@pytest.mark.slow
@pytest.mark.realdata
def test_every_real_image_decodes(real_data: Path) -> None:
    found: Counter[tuple[str, str, str]] = Counter()
    levels: list[tuple[int, int]] = []

    def decode(path: Path) -> tuple[str, str, str]:
        gray = decode_gray(path.read_bytes(), path)
        levels.append(grey_levels(gray))
        decoded = squared(gray, 64)
        assert decoded.shape == (64, 64)
        assert decoded.std() > 5, path
        with Image.open(path) as image:
            return path.relative_to(real_data).parts[0], f"{image.format} named {path.suffix}", image.mode

    folders = [real_data / name for name in ("covid19ct", "sarscov2ct")]
    paths = [p for folder in folders for p in sorted(folder.rglob("*")) if p.suffix.lower() in {".png", ".jpg"}]
    with ThreadPoolExecutor(2) as pool:
        found.update(pool.map(decode, paths))
    assert not any(has_few_levels(*counts) for counts in levels), "no CT slice is taken for a crushed one"
    assert tuple(map(min, zip(*levels, strict=True))) == (165, 166), "as docs/own_data.md says"
    datasets, kinds, modes = (Counter[str]() for _ in range(3))
    for (dataset, kind, mode), n in found.items():
        datasets[dataset] += n
        if dataset == "covid19ct":
            kinds[kind] += n
            modes[mode] += n
    assert datasets == {"covid19ct": 746, "sarscov2ct": 2481}
    assert kinds["JPEG named .png"] == 34
    assert modes["RGBA"] == 174
