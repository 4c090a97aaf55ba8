"""Fetching the public datasets from servers that behave and servers that do not."""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter, namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddtl.commands import data as commands
from ddtl.config.load import load
from ddtl.data.datasets import registry
from ddtl.data.download import fetching
from ddtl.data.download.download import Patience
from ddtl.data.download.published import read_index
from ddtl.data.download.verifying import State, verify
from ddtl.utils import files
from ddtl.utils.errors import UserError
from tests.support.http_server import (
    LFS_POINTER,
    NAMES,
    TOY,
    Answer,
    Server,
    closed_port,
    encoded,
    install_toy,
    picture,
    serving,
    toy_images,
)

ROOT = Path(__file__).resolve().parents[2]
IMAGES = toy_images()
A, B, C = NAMES[0], NAMES[5], NAMES[8]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the small dataset's images go; nothing is there yet."""
    install_toy(tmp_path / "package", monkeypatch)
    monkeypatch.setattr(fetching, "PATIENCE", Patience(timeout=0.5, tries=3, pause=0.01))
    return tmp_path / "data" / "toy"


@pytest.fixture
def server() -> Iterator[Server]:
    """Serves all images of the small dataset."""
    with serving() as server:
        server.files = {f"/mirror/toy/{name}": data for name, data in IMAGES.items()}
        yield server


def path_of(name: str) -> str:
    return f"/mirror/toy/{name}"


def overrides(toy: Path, url: str) -> list[str]:
    return [f"paths.data_dir={toy.parent}", f"paths.data_mirror={url}"]


def fetch(toy: Path, server: Server, *words: str) -> None:
    assert commands.main(["fetch", "toy", *overrides(toy, f"{server.url}/mirror"), *words]) == 0


def failure(toy: Path, server: Server, *words: str) -> str:
    with pytest.raises(UserError) as caught:
        fetch(toy, server, *words)
    return str(caught.value)


