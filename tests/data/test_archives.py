"""Reading archives of unknown origin: what is in them comes out, and nothing that they try."""

from __future__ import annotations

import contextlib
import io
import lzma
import random
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ddtl.data.download import archives
from ddtl.data.download.archives import members
from ddtl.utils.errors import UserError

FILES = {"top/CT_COVID/a %1 [x].png": b"first", "top/CT_NonCOVID/b.png": b"second" * 1000, "top/empty.txt": b""}


def make_zip(path: Path, files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("top")
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if change is not None:
                change(info)
            archive.writestr(info, data)
    return path


def make_tar(
    path: Path, files: dict[str, bytes], mode: str = "w:gz", change: Callable[[tarfile.TarInfo], None] | None = None
) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("top")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if change is not None:
                change(info)
            archive.addfile(info, io.BytesIO(data))
    return path


MAKERS = [pytest.param(make_zip, id="zip"), pytest.param(make_tar, id="tar")]
Make = Callable[..., Path]


def contents(path: Path) -> dict[str, bytes]:
    return {member.name: member.read() for member in members(path)}


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        contents(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# ---- what is in them


def test_a_zip_gives_its_files(tmp_path: Path) -> None:
    assert contents(make_zip(tmp_path / "a.zip", FILES)) == FILES


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_gives_its_files(tmp_path: Path, mode: str) -> None:
    assert contents(make_tar(tmp_path / "a.tar.gz", FILES, mode)) == FILES


def test_a_long_name_in_a_tar_is_whole(tmp_path: Path) -> None:
    name = f"{'x' * 150}/{'y' * 180}.png"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        assert contents(tmp_path / "a.tar") == {name: b""}


def test_what_is_not_asked_for_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRY", 100)
    for path in (make_zip(tmp_path / "a.zip", FILES), make_tar(tmp_path / "a.tgz", FILES)):
        assert [member.name for member in members(path)] == list(FILES)
        small = [member.read() for member in members(path) if member.size < 100]
        assert small == [b"first", b""]


def test_backslashes_separate_folders(tmp_path: Path) -> None:
    assert contents(make_zip(tmp_path / "a.zip", {"top\\COVID\\a.png": b"x"})) == {"top/COVID/a.png": b"x"}


# ---- what they try


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    "name", ["../a.png", "top/../../a.png", "/etc/a.png", "C:/a.png", "c:a.png", "..\\a.png", "\\\\host\\a.png"]
)
def test_names_that_point_out_of_the_archive_are_refused(tmp_path: Path, make: Make, name: str) -> None:
    message = refusal(make(tmp_path / "a", {**FILES, name: b"evil"}))
    assert "points out of it" in message
    assert repr(name) in message
    assert "from=FOLDER" in message


KINDS = {"symlink": stat.S_IFLNK, "device": stat.S_IFCHR, "fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, kind: int) -> None:
    def change(info: zipfile.ZipInfo) -> None:
        if info.filename.endswith("b.png"):
            info.create_system, info.external_attr = 3, (kind | 0o777) << 16

    assert "link or a special file: 'top/CT_NonCOVID/b.png'" in refusal(make_zip(tmp_path / "a.zip", FILES, change))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    def change(info: tarfile.TarInfo) -> None:
        if info.name.endswith("b.png"):
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    assert "link or a special file: 'top/CT_NonCOVID/b.png'" in refusal(
        make_tar(tmp_path / "a.tgz", FILES, change=change)
    )


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", FILES)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # the flag in the last entry of the directory
    path.write_bytes(data)
    assert "is encrypted, at 'top/empty.txt'" in refusal(path)


@pytest.mark.parametrize("make", MAKERS)
def test_too_many_entries_are_refused(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a", {f"{n}.png": b"" for n in range(20)})
    assert len(contents(path)) == 20
    monkeypatch.setattr(archives, "MAX_ENTRIES", 20)  # the folder is one, too
    assert "more than 20 entries" in refusal(path)


@pytest.mark.parametrize("make", MAKERS)
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a", {"bomb.png": bytes(2**24)})
    assert path.stat().st_size < 2**15
    monkeypatch.setattr(archives, "MAX_ENTRY", 2**20)
    assert "'bomb.png' claims 16 MB" in refusal(path)
    monkeypatch.setattr(archives, "MAX_TOTAL", 2**20)
    with pytest.raises(UserError, match="unpacks to more than"):
        next(members(path))


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"bomb.png": bytes(2**24)})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02") + 24
    assert int.from_bytes(data[at : at + 4], "little") == 2**24
    data[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    assert "cannot be read" in refusal(path)  # by its checksum


def test_a_tar_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 2**33
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert "a header of 8589934592 bytes" in refusal(tmp_path / "a.tar")


def test_endless_headers_in_a_tar_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("pax")
    header.type = tarfile.XHDTYPE
    (tmp_path / "a.tar").write_bytes(header.tobuf() * 5000 + bytes(1024))
    assert "cannot be read" in refusal(tmp_path / "a.tar")


def test_a_sparse_entry_is_refused(tmp_path: Path) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**20)}

    assert "special file" in refusal(make_tar(tmp_path / "a.tar", {"a.png": b"x"}, "w", change))


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"},
        {"GNU.sparse.numblocks": "1", "GNU.sparse.size": "1"},
    ],
)
def test_the_map_of_a_sparse_entry_is_not_read(tmp_path: Path, headers: dict[str, str]) -> None:
    endless = b"9" * 10 + b"\n" + b"1\n" * 400_000
    path = make_tar(tmp_path / "a.tar", {"a.png": endless}, "w", lambda info: info.pax_headers.update(headers))
    assert "special file" in refusal(path)


