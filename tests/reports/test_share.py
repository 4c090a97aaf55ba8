"""Pages to be shared: no picture of a patient, and no name of an image, a patient or a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from ddtl.audits import burned_in
from ddtl.commands import report
from ddtl.reports.audit.report import page
from ddtl.reports.html.masking import Names
from ddtl.utils.errors import UserError
from tests.reports.test_audit_page import hostile, pictures
from tests.reports.test_run_page import HOSTILE
from tests.support import audits, explained, records, study_records, sweep_records


def shared(folder: Path) -> str:
    """The page that the command writes."""
    before = {path.name for path in folder.iterdir()}
    assert report.main([str(folder), "share=true"]) == 0
    assert {path.name for path in folder.iterdir()} == before | {"share.html"}
    return (folder / "share.html").read_text(encoding="utf-8")


def holds_no_picture(html: str) -> None:
    body = re.sub(r"<script>.*?</script>|<style.*?</style>", "", html, flags=re.DOTALL)
    assert "<img" not in body
    assert "data:" not in re.sub(r"img-src data:", "", body)


def test_a_run_without_cases_and_patients(tmp_path: Path) -> None:
    run = records.write(tmp_path / "runs" / "d" / "run")
    explained.write(run)
    html = shared(run)
    holds_no_picture(html)
    ids = set(records.table().sample_id) | set(records.table().patient_id)
    for name in [*ids, f"{HOSTILE[0]} true_positives", str(tmp_path)]:
        assert str(name) not in html
    assert "Scores" in html
    assert "true_positives" not in html


def test_text_of_the_record_names_nobody(tmp_path: Path) -> None:
    table = records.table()
    sample, patient = str(table.sample_id[0]), str(table.patient_id[-1])
    notes = [f"Look at {sample}!", f"({patient}) is twice there.", "The file test-patient-3/0.png, and 96 images."]
    run = records.write(tmp_path / "runs" / "d" / "run", warnings=notes, threshold_note=f"Without {patient}.")
    html = shared(run)
    for name in {*map(str, table.sample_id), *map(str, table.patient_id)}:
        assert name not in html
    assert "Look at …!" in html
    assert "(…) is twice there." in html
    assert "The file …, and 96 images." in html


def test_names_are_masked_and_words_and_numbers_stay() -> None:
    hidden = Names(["12", "a/p0001_s0", "Müller, Jan", "P7", "", "  ", "#", "covid/P1 (2).png"])
    for text, shown in {
        "patient 12 of 12 images": "patient … of 12 images",
        "a/p0001_s0, a/p0001_s01": "…, a/p0001_s01",
        "by Müller, Jan.": "by ….",
        "sample P7, P7 and P70": "sample …, P7 and P70",
        "covid/P1 (2).png is covid/P1": "… is covid/P1",
        "# of 12 patients": "# of 12 patients",
    }.items():
        assert hidden.masked(text) == shown
    record = {"classes": ["a/p0001_s0"], "x": ["a/p0001_s0", 12, None], "a/p0001_s0": {"note": "a/p0001_s0"}}
    assert hidden.masked(record) == {"classes": ["a/p0001_s0"], "x": ["…", 12, None], "a/p0001_s0": {"note": "…"}}


def test_a_study(tmp_path: Path) -> None:
    folder = study_records.cross_dataset(tmp_path / "runs")
    html = shared(folder)
    holds_no_picture(html)
    for name in set(records.table().patient_id) | set(records.table().sample_id):
        assert str(name) not in html


def test_text_of_a_study_names_nobody(tmp_path: Path) -> None:
    table = study_records.answers("alpha", 3.0, 0).predictions
    sample, patient = str(table.sample_id[0]), str(table.patient_id[-1])
    job = study_records.run(tmp_path / "runs", "alpha", 0, {})
    record = tmp_path / "runs" / job["run"] / "results.json"
    record.write_text(
        json.dumps({**json.loads(record.read_text()), "warnings": [f"Look at {sample}, patient {patient}!"]})
    )
    broken = study_records.failed("beta", 0, [], f"{sample} of patient secret-name cannot be read")
    folder = study_records.study(tmp_path / "runs", "cross_dataset", [job, broken])
    assert report.main([str(folder)]) == 0
    assert all(name in (folder / "report.html").read_text() for name in (sample, f"patient {patient}!", "secret-name"))
    html = shared(folder)
    assert "Look at …, patient …!" in html
    assert "the reason is in study.json" in html
    assert not any(name in html for name in (sample, f"patient {patient}", "secret-name"))


def test_a_sweep(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "sweeps" / "s"
    folder.mkdir(parents=True)
    record = sweep_records.record()
    for trial in record["trials"]:
        trial["words"] = trial["words"] and "patients/secret-name.png cannot be read"
    (folder / "sweep.json").write_text(json.dumps(record))
    html = shared(folder)
    holds_no_picture(html)
    assert "excluded from a page to share" in html
    assert "secret-name" not in html


def test_an_audit_counts_what_it_found(tmp_path: Path) -> None:
    found = audits.audit(tmp_path / "images")
    folder = tmp_path / "runs" / "audits" / "chest"
    folder.mkdir(parents=True)
    (folder / "audit.json").write_text(json.dumps(audits.record(found, command=f"ddtl audit dataset.root={tmp_path}")))
    html = shared(folder)
    holds_no_picture(html)
    samples = found.subjects[0].manifest.samples
    for name in {sample.sample_id for sample in samples} | {sample.patient_id for sample in samples} | {str(tmp_path)}:
        if name and len(name) > 2:
            assert name not in html
    for finding in found.findings:
        assert finding.title.lower()[:30] in html.lower().replace("&#39;", "'")
    assert "by name in audit.json" in html
    with pytest.raises(UserError, match="share=true"):
        report.main([str(folder)])


def with_letters(gray: Image.Image, text: str) -> Image.Image:
    """A slice within a black frame, in whose corner something is written."""
    framed = Image.new("L", (gray.width + 160, gray.height + 160))
    framed.paste(gray, (80, 80))
    ImageDraw.Draw(framed).text((8, 8), text, fill=255, font_size=16)
    return framed


def body() -> Image.Image:
    """A chest: an ellipse of tissue with two lungs in it."""
    found = Image.new("L", (352, 352))
    draw = ImageDraw.Draw(found)
    draw.ellipse((20, 60, 332, 300), fill=140)
    for left in (60, 190):
        draw.ellipse((left, 100, left + 100, 260), fill=30)
    return found


@pytest.mark.parametrize(("text", "seen"), [("", False), ("J DOE 1971", True), ("DOE^JANE 2020-01-01", True)])
def test_letters_beside_the_body_are_seen(text: str, seen: bool) -> None:
    assert burned_in.has_text(with_letters(body(), text)) is seen


def test_the_page_of_an_audit_warns_of_letters(tmp_path: Path) -> None:
    found = hostile(tmp_path)
    some = pictures(found)
    ends = [end for pair in some for end in pair.ends]
    for end in ends:
        object.__setattr__(end, "with_text", False)
    assert "to hold text" not in page(audits.record(found), some)
    object.__setattr__(ends[0], "with_text", True)
    assert "1 of the images below seems to contain text or arrows" in page(audits.record(found), some)


def test_the_page_of_a_run_warns_of_letters(tmp_path: Path) -> None:
    run = records.write(tmp_path / "run")
    record = explained.write(run)
    record["groups"][0]["images"][0]["with_text"] = True
    (run / "explain" / "explain.json").write_text(json.dumps(record))
    report.main([str(run)])
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "1 of 2 images seems to contain text or arrows outside the body" in html
    report.main([str(run), "images=false"])
    assert "to hold text or arrows" not in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.realdata
def test_how_often_text_is_seen_in_public_images(real_data: Path) -> None:
    from ddtl.data.images.decode import decode_gray
    from ddtl.data.images.image_file import read_bytes

    for dataset, low, high in (("sarscov2ct", 0.0, 0.05), ("covid19ct", 0.5, 0.75)):
        files = sorted(path for path in (real_data / dataset).rglob("*") if path.suffix in (".png", ".jpg"))[::4]
        seen = [burned_in.has_text(decode_gray(read_bytes(path), path)) for path in files]
        assert len(seen) > 150
        assert low <= sum(seen) / len(seen) <= high
