"""A run's scores at the terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from ddtl.evaluation import test_use
from ddtl.reports.html import format
from ddtl.reports.run import sentences
from ddtl.schema.scores import PER_CLASS, SCORES, title_of
from ddtl.utils import console, wording

if TYPE_CHECKING:
    from ddtl.schema.run import Config
    from ddtl.training.results import RunResult


def run_result(config: Config, result: RunResult) -> None:
    """Print the scores of a run, next to a paper's where its experiment names one, and its folder."""
    scores(result.results, result.folder, verbose=config.verbose)
    if config.run.published is not None:
        published_table(config.run.published.model_dump(), result.results)
    console.line(f"results: {result.folder}")


def scores(results: Mapping[str, Any], folder: Path, *, verbose: bool) -> None:
    """Print the main scores and what limits them, or all; and where the page is."""
    if verbose:
        score_table(results)
    else:
        _main_scores(results)
    _doubts(results)
    page = folder / "report.html"
    if page.exists():
        more = "" if verbose else "; all scores: verbose=true"
        console.out.print(escape(f"page: {page}{more}"))


def _main_scores(results: Mapping[str, Any]) -> None:
    """Print at most five scores of the test set, or of validation, each with its unit and interval."""
    decided, what = _headline(results)
    split, unit = what.split(", ")
    by_image = results[split]
    lines = [("ROC AUC by patient", decided, "roc_auc")] if decided is not by_image else []
    lines.append(("ROC AUC by image", by_image, "roc_auc"))
    rates = ("sensitivity", "specificity") if results["positive"] is not None else ("balanced_accuracy", "accuracy")
    lines += [(f"{title_of(name)} {unit}", decided, name) for name in rates]
    metadata = results.get("baselines", {}).get("file_facts", {"why_not": ""})
    if split == "test" and "why_not" not in metadata:
        lines.append(("ROC AUC by image of file metadata alone", metadata, "roc_auc"))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), title_justify="left")
    table.title = escape(f"{results['dataset']} · protocol {results['protocol']} · {split}{_positive(results)}")
    for text, found, name in lines:
        table.add_row(text, _with_interval(found, name))
    console.out.print(table)
    shown = {name for _, found, name in lines if found[name] is None}
    _undefined(results, [split], shown)
    level = f"{format.level(results['interval']['level'])} intervals; " if "interval" in results else ""
    counts = wording.count(by_image["images"], "image")
    if isinstance(n := decided.get("patients"), int):
        counts += f" of {wording.count(n, 'patient')}"
    threshold = f"; threshold {results['threshold']:.4f}" if results["positive"] is not None else ""
    console.out.print(escape(f"({level}{counts}{threshold})"))


def job_table(jobs: Sequence[Sequence[str]], results: Sequence[Mapping[str, Any] | None]) -> None:
    """Print the main score of several jobs: a row for those that differ in their seed alone, and what differs.

    Args:
        jobs: the words of each.
        results: what came of each; None where it failed.
    """
    common = set.intersection(*map(set, jobs))
    of_method: dict[str, list[Mapping[str, Any] | None]] = {}
    for job, found in zip(jobs, results, strict=True):
        differing = " ".join(word for word in job if word not in common and not word.startswith("seed="))
        of_method.setdefault(differing, []).append(found)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("what differs", "runs", "ROC AUC", ""):
        table.add_column(heading, justify="right" if heading == "runs" else "left", overflow="fold")
    for words, of_seeds in of_method.items():
        scored = [found for found in of_seeds if found is not None]
        values = [(found, unit) for found, unit in map(_headline, scored) if found["roc_auc"] is not None]
        failed = f"{wording.count(len(of_seeds) - len(scored), 'run')} failed" if len(scored) < len(of_seeds) else ""
        if len(values) == 1:
            shown, unit = _with_interval(values[0][0], "roc_auc"), values[0][1]
        elif values:
            each = [found["roc_auc"] for found, _ in values]
            shown, unit = f"{mean(each):.3f} ± {stdev(each):.3f}", ", ".join(dict.fromkeys(unit for _, unit in values))
        else:
            shown, unit = "–", ""
        table.add_row(
            escape(words or "(nothing but seeds)"), str(len(scored)), shown, "; ".join(filter(None, [unit, failed]))
        )
    console.out.print(table)
    if any(len(found) > 1 for found in of_method.values()):
        console.out.print("(mean ± standard deviation over seeds; `ddtl compare` tests a difference)")


def _headline(results: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return the scores that a run is known by, and of what they are."""
    split = "test" if "test" in results else "val"
    by_patient = results[split].get("patients") or {"why_not": ""}
    if "why_not" not in by_patient:
        return by_patient, f"{split}, by patient"
    return results[split], f"{split}, by image"


def _positive(results: Mapping[str, Any]) -> str:
    return "" if results["positive"] is None else f" · positive class {results['positive']}"


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


def doubts(results: Mapping[str, Any]) -> list[str]:
    """Return what makes a record's scores doubtful: its warnings, file metadata, an audit that failed, further uses of
    the test set.
    """
    found = list(results["warnings"])
    metadata = sentences.shortcut(results, results["test" if "test" in results else "val"])
    if metadata is not None and metadata[0]:
        found.append(metadata[1])
    audit = results.get("audit") or {"findings": []}
    found += [f"audit: {finding['title']}" for finding in audit["findings"] if finding["severity"] == "fail"]
    if "test" in results and not test_use.is_first(results):
        found.append(test_use.history(results))
    return found


def _doubts(results: Mapping[str, Any]) -> None:
    """Print them, and which use of the test set this was."""
    if "refitted" in results:
        again = results["refitted"]
        shown = f"accuracy {_with_interval(again['test'], 'accuracy')}, threshold {again['threshold']:.4f}"
        console.out.print(f"{escape(again['note'])} {shown}")
    if "test" in results:
        console.out.print(escape(test_use.label(results)))
    for doubt in doubts(results):
        console.out.print(f"! {escape(doubt)}", style="yellow")


def _undefined(results: Mapping[str, Any], splits: Sequence[str], shown: Collection[str] = SCORES) -> None:
    """Print why scores that are shown have no value."""
    for split in splits:
        names_by_reason: dict[str, list[str]] = {}
        for name, reason in results[split].get("undefined", {}).items():
            if name in shown:
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
