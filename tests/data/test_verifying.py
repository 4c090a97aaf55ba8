"""What the files under the names of a public dataset are found to be."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from ddtl.commands import data as commands
from ddtl.data.datasets import registry
from ddtl.data.download.published import read_index
from ddtl.data.download.verifying import Checker, State, verify
from ddtl.data.images.perceptual_hash import difference_hash, distance
from ddtl.utils.errors import UserError
from tests.support.http_server import LFS_POINTER, NAMES, encoded, install_toy, picture, toy_images


@pytest.fixture(autouse=True)
def _toy(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small dataset beside the public ones; not where those themselves are looked at."""
    if "real_data" not in request.fixturenames:
        install_toy(tmp_path / "package", monkeypatch)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The small dataset's folder, all files as published."""
    for name, data in toy_images().items():
        path = tmp_path / "data" / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "data" / "toy"


def states(folder: Path) -> list[State]:
    return [finding.state for finding in verify(folder, read_index("toy"))]


# ---- the difference hash


def test_a_hash_says_which_pixels_are_brighter_than_their_left_neighbours() -> None:
    rising = Image.linear_gradient("L").rotate(90)  # black at the left or at the right
    falling = Image.linear_gradient("L").rotate(270)
    assert {difference_hash(rising), difference_hash(falling)} == {0, 2**256 - 1}
    step = Image.new("L", (17, 16))
    step.putpixel((1, 0), 9)
    assert difference_hash(step) == 1 << 255  # pixel 1 of row 0 is brighter than pixel 0: the first bit
    assert distance(0b1100, 0b1010) == 2


# ---- one file


@pytest.mark.parametrize(
    "again",
    [
        lambda image: encoded(image, "JPEG", quality=50),
        lambda image: encoded(image.convert("RGBA")),
        lambda image: encoded(image.convert("RGB"), "BMP"),
        lambda image: encoded(image.resize((48, 40))),
        lambda image: encoded(image.resize((300, 300)), "TIFF"),
    ],
    ids=["jpeg", "rgba", "bmp", "smaller", "stretched"],
)
def test_an_image_saved_again_is_the_same_image(toy: Path, again) -> None:
    (toy / NAMES[3]).write_bytes(again(picture(3)))
    finding = verify(toy, read_index("toy"))[3]
    assert finding.state is State.SAME
    assert "same image in another encoding or size" in str(finding)


def test_another_image_of_the_dataset_is_named(toy: Path) -> None:
    for data in (encoded(picture(5)), encoded(picture(5), "JPEG", quality=80)):
        (toy / NAMES[2]).write_bytes(data)
        finding = verify(toy, read_index("toy"))[2]
        assert finding.state is State.OTHER
        assert f"shows the image {NAMES[5]}" in str(finding)


def test_an_image_from_elsewhere_is_another_image(toy: Path) -> None:
    (toy / NAMES[2]).write_bytes(encoded(picture(99)))
    finding = verify(toy, read_index("toy"))[2]
    assert finding.state is State.OTHER
    assert "shows another image" in str(finding)
    assert "of 256 bits differ" in str(finding)
    assert read_index("toy")[2].sha256[:12] in str(finding)


@pytest.mark.parametrize(
    ("data", "state", "reason"),
    [
        (LFS_POINTER, State.POINTER, "is a Git LFS pointer instead of the image"),
        (b"", State.DAMAGED, "is empty (0 bytes)"),
        (b"<!DOCTYPE html><p>Sign in", State.DAMAGED, "is a web page"),
        (toy_images()[NAMES[2]][:-20], State.DAMAGED, "cut off or damaged"),
    ],
    ids=["pointer", "empty", "page", "cut"],
)
def test_what_is_no_image_is_said_to_be_what_it_is(toy: Path, data: bytes, state: State, reason: str) -> None:
    (toy / NAMES[2]).write_bytes(data)
    finding = verify(toy, read_index("toy"))[2]
    assert finding.state is state
    assert reason in str(finding)


def test_twins_may_stand_for_each_other_but_near_duplicates_may_not() -> None:
    rows = read_index("toy")
    bits = rows[0].dhash
    twin, near = (
        type(rows[0])(**{**{f: getattr(rows[1], f) for f in rows[1].__slots__}, "dhash": other})
        for other in (bits ^ 0b11, bits ^ 0b1111)
    )
    data = encoded(picture(0), "TIFF")  # other bytes, every pixel the same
    assert Checker([rows[0], twin]).examine(data, twin).state is State.SAME
    assert Checker([rows[0], near]).examine(data, near).state is State.OTHER


# ---- the command