@pytest.mark.parametrize("mode", ["w:bz2", "w:xz", "w:gz"])
def test_a_compressed_entry_takes_time_for_what_it_holds_alone(tmp_path: Path, mode: str) -> None:
    path = make_tar(tmp_path / "a", {"zeros.png": bytes(40 << 20), "b.png": b"x"}, mode)
    begun = time.process_time()
    assert [member.name for member in members(path)] == ["zeros.png", "b.png"]
    assert time.process_time() - begun < 10  # tarfile's own stream takes over 25 s


# ---- what is damaged, or no archive


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_an_archive_that_is_cut_off_is_no_crash(tmp_path: Path, make: Make, share: float) -> None:
    rng = random.Random(0)
    files = {f"{n}.png": rng.randbytes(5000) for n in range(20)}
    path = make(tmp_path / "a", files)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "cut off" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"<!doctype html><html>no</html>", b"\x1f\x8b" + bytes(50)])
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert "cannot be read as a zip or tar archive" in refusal(tmp_path / "a.zip")


@pytest.mark.parametrize("make", MAKERS)
def test_flipped_bytes_are_at_worst_an_error(tmp_path: Path, make: Make) -> None:
    rng = random.Random(1)
    whole = make(tmp_path / "a", FILES).read_bytes()
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        (tmp_path / "b").write_bytes(damaged)
        with contextlib.suppress(UserError):  # and no other exception
            read = contents(tmp_path / "b")
            # A zip has checksums; of a tar nothing speaks for the content.
            assert make is make_tar or all(data in FILES.values() for data in read.values())


def test_an_xz_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", FILES, "w")
    data = bytearray(lzma.compress(path.read_bytes(), format=lzma.FORMAT_ALONE))
    (tmp_path / "b.tar.lzma").write_bytes(data)
    assert contents(tmp_path / "b.tar.lzma") == FILES
    data[1:5] = (1 << 30).to_bytes(4, "little")  # of its dictionary
    path.write_bytes(data)
    assert "cannot be read as a zip or tar archive (Memory usage limit exceeded)" in refusal(path)


def test_an_xz_of_several_streams_is_whole_and_one_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    data = make_tar(tmp_path / "a.tar", FILES, "w").read_bytes()
    parts = [lzma.compress(data[:700]), bytes(8), lzma.compress(data[700:], preset=9), bytes(4)]
    path = tmp_path / "a.tar.xz"
    path.write_bytes(b"".join(parts))
    assert contents(path) == FILES
    path.write_bytes(b"".join(parts)[:-40])
    assert "cannot be read as a zip or tar archive" in refusal(path)
