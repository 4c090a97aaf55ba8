"""What an audit says, and how results and reports of runs repeat it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ddtl.audits import findings
from ddtl.audits.record import SEVERITIES, newest
from ddtl.commands import report
from ddtl.reports.run import audit_section, methods, report as run_report, stored
from ddtl.utils.files import write_json
from tests.support import audits, records

DIGEST = "d1" * 32


def filed(runs_dir: Path, record: dict[str, Any], name: str = "chest") -> Path:
    folder = runs_dir / "audits" / name
    folder.mkdir(parents=True)
    write_json(folder / "audit.json", record)
    return folder


def test_the_record_is_json_and_the_gravest_comes_first(tmp_path: Path) -> None:
    record = audits.record(audits.audit(tmp_path))
    assert json.loads(json.dumps(record, allow_nan=False)) == json.loads(json.dumps(record))
    order = [SEVERITIES.index(finding["severity"]) for finding in record["findings"]]
    assert order == sorted(order)
    fails = [finding["check"] for finding in record["findings"] if finding["severity"] == "fail"]
    assert fails == ["duplicates across splits", "label conflicts", "patients across splits"]
    assert record["pairs"] == {
        "total": 3, "same file": 1, "same pixels": 1, "near": 1,
        "across_splits": 1, "across_labels": 1, "across_datasets": 0,
    }  # fmt: skip
    one = record["datasets"][0]
    assert (one["images"], one["unreadable"], one["test_images"], one["leaked_test_images"]) == (24, 1, 6, 1)
    assert one["to_leave_out"] == 5


def test_what_runs_repeat_names_no_image_and_no_patient(tmp_path: Path) -> None:
    names = tuple(f"scan-of-mrs-smith-{i}.png" for i in range(24))
    found = audits.audit(tmp_path / "images", names=names)
    assert found.failed
    filed(tmp_path, audits.record(found))
    text = json.dumps(newest(tmp_path, "chest", DIGEST))
    assert "smith" not in text
    assert "p1" not in text


def test_the_newest_audit_of_just_these_images_counts(tmp_path: Path) -> None:
    found = audits.audit(tmp_path / "images")
    clean = audits.audit(tmp_path / "clean", clean=True)
    assert newest(tmp_path, "chest", DIGEST) is None
    filed(tmp_path, audits.record(clean, when="2026-11-23T12:00:00+00:00"), "chest")
    filed(tmp_path, audits.record(found, when="2026-11-24T12:00:00+00:00"), "chest-and-another")
    newer = newest(tmp_path, "chest", DIGEST)
    assert newer is not None
    assert (newer["when"][:10], len(newer["findings"])) == ("2026-11-24", len(found.findings))
    assert newest(tmp_path, "chest", "0" * 64) is None
    assert newest(tmp_path, "brain", DIGEST) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"x"'])
def test_a_damaged_audit_is_passed_over_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    filed(tmp_path, {})
    (tmp_path / "audits" / "chest" / "audit.json").write_text(text)
    assert newest(tmp_path, "chest", DIGEST) is None
    assert "is damaged and is passed over" in caplog.text


def test_findings_about_another_dataset_are_not_repeated(tmp_path: Path) -> None:
    record = audits.record(audits.audit(tmp_path / "images"))
    record["findings"][0]["datasets"] = ["brain"]
    record["findings"][1]["datasets"] = ["brain", "chest"]
    filed(tmp_path, record)
    kept = newest(tmp_path, "chest", DIGEST)
    assert kept is not None
    assert [f["check"] for f in kept["findings"]] == [f["check"] for f in record["findings"][1:]]


# --- clear words -----------------------------------------------------------------------------------------------------


def test_one_image_one_class_no_patients(tmp_path: Path) -> None:
    one = next(findings.classes(audits.manifest(tmp_path / "one", 1)))
    assert one.sentence.startswith("The dataset contains one image")
    alone = audits.manifest(tmp_path / "alone", 4, classes=("covid",))
    assert next(findings.classes(alone)).sentence.startswith("All 4 images are of the class covid")
    assert list(findings.classes(audits.manifest(tmp_path / "two", 4))) == []
    unnamed = audits.manifest(tmp_path / "unnamed", 4, patients=False)
    (found,) = findings.patients(unnamed, {})
    assert (found.severity, found.title) == ("warn", "no patients are named")
    assert "dataset.patient_regex" in found.fix


def test_corrupt_images_are_counted_in_the_sentence_and_named_in_the_details(tmp_path: Path) -> None:
    found = audits.manifest(tmp_path, 4)
    (finding,) = findings.unreadable(found, {"001.png": "is empty (0 bytes)"})
    assert finding.title == "1 image cannot be read"
    assert finding.details == {"images": {"001.png": "is empty (0 bytes)"}}
    assert list(findings.unreadable(found, {})) == []


def test_a_refused_split_is_a_finding(tmp_path: Path) -> None:
    (finding,) = findings.split(audits.manifest(tmp_path, 4), "p1 has images in train (a) and test (b).")
    assert finding.details["message"].startswith("p1")
    assert "p1" not in finding.sentence


# --- reports of runs -------------------------------------------------------------------------------------------------


def told(tmp_path: Path, **changes: Any) -> stored.Stored:
    return stored.read(records.write(tmp_path / "runs" / "covid19ct" / "run", **changes))


def summary(tmp_path: Path, *, clean: bool = False) -> dict[str, Any]:
    filed(tmp_path, audits.record(audits.audit(tmp_path / "images", clean=clean)))
    found = newest(tmp_path, "chest", DIGEST)
    assert found is not None
    return found


def test_a_report_names_the_command_where_there_is_no_audit(tmp_path: Path) -> None:
    found = told(tmp_path)
    assert "ddtl audit dataset=covid19ct" in run_report.render_run(found)
    assert "were not audited" in methods.render(found)
    assert not audit_section.warnings(found)


def test_a_report_tells_every_finding_and_warns_of_the_gravest(tmp_path: Path) -> None:
    audit = summary(tmp_path)
    found = told(tmp_path, audit=audit)
    page = run_report.page(found)
    text = run_report.render_run(found)
    section = next(section for section in page.sections if section.title == "Audit")
    assert len(section.blocks) == 1 + len(audit["findings"])
    for finding in audit["findings"]:
        assert finding["sentence"].replace("'", "&#39;") in text
    fails = [f["sentence"] for f in audit["findings"] if f["severity"] == "fail"]
    assert [w for w in page.warnings if w.startswith("The audit")] == [
        f"The audit of the dataset found: {sentence}" for sentence in fails
    ]
    assert "1 of 6 test images" in methods.render(found)


def test_a_clean_audit_is_told_too(tmp_path: Path) -> None:
    found = told(tmp_path, audit=summary(tmp_path, clean=True))
    assert "nothing found" in run_report.render_run(found)
    assert "nothing was found" in methods.render(found)


def test_results_made_with_a_list_say_so(tmp_path: Path) -> None:
    found = told(tmp_path, excluded={"images": 61, "list_digest": "ab" * 32})
    sentence = "Excluded by a list (dataset.exclude, sha256 abababababab): 61 images"
    assert sentence in run_report.render_run(found)
    assert "61 images, which no count and no score includes" in methods.render(found)
    assert "Excluded by a list" not in run_report.render_run(told(tmp_path / "other"))


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [
        (("dataset=covid19ct", "seed=3", "dataset.batch_size=8"), "ddtl audit dataset=covid19ct"),
        (("dataset=covid19ct", "dataset.protocol=random"), "ddtl audit dataset=covid19ct dataset.protocol=random"),
        (
            ("dataset=phantom", "dataset.phantom.shortcut=0.8", "dataset.phantom.sites=[a,b]"),
            "ddtl audit dataset=phantom 'dataset.phantom.sites=[a, b]' dataset.phantom.shortcut=0.8",
        ),
        (("dataset=covid19ct", f"dataset.exclude={__file__}"), "ddtl audit dataset=covid19ct dataset.exclude=FILE"),
        (
            ("dataset=table", f"dataset.table={__file__}", "dataset.name=mine"),
            "ddtl audit dataset=table dataset.name=mine dataset.table=FILE",
        ),
        (("experiment=ddtl_cov_sarscov2ct",), "ddtl audit dataset=sarscov2ct dataset.protocol=random"),
    ],
)
def test_the_command_that_would_audit_a_run(tmp_path: Path, overrides: tuple[str, ...], shown: str) -> None:
    assert audit_section.command(told(tmp_path, overrides=overrides)) == shown


def test_an_evaluation_elsewhere_names_the_other_dataset(tmp_path: Path) -> None:
    home = records.write(tmp_path / "run")
    trained_on = {"dataset": "covid19ct", "protocol": "official", "run": "run"}
    folder = home / "evaluations" / "sarscov2ct-grouped"
    records.write(folder, dataset="sarscov2ct", trained_on=trained_on)
    write_json(
        folder / "environment.json",
        {"command": ["ddtl", "evaluate", "runs/x", "dataset=sarscov2ct", "paths.data_dir=/x"]},
    )
    assert audit_section.command(stored.read(folder)) == "ddtl audit dataset=sarscov2ct"


def test_the_report_written_again_takes_in_an_audit_made_since(tmp_path: Path) -> None:
    runs_dir = tmp_path / "runs"
    folder = records.write(runs_dir / "chest" / "run", dataset="chest", digest=DIGEST)
    assert report.main([str(folder)]) == 0
    assert json.loads((folder / "results.json").read_text()).get("audit") is None
    filed(runs_dir, audits.record(audits.audit(tmp_path / "images")))
    assert report.main([str(folder)]) == 0
    audit = json.loads((folder / "results.json").read_text())["audit"]
    assert audit == newest(runs_dir, "chest", DIGEST)
    assert audit["findings"][0]["sentence"] in (folder / "report.html").read_text()


def test_a_probe_that_is_not_found_for_sure_is_a_note(tmp_path: Path) -> None:
    """Its interval excludes chance: the run's page calls it a shortcut, and so the audit does not pass over it."""
    sure, unsure, chance = (
        audits.probe("file metadata", auc, verdict, low=low, high=1.0)
        for auc, verdict, low in (
            (0.95, "shortcut", 0.89),
            (1.0, "nothing found", 0.531),
            (0.51, "nothing found", 0.42),
        )
    )
    found = list(findings.shortcuts("chest", [sure, unsure, chance]))
    assert [(one.check, one.severity) for one in found] == [
        ("shortcut: file metadata", "warn"),
        ("unsure: file metadata", "note"),
    ]
    assert "its lower limit above 0.55" in found[1].sentence


def test_methods_say_nothing_was_found_only_where_the_run_found_nothing_either(tmp_path: Path) -> None:
    audit = {"ddtl": "1.0", "when": "2026-11-23T12:00:00+00:00", "checks": 9, "findings": [], "power": None}
    texts = {}
    for name, value, low in (("shortcut", 1.0, 0.531), ("none", 0.5, 0.4)):
        baselines = {
            "file_facts": {"roc_auc": value, "intervals": {"roc_auc": {"low": low, "high": 1.0, "method": "logit"}}}
        }
        texts[name] = audit_section.text(stored.read(records.write(tmp_path / name, audit=audit, baselines=baselines)))
    assert "nothing was found by it; the run's own baseline of file metadata did." in texts["shortcut"]
    assert texts["none"].endswith("; nothing was found.")