def verified(toy: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert commands.main(["verify", "toy", f"paths.data_dir={toy.parent}"]) == 0
    return capsys.readouterr().out


def test_verify_is_content_with_published_files_and_the_same_images(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "as published" in verified(toy, capsys)
    (toy / NAMES[0]).write_bytes(encoded(picture(0), "JPEG", quality=70))
    (toy / "COVID" / "extra.png").touch()
    said = verified(toy, capsys)
    assert "another encoding or size" in said
    assert "not part of the dataset, and not used: 'COVID/extra.png'" in said


def test_verify_names_every_problem_and_the_way_on(toy: Path) -> None:
    (toy / NAMES[0]).unlink()
    (toy / NAMES[1]).write_bytes(LFS_POINTER)
    (toy / NAMES[2]).write_bytes(b"text")
    (toy / NAMES[3]).write_bytes(encoded(picture(4)))
    with pytest.raises(UserError) as caught:
        commands.main(["verify", "toy", f"paths.data_dir={toy.parent}"])
    message = str(caught.value)
    assert "4 of 12 images" in message
    for name in NAMES[:4]:
        assert name in message
    assert "`ddtl data fetch toy` fetches just these" in message


def test_verify_names_ten_files_of_a_kind_and_counts_the_others(toy: Path) -> None:
    for name in NAMES[:-1]:
        (toy / name).write_bytes(b"")
    with pytest.raises(UserError, match="11 of 12") as caught:
        commands.main(["verify", "toy", f"paths.data_dir={toy.parent}"])
    assert str(caught.value).count("is empty") == 10
    assert "and 1 more" in str(caught.value)


def test_verify_of_nothing_says_how_to_get_the_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images in") as caught:
        commands.main(["verify", "toy", f"paths.data_dir={tmp_path}"])
    assert "ddtl data fetch toy" in str(caught.value)


@pytest.mark.parametrize(
    ("there", "here"), [(NAMES, "present"), (NAMES[:5], "incomplete"), ([], "absent")], ids=["all", "some", "none"]
)
def test_list_says_what_is_here(
    tmp_path: Path, there: list[str], here: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in there:
        (tmp_path / "toy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "toy" / name).touch()
    assert commands.main(["list", "toy", f"paths.data_dir={tmp_path}"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "toy" in line and "12" in line)
    assert here in row
    assert "none stated" in row


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ftech", "toy"], "Did you mean fetch?"),
        (["fetch"], "needs the name of a dataset: covid19ct, sarscov2ct"),
        (["verify", "covid19"], "Did you mean covid19ct?"),
        (["fetch", "phantom"], "is drawn on this machine"),
        (["fetch", "dataset=toy"], "write the name alone: ddtl data fetch toy"),
        (["fetch", "toy", "paths.data_dri=x"], "Did you mean paths.data_dir?"),
        (["verify", "toy", "from=x.zip"], "not a setting of `ddtl data verify`"),
        (["fetch", "toy", "from=nowhere.zip"], "from=nowhere.zip: there is no such file or folder"),
    ],
)
def test_mistakes_in_the_command_are_answered(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        commands.main([*words, *([f"paths.data_dir={tmp_path}"] if "toy" in words and "=" not in words[-1] else [])])
    assert said in str(caught.value)


@pytest.mark.parametrize("words", [["--help"], ["fetch", "-h"]])
def test_help_names_the_actions(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(words) == 0
    said = capsys.readouterr().out
    for word in ("ddtl data list", "ddtl data fetch", "ddtl data verify", "from=", "DDTL_DATA_MIRROR"):
        assert word in said


# ---- the real images


@pytest.mark.slow
@pytest.mark.realdata
def test_every_real_image_is_recognised(real_data: Path) -> None:
    """covid19ct is here as published; sarscov2ct as reduced copies, which is how they are to be recognised."""
    found = {name: Counter(f.state for f in verify(real_data / name, read_index(name))) for name in registry.ORIGINS}
    assert found == {"covid19ct": {State.PUBLISHED: 746}, "sarscov2ct": {State.SAME: 2481}}


@pytest.mark.realdata
def test_real_images_saved_again_are_recognised(real_data: Path) -> None:
    """As in the figures of ``ddtl/data/download/verifying.py``, on a few images."""
    for name in registry.ORIGINS:
        rows = read_index(name)
        checker = Checker(rows)
        for row in random.Random(0).sample(rows, 12):
            with Image.open(real_data / name / row.sample_id) as published:
                image = published.convert("RGB")
            half = image.resize((image.width // 2, image.height // 2))
            again = [encoded(image, "JPEG", quality=50), encoded(half, "JPEG", quality=75), encoded(half, "BMP")]
            assert {checker.examine(data, row).state for data in again} == {State.SAME}, row.sample_id


@pytest.mark.realdata
def test_real_images_that_changed_places_are_noticed(real_data: Path) -> None:
    """Neighbouring slices of one chest, at most 20 bits apart, but no twins."""
    rows = read_index("sarscov2ct")
    checker = Checker(rows)
    pairs = [
        (one, other)
        for i, one in enumerate(rows)
        for other in rows[i + 1 :]
        if one.cluster_id and one.cluster_id == other.cluster_id and 10 < distance(one.dhash, other.dhash) <= 20
    ]
    assert len(pairs) > 50
    for one, other in pairs:
        data = (real_data / "sarscov2ct" / one.sample_id).read_bytes()
        assert checker.examine(data, other).state is State.OTHER, (one.sample_id, other.sample_id)
