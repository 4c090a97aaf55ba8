"""One picture in every form that holds it without loss: the readers agree to the grey level."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from ddtl.data.images.decode import decode_gray, read_header
from ddtl.data.images.image_file import BadImageError
from ddtl.data.images.levels import Window
from ddtl.data.images.raster import stored_range
from tests.support.robust import png

PATH = Path("image")
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def gray_of(data: bytes, window: Window | None = None) -> np.ndarray:
    return np.asarray(decode_gray(data, PATH, window))


def pixels(shape: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def tiff(values: np.ndarray, **options: object) -> bytes:
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


COMPRESSIONS = (None, "zlib", "lzw", "packbits", "zstd", "lzma")


@settings(max_examples=150, deadline=None)
@given(
    shape=SHAPES,
    seed=st.integers(0, 2**32 - 1),
    bits=st.sampled_from([8, 16]),
    channels=st.sampled_from(["gray", "rgb", "gray alpha", "rgb alpha"]),
    byteorder=st.sampled_from("<>"),
    white_is_zero=st.booleans(),
    compression=st.sampled_from(COMPRESSIONS),
    predictor=st.booleans(),
    tile=st.booleans(),
    planar=st.sampled_from(["contig", "separate"]),
    big=st.booleans(),
)
def test_a_tiff_in_any_form(
    shape: tuple[int, int], seed: int, bits: int, channels: str, byteorder: str, white_is_zero: bool,
    compression: str | None, predictor: bool, tile: bool, planar: str, big: bool,
) -> None:  # fmt: skip
    picture = pixels(shape, seed)
    values = picture.astype(np.uint16) * 257 if bits == 16 else picture
    options: dict[str, object] = {"byteorder": byteorder, "compression": compression, "bigtiff": big}
    opaque = np.full_like(values, 257 * 255 if bits == 16 else 255)
    if channels == "gray":
        white = 65535 if bits == 16 else 255
        values = white - values if white_is_zero else values
        options["photometric"] = "miniswhite" if white_is_zero else "minisblack"
    else:
        parts = {"gray alpha": [values, opaque], "rgb": [values] * 3, "rgb alpha": [values] * 3 + [opaque]}[channels]
        values = np.stack(parts, axis=-1 if planar == "contig" else 0)
        options |= {"photometric": "rgb" if "rgb" in channels else "minisblack", "planarconfig": planar}
        if "alpha" in channels:
            options["extrasamples"] = ["unassalpha"]
    if predictor and compression not in (None, "packbits"):
        options["predictor"] = True
    if tile:
        options["tile"] = (16, 16)
    data = tiff(values, **options)
    assert np.array_equal(gray_of(data), picture)


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1), bits=st.sampled_from([1, 2, 4, 8, 16]), interlaced=st.booleans())
def test_a_gray_png_of_any_depth(shape: tuple[int, int], seed: int, bits: int, interlaced: bool) -> None:
    if interlaced:
        buffer = io.BytesIO()
        picture = pixels(shape, seed)
        Image.fromarray(picture).save(buffer, "PNG", interlace=1)
        assert np.array_equal(gray_of(buffer.getvalue()), picture)
        return
    white = 2**bits - 1
    stored = np.random.default_rng(seed).integers(0, white + 1, shape)
    picture = np.rint(stored * 255 / white).astype(np.uint8)
    if bits == 16:
        stored = picture.astype(np.int64) * 257
    rows = []
    for row in stored:
        if bits == 16:
            rows.append(b"\0" + row.astype(">u2").tobytes())
        else:
            packed = np.packbits(((row[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).ravel())
            rows.append(b"\0" + packed.tobytes())
    header = struct.pack(">IIBBBBB", shape[1], shape[0], bits, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    assert np.array_equal(gray_of(data), picture)


@settings(max_examples=60, deadline=None)
@given(
    shape=SHAPES,
    seed=st.integers(0, 2**32 - 1),
    mode=st.sampled_from(["L", "RGB", "RGBA", "LA", "P", "CMYK", "1"]),
    form=st.sampled_from(["PNG", "BMP", "TIFF"]),
)
def test_what_pillow_writes_comes_back(shape: tuple[int, int], seed: int, mode: str, form: str) -> None:
    picture = pixels(shape, seed)
    if mode == "1":
        picture = np.where(picture > 127, 255, 0).astype(np.uint8)
    gray = Image.fromarray(picture)
    if mode == "CMYK":
        black = np.zeros_like(picture)
        image = Image.merge("CMYK", [Image.fromarray(part) for part in (black, black, black, 255 - picture)])
    else:
        image = gray.convert(mode)
    buffer = io.BytesIO()
    try:
        image.save(buffer, form)
    except OSError:
        return  # Pillow does not write this mode in this form
    assert np.array_equal(gray_of(buffer.getvalue()), picture)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_tiff_of_packed_bits(bits: int) -> None:
    white = 2**bits - 1
    values = np.random.default_rng(bits).integers(0, white + 1, (16, 16), dtype=np.uint16)
    packed = np.packbits(((values.ravel()[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).ravel())
    data = raw_tiff(packed.tobytes(), 16, 16, bits)
    assert np.array_equal(gray_of(data), np.rint(values.astype(float) * 255 / white).astype(np.uint8))


def raw_tiff(raw: bytes, width: int, height: int, bits: int, **tags: int) -> bytes:
    """A little-endian TIFF of one strip; ``tags`` by number, as ``t274=6``."""
    numbers = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(raw)}
    numbers |= {int(name[1:]): value for name, value in tags.items()}
    body = raw + b"\0" * (len(raw) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(numbers.items()))
    return b"II" + struct.pack("<HI", 42, 8 + len(body)) + body + struct.pack("<H", len(numbers)) + entries + bytes(4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_tiff_is_turned_upright_as_the_8_bit_one(orientation: int) -> None:
    picture = pixels((6, 9), orientation)
    shallow = raw_tiff(picture.tobytes(), 9, 6, 8, t274=orientation)
    deep = raw_tiff((picture.astype("<u2") * 257).tobytes(), 9, 6, 16, t274=orientation)
    assert np.array_equal(gray_of(shallow), gray_of(deep))


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_a_deep_tiff_cut_off_is_refused(cut: float, compression: str | None) -> None:
    data = tiff(pixels((64, 64), 1).astype(np.uint16) * 257, compression=compression, photometric="minisblack")
    with pytest.raises(BadImageError):
        gray_of(data[: int(len(data) * cut)])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((4, 4), np.int16), "no fixed white"),
        (np.zeros((4, 4), np.uint32), "no fixed white"),
        (np.zeros((4, 4), np.float32), "no fixed white"),
        (np.zeros((4, 4), np.float64), "no fixed white"),
        (np.zeros((4, 4), np.int8), "no fixed white"),
        (np.zeros((3, 4, 4), np.uint16), "3 pages"),
        (np.zeros((4, 4), np.complex64), "no fixed white"),
    ],
)
def test_a_deep_tiff_that_cannot_be_known_is_refused(values: np.ndarray, words: str) -> None:
    with pytest.raises(BadImageError, match=words):
        gray_of(tiff(values, photometric="minisblack"))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["u2", "i2", "i4", "u4", "f4", "f8"]),
    byteorder=st.sampled_from("<>"),
    slope=st.sampled_from([0.5, 1.0, 2.0]),
    intercept=st.sampled_from([-1024.0, 0.0, 100.0]),
)
def test_a_window_makes_one_image_of_any_number_type(
    seed: int, kind: str, byteorder: str, slope: float, intercept: float
) -> None:
    """Grey = 255 · ((HU - (center - 0.5)) / (width - 1) + 0.5), HU = slope · value + intercept (DICOM PS3.3)."""
    values = np.random.default_rng(seed).integers(0, 3000, (9, 7))
    window = Window(-600.0, 1500.0, slope, intercept)
    units = slope * values + intercept
    wanted = np.rint(255 * np.clip((units + 600.5) / 1499 + 0.5, 0, 1)).astype(np.uint8)
    data = tiff(values.astype(kind), byteorder=byteorder, photometric="minisblack")
    assert np.array_equal(gray_of(data, window), wanted)
    if kind == "u2":
        assert np.array_equal(gray_of(png(values.astype(np.uint16)), window), wanted)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_levels_are_refused_behind_a_window(form: str, mode: str) -> None:
    file = io.BytesIO()
    Image.linear_gradient("L").convert(mode).save(file, form)
    with pytest.raises(BadImageError, match=r"contains 8-bit grey levels, and dataset.window"):
        decode_gray(file.getvalue(), Path("x"), Window(center=-600, width=1500, slope=1, intercept=0))


def test_values_that_are_no_number_are_refused_behind_a_window() -> None:
    values = np.zeros((4, 4), np.float32)
    values[0, 0] = np.nan
    with pytest.raises(BadImageError, match="infinite or no number"):
        gray_of(tiff(values, photometric="minisblack"), Window(-600, 1500, 1, 0))


CHUNKS = [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"sPLT", b"prVt"]


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(CHUNKS),
    body=st.binary(max_size=200),
    before=st.booleans(),
    big=st.booleans(),
    bits=st.sampled_from([8, 16]),
)  # fmt: skip
def test_no_chunk_beside_the_pixels_of_a_png_changes_them(
    kind: bytes, body: bytes, before: bool, big: bool, bits: int
) -> None:
    picture = pixels((8, 8), 3)
    stored = picture.astype(np.uint16) * 257 if bits == 16 else picture
    data = png(stored, (kind, body * (20_000 if big else 1)), before=before)
    assert np.array_equal(gray_of(data), picture)
    assert read_header(data).format == "PNG"


def jpeg(picture: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@settings(max_examples=60, deadline=None)
@given(marker=st.sampled_from([*range(0xE1, 0xEE), 0xEF, 0xFE]), body=st.binary(max_size=500), seed=st.integers(0, 99))
def test_no_segment_beside_the_pixels_of_a_jpeg_stops_them(marker: int, body: bytes, seed: int) -> None:
    data = jpeg(pixels((16, 16), seed), quality=90)
    segment = b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body
    if body.startswith((b"Exif", b"MPF")):
        return
    assert np.array_equal(gray_of(data[:2] + segment + data[2:]), gray_of(data))


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"quality": 30}]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_is_what_another_decoder_sees(options: dict[str, object], channels: int) -> None:
    """Held against OpenCV's own libjpeg; decoders may round differently by a level or two."""
    import cv2

    y, x = np.mgrid[0:64, 0:80]
    smooth = (127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 7)).astype(np.uint8)
    picture = smooth if channels == 1 else np.stack([smooth, smooth[::-1], smooth[:, ::-1]], axis=-1)
    data = jpeg(picture, **options)
    other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if channels == 3:
        b, g, r = (other[..., i].astype(np.float64) for i in range(3))
        other = np.rint(0.299 * r + 0.587 * g + 0.114 * b)
    assert np.abs(gray_of(data).astype(int) - other.astype(int)).max() <= 3


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha", "unspecified"])
def test_transparency_is_black_and_nothing_else(bits: int, white_is_zero: bool, extra: str) -> None:
    """Half opaque: half as bright. Of colours that were multiplied already, or of a further channel, as they are."""
    picture = np.array([[0, 100, 254]], np.uint8)
    full = 257 if bits == 16 else 1
    stored = picture.astype(np.uint16 if bits == 16 else np.uint8) * full
    stored = 255 * full - stored if white_is_zero else stored
    half = np.full_like(stored, 127.5 * full if bits == 16 else 128)
    photometric = "miniswhite" if white_is_zero else "minisblack"
    values = np.stack([stored, half])
    data = tiff(values, photometric=photometric, planarconfig="separate", extrasamples=[extra])
    wanted = picture / 2 if extra == "unassalpha" else picture
    assert np.abs(gray_of(data) - wanted).max() <= 1


