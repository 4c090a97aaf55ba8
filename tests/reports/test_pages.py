"""Every kind of page in a browser: with hostile names, on a phone, in both schemes, for those who do not see it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddtl.commands import report
from ddtl.reports.run import lr_find
from ddtl.reports.study import report as study_report
from ddtl.reports.sweep import report as sweep_report
from tests.reports.test_audit_page import hostile as hostile_audit, rendered as rendered_audit
from tests.reports.test_run_page import HOSTILE
from tests.reports.test_study_page import hostile as hostile_study
from tests.reports.test_sweep_page import hostile as hostile_sweep
from tests.support import browser, explained, records
from tests.support.browser import write_page

PATIENCE = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


# The longest and an ugly name that a dataset may have: it is that of a folder.
LONG, UGLY = HOSTILE[3][:255], HOSTILE[0].replace("/", "|")


def _run(folder: Path) -> Path:
    run = records.write(folder / "run <i>&\"'", records.table(HOSTILE[:2]), dataset=LONG, warnings=list(HOSTILE))
    explained.write(run)
    return report.write(run)


def _evaluation(folder: Path) -> Path:
    run = records.write(folder / "run")
    there = {"dataset": UGLY, "protocol": "official", "run": LONG}
    return report.write(
        records.write(run / "evaluations" / "it", records.table(HOSTILE[:2]), dataset=LONG, trained_on=there)
    )


def _classes(folder: Path) -> Path:
    return report.write(records.write(folder / "run", records.table(HOSTILE), dataset=UGLY))


def _sweep(folder: Path) -> Path:
    return write_page(folder, sweep_report.render_sweep(hostile_sweep()))


def _study(folder: Path) -> Path:
    return study_report.write(hostile_study(folder))


def _audit(folder: Path) -> Path:
    return write_page(folder, rendered_audit(hostile_audit(folder / "images"), command=f"ddtl audit {HOSTILE[0]}"))


def _lr_find(folder: Path) -> Path:
    rates = np.geomspace(1e-6, 1, 50).tolist()
    losses = [0.7 - 0.3 * np.exp(-((np.log10(rate) + 2) ** 2)) for rate in rates]
    test = {"rules": {"steep": 1e-3, "third": 3e-3}, "lr": rates, "loss": losses, "smoothed": losses, "rate": 3e-3}
    test |= {"why_not": None, "notes": list(HOSTILE), "ended": ""}
    record = {"rules": ["steep", "third"], "tests": {"head": test, "network": test}, "command": HOSTILE[1]}
    record |= {"steps": 50, "lr_min": 1e-6, "lr_max": 1.0, "dataset": HOSTILE[3], "model": HOSTILE[0], "seed": 0}
    record |= {"finetune": HOSTILE[2], "optimizer": "adamw", "batch_size": 16, "precision": "32"}
    return write_page(folder, lr_find.page({**record, "suggestion": {"optimizer.lr": 3e-3}}))


MAKERS = (_run, _evaluation, _classes, _sweep, _study, _audit, _lr_find)


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKERS)
def test_every_kind_of_page(tab: browser.Tab, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    page = make(tmp_path)
    assert page.stat().st_size < 6_000_000
    for width, dark in ((390, False), (390, True), (1280, False)):
        del tab.complaints[:], tab.requests[:]
        tab.show(page, width=width, dark=dark)
        tab.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        tab.run(PATIENCE)
        assert tab.complaints == []
        assert [address for address in tab.requests if not address.startswith("data:")] == [page.resolve().as_uri()]
        assert tab.run("document.documentElement.scrollWidth") <= width
        # What is wider than the page scrolls within its box, which the keyboard reaches.
        out = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
        assert tab.run(f"{out} && !e.closest('.scroll')).map(e => e.outerHTML.slice(0, 80))") == []
        assert tab.run("[...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0)") is True
    # What is drawn is told in words.
    assert tab.run("[...document.images].every(i => i.alt.trim())") is True
    assert tab.run("[...document.querySelectorAll('.chart')].every(c => c.getAttribute('aria-label').trim())") is True
    drawn = "[...document.querySelectorAll('figure:not(.plot) > svg, figure:not(.plot) > div > svg')]"
    told = "s.getAttribute('role') === 'img' && (s.getAttribute('aria-label') || s.querySelector('title'))"
    hidden = "s.closest('[aria-hidden=true]')"  # the axis of a forest: its rows are a table of words and numbers
    assert tab.run(f"{drawn}.every(s => {hidden} || ({told}))") is True
    assert tab.run("[...document.querySelectorAll('.forest [role=cell]')].every(c => c.textContent.trim())") is True
    assert tab.run("[...document.querySelectorAll('th')].every(t => t.scope && t.textContent.trim())") is True
    assert tab.run("[...document.querySelectorAll('button')].every(b => b.textContent.trim())") is True
    # No two parts share a name, and every link has its part.
    linked = "[...document.querySelectorAll('nav a')].every(a => document.querySelectorAll(a.hash).length === 1)"
    assert tab.run(linked) is True
    # Whatever can be reached by the keyboard shows that it is.
    seen = "[...document.querySelectorAll('main button, main summary, main .scroll, nav a')].slice(0, 60).filter(e => {"
    seen += (
        "e.focus({focusVisible: true}); return getComputedStyle(e).outlineStyle === 'none'; }).map(e => e.outerHTML)"
    )
    assert tab.run(seen) == []
