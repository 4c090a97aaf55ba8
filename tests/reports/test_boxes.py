"""By bounding boxes in a browser: nothing on a page is cut off, and no two texts cover each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ddtl.commands import compare, report
from ddtl.reports.html.page import Estimate, Forest, Headline, Page, Row, Section, Table, render, ticks_around
from ddtl.reports.study import report as study_report
from ddtl.reports.sweep import report as sweep_report
from ddtl.reports.sweep.record import Sweep
from tests.reports.test_audit_page import rendered as rendered_audit
from tests.support import audits, browser, explained, hospital, records, study_records, sweep_records
from tests.support.browser import write_page

# Every line of text that is seen, with its box; those within charts are apart, and checked against their chart.
_SCRIPT = """(() => {
  const seen = (element) => element.checkVisibility() && !element.closest("script, style, noscript, nav, template");
  const lines = [], problems = [];
  const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = words.nextNode()); ) {
    const parent = node.parentElement;
    if (!node.textContent.trim() || !seen(parent) || parent.closest(".chart")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const text = node.textContent.trim().slice(0, 40);
    for (const box of range.getClientRects()) {
      if (box.width < 2) continue;
      lines.push({ text, box });
      const room = parent.closest(".scroll");
      if (!room && (box.right > innerWidth + 1 || box.left < -1)) problems.push(`outside the page: ${text}`);
    }
  }
  const covers = (a, b) => {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    return wide > 3 && high > 0.35 * Math.min(a.height, b.height);
  };
  lines.sort((a, b) => a.box.top - b.box.top);
  lines.forEach((a, i) => {
    for (let j = i + 1; j < lines.length && lines[j].box.top < a.box.bottom; j++)
      if (covers(a.box, lines[j].box)) problems.push(`one over the other: ${a.text} | ${lines[j].text}`);
  });
  for (const element of document.querySelectorAll("main *")) {
    const style = getComputedStyle(element);
    if (style.overflowX === "visible" || !seen(element) || element.closest("svg")) continue;
    if (element.scrollWidth > element.clientWidth + 1 && !(MAY_SCROLL && element.matches(".scroll")))
      problems.push(`cut off: ${element.className} ${element.textContent.trim().slice(0, 40)}`);
  }
  for (const chart of document.querySelectorAll(".chart")) {
    if (!seen(chart)) continue;
    const room = chart.getBoundingClientRect();
    const texts = [...chart.querySelectorAll(".xtick text, .ytick text, .legendtext, .xtitle, .ytitle, .y2title")];
    const boxes = texts.map((one) => [one.textContent.slice(0, 30), one.getBoundingClientRect()]);
    boxes.forEach(([text, box], i) => {
      const out = Math.max(room.left - box.left, box.right - room.right, room.top - box.top, box.bottom - room.bottom);
      if (box.width && out > 2) problems.push(`cut off in a chart: ${text}`);
      const turned = texts[i].getAttribute("transform")?.match(/rotate\\(-?(?!0[,)])/);
      for (const [other, its] of boxes.slice(i + 1))
        if (!turned && covers(box, its)) problems.push(`one over the other in a chart: ${text} | ${other}`);
    });
  }
  return problems;
})()"""


def _run(folder: Path) -> Path:
    run = records.write(folder / "densenet121-full-s0-0123456789")
    explained.write(run)
    return report.write(run)


def _leaky(folder: Path) -> Path:
    return report.write(records.write(folder / "run", protocol="random", leaked_share=0.87))


def _classes(folder: Path) -> Path:
    return report.write(records.write(folder / "run", records.table(("normal", "CAP", "COVID"))))


def _sweep(folder: Path) -> Path:
    return write_page(folder, sweep_report.render_sweep(Sweep(sweep_records.record(final=sweep_records.final()))))


def _audit(folder: Path) -> Path:
    return write_page(folder, rendered_audit(audits.audit(folder / "images")))


def _comparison(folder: Path) -> Path:
    page = folder / "compared.html"
    assert compare.main([*map(str, hospital.good_and_poor(folder)), f"html={page}", "replicates=100"]) == 0
    return page


def _study(folder: Path) -> Path:
    return study_report.write(study_records.cross_dataset(folder))


def problems(tab: browser.Tab, page: Path, width: int) -> list[str]:
    tab.show(page, width=width)
    found = tab.run(_SCRIPT.replace("MAY_SCROLL", "true" if width < 1280 else "false"))
    assert isinstance(found, list)
    return found


MAKERS = (_run, _leaky, _classes, _sweep, _audit, _comparison, _study)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("make", MAKERS)
def test_nothing_is_cut_off_and_nothing_covers_another(
    tab: browser.Tab, tmp_path: Path, make: Callable[[Path], Path], width: int
) -> None:
    assert problems(tab, make(tmp_path), width) == []


def test_the_check_finds_what_it_is_for(tab: browser.Tab, tmp_path: Path) -> None:
    wide = Table("wide", ["", *(f"column {i}" for i in range(40))], [["row", *["0.123"] * 40]])
    page = write_page(tmp_path, render(Page("kind", "title", sections=[Section("one", [wide])])))
    assert any("cut off: scroll" in one for one in problems(tab, page, 1280))
    html = page.read_text(encoding="utf-8").replace("<h2>one</h2>", "<h2>one</h2><p>first</p><p>second</p>")
    style = "section p + p { margin-top: -2.2rem !important; }"
    page = write_page(
        tmp_path, html.replace("<style>", f"<style>{style}</style><style>").replace("Content-Security", "x")
    )
    assert "one over the other: first | second" in problems(tab, page, 1280)


def test_a_forest_is_read_as_a_table_and_its_marks_are_where_the_numbers_are(tab: browser.Tab, tmp_path: Path) -> None:
    rows = [Estimate("a model", 0.75, 0.5, 1.0, "0.750 (0.500–1.000)"), Estimate("nothing", None, None, None, "–")]
    chart = Forest("ROC AUC", "ROC AUC", rows, (0, 0.5, 1), 0.5)
    page = write_page(tmp_path, render(Page("kind", "title", sections=[Section("one", [Row([chart, chart])])])))
    for width in (1280, 390):
        assert problems(tab, page, width) == []
        at = (
            "(m => (r => [r.left, r.right])(m.getBoundingClientRect()))(document.querySelector('.forest svg SELECTED'))"
        )
        lines = "document.querySelectorAll('.forest [role=row]:first-child .grid')"
        grid = f"[...{lines}].slice(0, 3).map(l => l.getBoundingClientRect().left)"
        left, middle, right = tab.run(grid)
        low, high = tab.run(at.replace("SELECTED", "rect"))
        assert (low, high) == pytest.approx((middle, right), abs=1)
        circle = tab.run(at.replace("SELECTED", "circle"))
        assert sum(circle) / 2 == pytest.approx(left + 0.75 * (right - left), abs=1)
    assert tab.run("document.querySelectorAll('.forest [role=cell]')[1].textContent") == "–"
    assert tab.run("document.querySelectorAll('.forest [role=row]')[1].querySelectorAll('.mark').length") == 0


@pytest.mark.parametrize(
    ("ends", "reference", "expected"),
    [
        ((0.55, 0.99), 0.5, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        ((-0.03, 0.061), 0.0, [-0.04, -0.02, 0.0, 0.02, 0.04, 0.06, 0.08]),
        ((0.5, 0.5), 0.5, None),
    ],
)
def test_ticks_are_round_and_around_all(
    ends: tuple[float, float], reference: float, expected: list[float] | None
) -> None:
    found = ticks_around([Estimate("", None, *ends, "")], reference)
    assert found[0] <= min(*ends, reference) <= max(*ends, reference) <= found[-1]
    assert len(found) in range(2, 10)
    assert expected is None or found == pytest.approx(expected)


def test_a_marked_headline_shows_its_mark() -> None:
    html = render(Page("kind", "title", answer="It is so.", headlines=[Headline("ROC AUC", "0.98", "", "leaky split")]))
    assert '<div class="marked"><dt>ROC AUC</dt><dd><strong>0.98 <em>leaky split</em></strong></dd></div>' in html
    assert '<p class="answer">It is so.</p>' in html