def first_use(toy: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What train.py does before it trains on the small dataset."""
    monkeypatch.setitem(registry.ORIGINS, "covid19ct", TOY)
    registry.require_images(load(["dataset=covid19ct", *overrides(toy, url)]))


def in_place(toy: Path) -> dict[str, bytes]:
    """Every file below the dataset's folder, but for the lock."""
    found = {path.relative_to(toy).as_posix(): path for path in toy.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != ".fetch.lock"}


def without(*names: str) -> dict[str, bytes]:
    return {name: data for name, data in IMAGES.items() if name not in names}


# ---- all goes well


def test_a_fetch_brings_every_image_once(toy: Path, server: Server) -> None:
    fetch(toy, server)
    assert in_place(toy) == IMAGES
    assert server.times == dict.fromkeys(NAMES, 1)
    fetch(toy, server)
    assert server.times == dict.fromkeys(NAMES, 1)


def test_without_a_mirror_the_pinned_commit_is_asked(
    toy: Path, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fetching, "GITHUB", server.url)
    server.files = {f"/{TOY.repository}/{TOY.commit}/{TOY.folder}/{name}": data for name, data in IMAGES.items()}
    with caplog.at_level(logging.INFO, "ddtl"):
        fetching.fetch(TOY, toy.parent, read_index("toy"))
    assert in_place(toy) == IMAGES
    for said in ("12 images", TOY.commit, str(toy), "Licence: none stated"):
        assert said in caplog.text


def test_the_first_use_fetches_what_is_missing_and_nothing_else(
    toy: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = encoded(picture(0), "JPEG", quality=60)
    for name, data in {**without(B, C), A: own, NAMES[1]: b"broken"}.items():
        files_path = toy / name
        files_path.parent.mkdir(parents=True, exist_ok=True)
        files_path.write_bytes(data)
    first_use(toy, f"{server.url}/mirror", monkeypatch)
    assert server.times == {B: 1, C: 1}
    assert in_place(toy) == {**IMAGES, A: own, NAMES[1]: b"broken"}


def test_the_first_use_of_a_complete_folder_asks_nobody(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        (toy / name).parent.mkdir(parents=True, exist_ok=True)
        (toy / name).touch()
    first_use(toy, f"http://127.0.0.1:{closed_port()}", monkeypatch)
    assert not (toy / ".fetch.lock").exists()


def test_a_fetch_by_hand_replaces_what_is_wrong_and_leaves_the_same_images(toy: Path, server: Server) -> None:
    fetch(toy, server)
    server.asked.clear()
    same = encoded(picture(0).resize((60, 50)))
    (toy / A).write_bytes(same)
    (toy / B).write_bytes(LFS_POINTER)
    (toy / C).write_bytes(encoded(picture(3)))
    (toy / NAMES[1]).write_bytes(IMAGES[NAMES[1]][:-9])
    (toy / NAMES[2]).unlink()
    fetch(toy, server)
    assert server.times == {B: 1, C: 1, NAMES[1]: 1, NAMES[2]: 1}
    assert in_place(toy) == {**IMAGES, A: same}


def test_a_mirror_of_copies_saved_again_is_used_and_said_to_be_one(
    toy: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    copy = encoded(picture(0), "JPEG", quality=90)
    server.files[path_of(A)] = copy
    with caplog.at_level(logging.WARNING, "ddtl"):
        fetch(toy, server)
    assert in_place(toy) == {**IMAGES, A: copy}
    assert (
        f"1 files are the same image as the published ones in another encoding or size, the first is {A}" in caplog.text
    )


# ---- servers and lines that fail


@pytest.mark.parametrize(
    "fault",
    [
        Answer(IMAGES[A], cut=1000),
        Answer(IMAGES[A], cut=0),
        Answer(status=500),
        Answer(status=503),
        Answer(status=429, headers={"Retry-After": "0"}),
        Answer(IMAGES[A], wait=0.8),
    ],
    ids=["cut", "empty", "500", "503", "429", "hanging"],
)
def test_what_fails_for_a_moment_is_tried_again(toy: Path, server: Server, fault: Answer) -> None:
    server.faults[path_of(A)] = [fault, None]
    fetch(toy, server)
    assert in_place(toy) == IMAGES
    assert server.times[A] == 2


@pytest.mark.parametrize(
    ("fault", "times", "reason"),
    [
        (Answer(IMAGES[A], cut=1000), 3, f"was cut after 1000 of {len(IMAGES[A])} bytes (tried 3 times)"),
        (Answer(status=500), 3, "the server answers 500 Internal Server Error (tried 3 times)"),
        (Answer(status=404), 1, "the server answers 404 Not Found"),
        (Answer(status=403), 1, "the server answers 403 Forbidden"),
        (Answer(status=429, headers={"Retry-After": "3600"}), 1, "the server answers 429 Too Many Requests"),
        (Answer(IMAGES[A], wait=0.8), 3, "no answer in time (tried 3 times)"),
        (Answer(LFS_POINTER), 1, "is a Git LFS pointer instead of the image"),
        (Answer(IMAGES[B]), 1, f"shows the image {B}"),
        (Answer(encoded(picture(77))), 1, "shows another image"),
        (Answer(b"<html>Please sign in</html>"), 1, "is a web page, not an image"),
        (Answer(IMAGES[A][:-30]), 1, "cut off or damaged"),
        (Answer(IMAGES[A] + bytes(2**23)), 1, "the server sends more than"),
    ],
    ids=["cut", "500", "404", "403", "429", "hanging", "pointer", "other", "foreign", "page", "short", "flood"],
)  # fmt: skip
def test_one_file_that_cannot_be_had_is_named_and_the_others_are_fetched(
    toy: Path, server: Server, fault: Answer, times: int, reason: str
) -> None:
    server.faults[path_of(A)] = [fault]
    message = failure(toy, server)
    assert "1 of 12 images could not be fetched" in message
    assert A in message
    assert reason in message
    assert "The other 11 are in place" in message
    assert "What to do:" in message
    assert server.times[A] == times
    assert in_place(toy) == without(A)
    del server.faults[path_of(A)]
    server.asked.clear()
    fetch(toy, server)
    assert server.times == {A: 1}
    assert in_place(toy) == IMAGES


def test_wrong_bytes_are_told_with_what_was_expected(toy: Path, server: Server) -> None:
    server.faults[path_of(A)] = [Answer(LFS_POINTER)]
    row = read_index("toy")[0]
    server.faults[path_of(B)] = [Answer(b"x" * 10)]
    message = failure(toy, server)
    assert f"{B} contains text, not an image (10 bytes, sha256 " in message
    assert f"where {len(IMAGES[B])}, " in message
    assert f"{A} is a Git LFS pointer instead of the image ({len(LFS_POINTER)} bytes)" in message
    assert row.sample_id == A


def test_a_server_that_has_nothing_is_not_asked_for_everything(
    toy: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "GIVE_UP", 4)
    monkeypatch.setattr(fetching, "WORKERS", 2)
    server.files = {}
    message = failure(toy, server)
    assert "12 of 12 images could not be fetched" in message
    assert "8 were not tried after 4 failures in a row" in message
    assert len(server.asked) < 12
    assert in_place(toy) == {}


def test_where_nobody_answers_one_message_comes_soon(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        first_use(toy, f"http://127.0.0.1:{closed_port()}", monkeypatch)
    assert time.monotonic() - start < 30
    message = str(caught.value)
    for way in (
        "paths.data_dir=FOLDER",
        "DDTL_DATA ",
        f"https://github.com/someone/toy-ct/archive/{TOY.commit}.zip",
        "`ddtl data fetch toy from=ARCHIVE.zip`",
        "paths.data_mirror=URL",
        "DDTL_DATA_MIRROR",
        "dataset=phantom",
    ):
        assert message.count(way) == 1, way
    assert not toy.parent.exists()


def test_train_py_says_so_before_it_trains(tmp_path: Path) -> None:
    settings = ["dataset=sarscov2ct", *overrides(tmp_path / "data" / "toy", f"http://127.0.0.1:{closed_port()}")]
    run = subprocess.run(
        [sys.executable, "train.py", *settings, f"paths.runs_dir={tmp_path / 'runs'}"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert run.stderr.startswith("error: SARS-CoV-2 CT-scan: its images cannot be fetched")
    assert run.stderr.count("What to do:") == 1
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_answers_is_given_up(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(UserError, match="no answer"):
        first_use(toy, f"http://127.0.0.1:{deaf.getsockname()[1]}", monkeypatch)


@pytest.mark.parametrize("mirror", ["file:///srv/images", "/srv/images", "ftp://server", "http://a..b/", "http://[x"])
def test_a_mirror_that_is_no_web_address_is_a_mistake(toy: Path, mirror: str) -> None:
    with pytest.raises(UserError, match=r"data_mirror|cannot be fetched"):
        fetching.fetch(TOY, toy.parent, read_index("toy"), mirror=mirror)
    assert not toy.exists()


# ---- disks that fail


def test_a_folder_that_cannot_be_written_is_one_message(toy: Path, server: Server) -> None:
    toy.parent.mkdir()
    toy.touch()
    message = failure(toy, server)
    assert f"Cannot write the images to {toy}" in message
    assert "paths.data_dir=FOLDER" in message
    assert server.asked == []


def test_a_full_disk_ends_the_fetch_in_one_message(toy: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def full(temporary: Path, path: Path) -> None:
        written.append(path)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.replace(temporary, path)

    monkeypatch.setattr(files, "replace_file", full)
    message = failure(toy, server)
    assert "No space left on device" in message
    assert "They need 1 MB" in message
    left = in_place(toy)
    assert left
    assert left.items() <= IMAGES.items()


def test_too_little_space_is_said_before_anything_is_asked_for(
    toy: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(1000))
    assert "only 0 MB are free" in failure(toy, server)
    assert server.asked == []


# ---- processes


def start(toy: Path, server: Server, *words: str) -> subprocess.Popen[str]:
    """``ddtl data fetch toy`` in a process of its own."""
    script = (
        "import sys, pytest; from pathlib import Path; from ddtl.data.download import fetching; fetching.WORKERS = 2\n"
        "from ddtl.commands.data import main; from ddtl.commands.launch import guarded\n"
        "from tests.support.http_server import install_toy\n"
        "install_toy(Path(sys.argv[1]), pytest.MonkeyPatch()); sys.exit(guarded(main, sys.argv[2:]))"
    )
    words = ("fetch", "toy", *overrides(toy, f"{server.url}/mirror"), *words)
    command = [sys.executable, "-c", script, str(toy.parent.parent / "package"), *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_images(toy: Path, count: int) -> None:
    end = time.monotonic() + 120
    while sum((toy / name).exists() for name in IMAGES) < count:
        assert time.monotonic() < end, "nothing is fetched"
        time.sleep(0.02)


def test_processes_that_start_together_fetch_each_file_once(toy: Path, server: Server) -> None:
    server.delay = 0.1
    both = [start(toy, server), start(toy, server)]
    for process in both:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert server.times == dict.fromkeys(NAMES, 1)
    assert in_place(toy) == IMAGES


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_fetch_that_was_stopped_resumes(toy: Path, server: Server, signum: signal.Signals, code: int) -> None:
    server.prompt, server.delay = 3, 3.0  # so that the signal comes before the end, however slow this process is
    process = start(toy, server)
    wait_for_images(toy, 1)
    process.send_signal(signum)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert "Traceback" not in said
    first = {name: data for name, data in in_place(toy).items() if name in IMAGES}
    assert 0 < len(first) < len(IMAGES)
    assert first.items() <= IMAGES.items()
    server.asked.clear()
    server.delay = 0
    fetch(toy, server)
    assert server.times == dict.fromkeys(set(NAMES) - set(first), 1)
    assert in_place(toy) == IMAGES


def test_what_a_killed_fetch_left_half_written_is_removed(toy: Path, server: Server) -> None:
    (toy / "COVID").mkdir(parents=True)
    (toy / f"{A.replace('/', '/.')}.partial").write_bytes(b"half")
    fetch(toy, server)
    assert in_place(toy) == IMAGES


# ---- archives and folders


def pack(path: Path, contents: dict[str, bytes], top: str = "toy-ct-0123456789ab/Images of toys/") -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in contents.items():
                archive.writestr(top + name, data)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, data in contents.items():
                info = tarfile.TarInfo(top + name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def unpacked(path: Path, contents: dict[str, bytes]) -> Path:
    for name, data in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize("top", ["", "toy-ct-0123456789ab/Images of toys/"])
def test_an_archive_gives_the_images_and_nothing_else(toy: Path, server: Server, name: str, top: str) -> None:
    more = {**IMAGES, "README.md": b"hello", "COVID/other.png": b"x", f"else/{A.rpartition('/')[2]}": b"y"}
    fetch(toy, server, f"from={pack(toy.parent.parent / name, more, top)}")
    assert in_place(toy) == IMAGES
    assert server.asked == []


def test_a_folder_gives_the_images(toy: Path, server: Server) -> None:
    elsewhere = unpacked(toy.parent.parent / "elsewhere" / "deep", IMAGES)
    fetch(toy, server, f"from={elsewhere.parent}")
    assert in_place(toy) == IMAGES


def test_class_folders_may_be_given_one_by_one(toy: Path, server: Server) -> None:
    elsewhere = unpacked(toy.parent.parent / "elsewhere", IMAGES)
    message = failure(toy, server, f"from={elsewhere / 'COVID'}")
    assert "6 of 12 images could not be fetched" in message
    assert "non-COVID/pic#0?.png is not in it" in message
    fetch(toy, server, f"from={elsewhere / 'non-COVID'}")
    assert in_place(toy) == IMAGES


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_files_of_one_name_the_published_one_is_taken(toy: Path, server: Server, order: int) -> None:
    copies = {f"{top}/{name}": data for top in ("small", "whole")[::order] for name, data in IMAGES.items()}
    copies = {name: encoded(picture(0), "BMP") if name == f"small/{A}" else data for name, data in copies.items()}
    copies[f"small/{B}"] = b"damaged"
    fetch(toy, server, f"from={pack(toy.parent.parent / 'a.zip', copies)}")
    assert in_place(toy) == IMAGES


def test_wrong_files_of_an_archive_are_named(toy: Path, server: Server) -> None:
    archive = pack(toy.parent.parent / "a.zip", {**without(C), A: LFS_POINTER, B: IMAGES[C]})
    message = failure(toy, server, f"from={archive}")
    assert f"3 of 12 images could not be fetched from {archive}" in message
    assert f"{A} is a Git LFS pointer instead of the image" in message
    assert f"{B} shows the image {C}" in message
    assert f"{C} is not in it" in message
    assert in_place(toy) == without(A, B, C)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_malicious_archive_writes_nothing_outside(toy: Path, server: Server, name: str) -> None:
    evil = {**IMAGES, f"../../../../{A}": b"evil", "../../x/COVID/escape.png": b"evil"}
    before = {path for path in toy.parent.parent.rglob("*") if toy not in path.parents}
    archive = pack(toy.parent.parent / name, evil)
    assert "points out of it" in failure(toy, server, f"from={archive}")
    after = {path for path in toy.parent.parent.rglob("*") if toy not in path.parents}
    assert after - before == {archive, toy, toy.parent}
    assert in_place(toy).items() <= IMAGES.items()


def test_a_link_in_place_of_an_image_is_not_followed(toy: Path, server: Server) -> None:
    secret = toy.parent.parent / "secret.png"
    secret.write_bytes(IMAGES[A])
    archive = toy.parent.parent / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        link = tarfile.TarInfo(f"top/{A}")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
    assert "link or a special file" in failure(toy, server, f"from={archive}")
    assert in_place(toy) == {}


def test_an_archive_that_is_none_is_named(toy: Path, server: Server) -> None:
    (toy.parent.parent / "a.zip").write_bytes(b"<!doctype html>")
    assert "cannot be read as a zip or tar archive" in failure(toy, server, f"from={toy.parent.parent / 'a.zip'}")


# ---- the real images


@pytest.mark.slow
@pytest.mark.realdata
def test_the_real_dataset_comes_whole_from_a_mirror(real_data: Path, tmp_path: Path) -> None:
    rows = read_index("covid19ct")
    with serving() as server:
        server.files = {f"/covid19ct/{row.sample_id}": real_data / "covid19ct" / row.sample_id for row in rows}
        settings = [f"paths.data_dir={tmp_path}", f"paths.data_mirror={server.url}"]
        registry.require_images(load(["dataset=covid19ct", *settings]))
        assert server.times == {row.sample_id: 1 for row in rows}
    assert Counter(f.state for f in verify(tmp_path / "covid19ct", rows)) == {State.PUBLISHED: 746}
    assert commands.main(["verify", "covid19ct", *settings]) == 0


def test_a_source_that_is_not_there_is_refused_though_nothing_is_missing(toy: Path, server: Server) -> None:
    fetch(toy, server)
    with pytest.raises(UserError, match=r"from=/nowhere\.zip: there is no such file or folder\. Name an archive"):
        fetch(toy, server, "from=/nowhere.zip")
