"""``ddtl.audit``: the command's record, its findings as a table, and what is no audit."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import ddtl
from ddtl.commands import cli
from ddtl.config.load import load
from ddtl.data.datasets import registry
from tests.support import audits, fork_server

SMALL: dict[str, Any] = {"dataset.phantom.n_patients": 16, "dataset.phantom.slices_per_patient": 1,
                         "dataset.phantom.size": 64}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders in which one image is twice, with both labels."""
    root = tmp_path_factory.mktemp("images")
    manifest = registry.build(load(["dataset=phantom", *(f"{key}={value}" for key, value in SMALL.items())]), None)
    for sample in manifest.samples:
        to = root / manifest.classes[sample.label] / f"{sample.patient_id}_0.png"
        to.parent.mkdir(exist_ok=True)
        shutil.copyfile(sample.path, to)
    one, other = (next((root / name).iterdir()) for name in manifest.classes)
    shutil.copyfile(one, other.with_name("copy_0.png"))
    return root


def test_it_is_the_commands_audit_with_its_findings_as_a_table(images: Path, tmp_path: Path) -> None:
    words = [f"dataset.root={images}", "dataset.name=ours", "dataset.patient_regex='(.+)_'"]
    found = ddtl.audit("dataset=folder", *words, **{"paths.runs_dir": str(tmp_path / "a")})
    assert found.path == tmp_path / "a" / "audits" / "ours"
    assert (found.path / "report.html").exists()
    table = found.findings
    assert list(table.columns) == ["severity", "check", "datasets", "finding", "meaning", "fix"]
    conflict = table[table["check"] == "label conflicts"].iloc[0]
    assert (conflict["severity"], conflict["datasets"]) == ("fail", "ours")
    assert "<table" in found._repr_html_()
    assert conflict["finding"] in found._repr_html_()
    (excluded,) = found.exclude.items()
    assert excluded == ("ours", found.path / "exclude.csv")
    assert excluded[1].exists()
    assert cli.main(["audit", "dataset=folder", *words, f"paths.runs_dir={tmp_path / 'b'}"]) == 0
    typed = json.loads((tmp_path / "b/audits/ours/audit.json").read_text())
    untimed = ("when", "seconds", "command")
    assert {key: one for key, one in typed.items() if key not in untimed} == {
        key: one for key, one in json.loads((found.path / "audit.json").read_text()).items() if key not in untimed
    }
    again = ddtl.load(found.path)
    assert isinstance(again, ddtl.Audit)
    assert again.findings.equals(table)
    assert ddtl.load("ours", folder=tmp_path / "a").path == found.path
    assert repr(again) == f"Audit({str(found.path)!r})"


def test_without_a_finding_the_table_is_empty(tmp_path: Path) -> None:
    clean = audits.record(audits.audit(tmp_path / "images", clean=True))
    (tmp_path / "audit.json").write_text(json.dumps({**clean, "findings": []}))
    found = ddtl.Audit(tmp_path)
    assert len(found.findings) == 0
    assert "nothing found" in found._repr_html_()


def test_what_is_no_audit_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(ddtl.UserError, match=r"there is no audit\.json in it"):
        ddtl.Audit(tmp_path)
    with pytest.raises(ddtl.UserError, match="is the exit code of the command"):
        ddtl.audit("phantom", strict=True)
    with pytest.raises(ddtl.UserError, match="Did you mean phantom"):
        ddtl.audit("phantm")


@pytest.mark.slow
def test_a_script_is_not_run_again_by_the_processes_that_decode(tmp_path: Path) -> None:
    """As a person writes it: nothing is guarded by the name of the main module."""
    settings = {**SMALL, "dataset.phantom.n_patients": 80, "paths.runs_dir": str(tmp_path / "runs")}
    script = tmp_path / "script.py"
    script.write_text(f"import ddtl\nprint('begins')\nprint(len(ddtl.audit('phantom', **{settings!r}).findings))\n")
    done = fork_server.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("begins") == 1
