"""A run's scores at the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from ddtl.evaluation import test_use
from ddtl.reports.html import format
from ddtl.schema.scores import PER_CLASS, SCORES
from ddtl.utils import console

if TYPE_CHECKING:
    from ddtl.schema.run import Config
    from ddtl.training.run import RunResult


def run_result(config: Config, result: RunResult) -> None:
    """Print the scores of a run, next to a paper's where its experiment names one, and its folder."""
    score_table(result.results)
    if config.run.published is not None:
        published_table(config.run.published.model_dump(), result.results)
    console.line(f"results: {result.folder}")


def score_table(results: Mapping[str, Any]) -> None:
    """Print the scores of a run with their intervals and what they rest on; of over two classes those of each."""
    splits = [split for split in ("val", "test") if split in results]
    classes = ", ".join(results["classes"])
    what = f"classes {classes}" if results["positive"] is None else f"positive class {results['positive']}"
    title = f"{results['dataset']} · protocol {results['protocol']} · {what}"
    columns = {f"{split}, by image": results[split] for split in splits}
    by_patient = {f"{split}, by patient": results[split].get("patients", {"why_not": ""}) for split in splits[-1:]}
    columns |= {heading: scores for heading, scores in by_patient.items() if "why_not" not in scores}
    table = Table(title=escape(title), title_justify="left")
    table.add_column("score")
    for heading in columns:
        table.add_column(heading, justify="right")
    for name in SCORES:
        table.add_row(name, *(_with_interval(scores, name) for scores in columns.values()))
    table.add_section()
    for unit in ("images", "groups", "patients"):
        counts = [scores.get(unit) for scores in columns.values()]
        table.add_row(unit, *(str(n) if isinstance(n, int) else "" for n in counts))
    console.out.print(table)
    if splits and "per_class" in results[splits[-1]]:
        _class_table(results[splits[-1]]["per_class"], splits[-1])
    _undefined(results, splits)
    _rules(results)
    for name, about in (("majority", "the majority class"), ("file_facts", "file metadata alone, no pixel")):
        scores = results.get("baselines", {}).get(name, {"why_not": ""})
        if "why_not" not in scores:
            shown = f"ROC AUC {_with_interval(scores, 'roc_auc')}, accuracy {_with_interval(scores, 'accuracy')}"
            level = scores.get("level")
            own = "" if level in (None, results["interval"]["level"]) else f" (intervals of {format.level(level)})"
            console.out.print(f"test set by {about}, by image: {shown}{own}")
    for warning in results["warnings"]:
        console.out.print(f"! {escape(warning)}", style="yellow")
    for finding in (results.get("audit") or {"findings": []})["findings"]:
        if finding["severity"] == "fail":
            console.out.print(f"! audit: {escape(finding['title'])}", style="yellow")
    if "test" in results:
        console.out.print(escape(test_use.label(results)))
        if not test_use.is_first(results):
            console.out.print(f"! {escape(test_use.history(results))}", style="yellow")


def _undefined(results: Mapping[str, Any], splits: Sequence[str]) -> None:
    """Print why scores have no value."""
    for split in splits:
        names_by_reason: dict[str, list[str]] = {}
        for name, reason in results[split].get("undefined", {}).items():
            names_by_reason.setdefault(reason, []).append(name)
        for reason, names in names_by_reason.items():
            console.out.print(f"(–: {split} has no {', '.join(names)}: {escape(reason)})")


def _rules(results: Mapping[str, Any]) -> None:
    """Print how intervals and decisions were made."""
    if "interval" in results:
        interval = results["interval"]
        console.out.print(f"({format.level(interval['level'])} intervals: {escape(interval['assumes'])})")
        rule = results["threshold_rule"]
        chosen = "" if rule == "fixed" else f", chosen on validation by {rule}"
        if results["positive"] is not None:
            console.out.print(f"threshold {results['threshold']:.4f}{chosen}")
    if "refitted" in results:
        again = results["refitted"]
        shown = f"accuracy {_with_interval(again['test'], 'accuracy')}, threshold {again['threshold']:.4f}"
        console.out.print(f"{escape(again['note'])} {shown}")


def _with_interval(scores: Mapping[str, Any], name: str) -> str:
    interval = scores.get("intervals", {}).get(name)
    if interval is None or scores[name] is None:
        return _format_score(scores[name])
    return f"{scores[name]:.3f} ({interval['low']:.3f}–{interval['high']:.3f})"


def _class_table(per_class: Mapping[str, Any], split: str) -> None:
    table = Table(title=f"{split}, each class against all others", title_justify="left")
    table.add_column("class")
    for heading in (*PER_CLASS, "images"):
        table.add_column(heading, justify="right")
    for name, scores in per_class.items():
        table.add_row(escape(name), *(_format_score(scores[key]) for key in PER_CLASS), str(scores["images"]))
    console.out.print(table)


def published_table(published: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Print the numbers of a paper next to ours."""
    table = Table(title=escape(published["source"]), title_justify="left")
    for heading in ("test score", "published", "obtained, by image"):
        table.add_column(heading, justify="right" if heading != "test score" else "left")
    for name, value in published["scores"].items():
        own = _format_score(results["test"].get(name)) if "test" in results else "–"
        table.add_row(name, _format_score(value), own)
    table.add_section()
    table.add_row("protocol", published["protocol"], results["protocol"])
    console.out.print(table)


def _format_score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
