"""The page of an audit: what it says, that it is one safe file, and what a browser makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ddtl.audits.audit import Audit
from ddtl.reports.audit.pairs import MOST, PairView, pair_views, worst_first
from ddtl.reports.audit.report import page
from ddtl.reports.html.page import Photo
from tests.reports.test_run_page import HOSTILE, Parsed
from tests.support import audits, browser

MEGABYTE = 1_000_000


def pictures(found: Audit) -> list[PairView]:
    return pair_views(found.pairs, found.leaks, [subject.manifest for subject in found.subjects])


def rendered(found: Audit, **changes: Any) -> str:
    return page(audits.record(found, **changes), pictures(found))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return audits.audit(tmp_path_factory.mktemp("images"))


def test_findings_come_first_each_with_what_to_do(found: Audit) -> None:
    text = Parsed(rendered(found)).text
    places = [text.index(finding.sentence) for finding in found.findings]
    assert places == sorted(places)
    assert all(finding.fix in text for finding in found.findings)
    assert places[-1] < text.index("What a classifier scores")


def test_every_number_of_the_tables_stands_on_the_page(found: Audit) -> None:
    text = Parsed(rendered(found)).text
    assert "file metadata 0.951 (0.886–0.980) 0.880 (0.820–0.930) 0.520 0.500 (0.440–0.560) 203 shortcut" in text
    assert "coarse statistics 0.870" in text
    assert "probe: marks chest no: there is one class" in text
    assert "file size (bytes) 1,234 mean 1,500 99,999 mean 90,000 -0.81 (-0.900 to -0.700)" in text
    assert "chest: covid against normal" in text
    assert "005.png is cut off or damaged: truncated" in text
    assert "p1 train, test" in text


def test_headlines(found: Audit) -> None:
    text = Parsed(rendered(found)).text
    assert "Findings 3 failures 4 warnings, 1 note Duplicates 3 pairs 1 of identical files" in text
    assert "17 % 1 of 6" in text
    assert "Worst shortcut, ROC AUC 0.951 file metadata" in text


def test_a_clean_audit(tmp_path: Path) -> None:
    text = Parsed(rendered(audits.audit(tmp_path, clean=True))).text
    assert "Nothing was found." in text
    assert "No two images show the same, not even flipped" in text
    assert "Shortcuts none found 1 probes" not in text


def test_pairs_stand_side_by_side_the_worst_first(found: Audit) -> None:
    page_ = Parsed(rendered(found))
    images = [attrs for tag, attrs in page_.tags if tag == "img"]
    assert [image["alt"] for image in images] == ["000.png", "001.png", "000.png", "006.png", "002.png", "010.png"]
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in images)
    assert "different labels" in page_.text
    assert "rotate 90" in page_.text


def test_of_many_pairs_the_worst_are_shown_and_the_page_stays_small(tmp_path: Path) -> None:
    found = audits.audit(tmp_path, n=40)
    samples = found.subjects[0].manifest.samples
    for sample in samples:  # noise is what JPEG makes the largest files of
        Image.effect_noise((600, 500), 90).save(sample.path)
    many = [audits.pair(a, b) for a in samples for b in samples if a.sample_id < b.sample_id and a.label == b.label]
    crowded = replace(found, pairs=(*many, *found.pairs))
    html = rendered(crowded)
    assert Parsed(html).text.count("nearly the same; ") + 3 > MOST
    assert html.count("<img") == 2 * MOST
    assert f"The worst {MOST} are shown" in html
    assert len(html) < 6 * MEGABYTE
    assert worst_first(crowded.pairs, crowded.leaks)[:2] == [found.leaks.across_labels[0], found.leaks.across_splits[0]]


def test_an_image_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    found = audits.audit(tmp_path)
    (tmp_path / "001.png").unlink()
    assert len(pictures(found)) == 2


def test_a_photo_is_never_asked_of_the_network() -> None:
    with pytest.raises(AssertionError):
        Photo("https://example.org/x.png", "x")


def hostile(folder: Path) -> Audit:
    names = tuple(f"{HOSTILE[i % 4]}{i}.png" for i in range(24))
    classes = (HOSTILE[0], HOSTILE[1])
    return audits.audit(folder, dataset=HOSTILE[2], classes=classes, names=names)


def test_hostile_names_show_as_text(tmp_path: Path) -> None:
    html = rendered(hostile(tmp_path), command=f"ddtl audit {HOSTILE[0]}")
    page_ = Parsed(html)
    assert not [tag for tag, _ in page_.tags if tag == "script"]
    assert not [name for _, attrs in page_.tags for name in attrs if name.startswith("on")]
    for name in HOSTILE[:2]:
        assert name in page_.text


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1200])
def test_in_a_browser(tab: browser.Tab, tmp_path: Path, width: int, dark: bool) -> None:
    (tmp_path / "page.html").write_text(rendered(hostile(tmp_path / "images")), encoding="utf-8")
    before = len(tab.requests)
    tab.show(tmp_path / "page.html", width=width, dark=dark)
    assert tab.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in tab.requests[before:])
    assert tab.run("document.documentElement.scrollWidth <= window.innerWidth")
    loaded = "[...document.images].map(image => image.complete && image.naturalWidth > 0 && image.clientWidth > 100)"
    assert tab.run(loaded) == [True] * 6
    tab.picture(tmp_path / "page.png", whole=True)
    assert (tmp_path / "page.png").stat().st_size > 10_000