def test_a_transparent_grey_of_a_png_is_black() -> None:
    for bits, kind in ((8, np.uint8), (16, np.uint16)):
        values = np.array([[7, 100 * 257 % 2**bits]], kind)
        data = png(values, (b"tRNS", (100 * 257 % 2**bits).to_bytes(2, "big")))
        assert gray_of(data)[0, 1] == 0, bits


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_a_jpeg_of_any_colour_space_is_the_image(mode: str) -> None:
    picture = np.repeat(np.repeat(np.arange(0, 256, 16, dtype=np.uint8)[None], 16, axis=1), 16, axis=0)
    image = Image.fromarray(picture).convert("RGB").convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=100)
    assert np.abs(gray_of(buffer.getvalue()).astype(int) - picture).max() <= 3


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_damaged_jpeg_is_refused(mode: str, progressive: bool) -> None:
    """Decoders invent what is missing and say nothing."""
    y, x = np.mgrid[0:200, 0:300]
    picture = (
        Image.fromarray((127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 7)).astype(np.uint8)).convert("RGB").convert(mode)
    )
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", progressive=progressive)
    data = buffer.getvalue()
    gray_of(data)
    with pytest.raises(BadImageError, match="damaged"):
        gray_of(data[: len(data) // 2] + b"\xff\xd9")  # cut off, and closed again
    gray_of(data + b"\0" * 7)  # padding behind the image


@pytest.mark.parametrize("compression", ["jpeg2000", "lerc", "png", "jpegxl"])
def test_a_tiff_in_a_compression_that_pillow_lacks(compression: str) -> None:
    picture = pixels((40, 40), 5)
    try:
        data = tiff(picture, compression=compression, photometric="minisblack")
    except Exception:
        pytest.skip(f"{compression} cannot be written here")
    assert np.array_equal(gray_of(data), picture)


def test_an_animation_of_one_frame_is_an_image() -> None:
    picture = pixels((8, 8), 2)
    control = struct.pack(">IIIIIHHBB", 0, 8, 8, 0, 0, 1, 10, 0, 0)
    data = png(picture, (b"acTL", struct.pack(">II", 1, 0)), (b"fcTL", control))
    assert np.array_equal(gray_of(data), picture)


def test_the_range_of_stored_values() -> None:
    values = np.array([[0, 3071], [7, 9]], np.uint16)
    assert stored_range(png(values), PATH) == (16, 0, 3071)
    assert stored_range(tiff(values, photometric="minisblack", byteorder=">"), PATH) == (16, 0, 3071)
    assert stored_range(png(values.astype(np.uint8)), PATH) is None
