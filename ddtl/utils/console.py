"""What a person at the terminal sees. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ddtl.evaluation import test_use
from ddtl.schema.scores import PER_CLASS, SCORES, by_image
from ddtl.utils.errors import UserError
from ddtl.utils.reading import printable
from ddtl.utils.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ddtl.data.manifest import Manifest


class Screen(Console):
    """A console on which no name of a file, a class or a patient can do more than be read, and no secret appears."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(safe(text), **options)


def safe(text: str) -> str:
    """Text for a terminal: secrets masked, control characters other than our own line breaks and tabs escaped."""
    text = redacted(text)
    if text.isprintable():
        return text
    return "".join(part if part in ("\n", "\t") else printable(part) for part in re.split(r"([\n\t])", text))


def _console(*, stderr: bool = False) -> Console:
    return Screen(stderr=stderr, soft_wrap=True, highlight=False, emoji=False)


out, err = _console(), _console(stderr=True)

Progress = Callable[[int, int], None]


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        style = {logging.WARNING: "yellow", logging.ERROR: "red"}.get(record.levelno, "")
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        err.print(prefix + escape(record.getMessage()), style=style)


def set_up_logging() -> None:
    """Our own lines as they are; other libraries only when something is wrong."""
    logger = logging.getLogger("ddtl")
    logger.handlers = [_Lines()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of a cache that it cannot save
    # Advice on Lightning's defaults that this program has decided about itself.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory.*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*custom batch sampler.*for prediction.*")
    warnings.filterwarnings("ignore", message=".*The `srun` command is available on your system but is not used.*")
    # Lightning 2.6 uses parts of torch that newer ones deprecate.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")


def whole_table(table: Table) -> None:
    """Print a table: folded to the width of a terminal, and with whole rows into a pipe or a file."""
    if out.is_terminal:
        out.print(table, soft_wrap=False)
        return
    with out.capture() as captured:
        before, out.width = out.width, 10_000
        try:
            out.print(table, soft_wrap=False)
        finally:
            out.width = before
    out.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def renew() -> None:
    """Look at the streams anew: they lead elsewhere now."""
    global out, err
    out, err = _console(), _console(stderr=True)


def be_quiet() -> None:
    """Say nothing but errors: the first process of a distributed run speaks for all."""
    out.quiet = True
    logging.getLogger("ddtl").setLevel(logging.ERROR)


def error(message: str) -> None:
    """A mistake or a failure, for the person."""
    err.print("error: " + escape(message), style="red")


def line(message: str) -> None:
    """A line of news."""
    if not out.quiet:
        err.print(escape(message))


@contextmanager
def progress(what: str) -> Iterator[Progress]:
    """A bar at a terminal; elsewhere a line at the start and one at the end."""
    from rich.progress import Progress as Bar

    if out.quiet:
        yield lambda done, total: None
        return
    if not err.is_terminal:
        told = False

        def tell(done: int, total: int) -> None:
            nonlocal told
            if not told or done == total:
                line(f"{what}: {done} of {total}")
                told = True

        yield tell
        return
    with Bar(console=err, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def dataset_table(manifest: Manifest) -> None:
    """Images, groups and classes of each split."""
    groups = {"patient": "patients", "near_duplicate": "near-duplicate groups", "none": "images as groups"}
    table = Table(title=escape(f"{manifest.dataset} · protocol {manifest.protocol}"), title_justify="left")
    table.add_column("split")
    for heading in ("images", groups[manifest.grouping], *map(escape, manifest.classes)):
        table.add_column(heading, justify="right")
    for split, counts in manifest.counts().items():
        table.add_row(split, *map(str, (counts["images"], counts["groups"], *counts["classes"].values())))
    if not out.quiet:
        err.print(table)


def epoch_line(max_epochs: int, monitor: str) -> Callable[[Mapping[str, Any]], None]:
    """A printer of one line an epoch."""
    width = len(str(max_epochs))

    def show(row: Mapping[str, Any]) -> None:
        parts = [  # a loss and a monitored score are means over images
            f"epoch {row['epoch'] + 1:{width}}/{max_epochs}",
            f"train loss {row['train/loss']:.4f}",
            f"val loss {row['val/loss']:.4f}",
            f"{by_image(monitor)} {row[monitor]:.4f}{' *' if row['best'] else '  '}",
            f"{row['seconds']:.1f} s",
        ]
        line("   ".join(parts))

    return show


def score_table(results: Mapping[str, Any]) -> None:
    """The scores of a run with their intervals and what they rest on; those of each class where there are over two."""
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
    out.print(table)
    if splits and "per_class" in results[splits[-1]]:
        _class_table(results[splits[-1]]["per_class"], splits[-1])
    _rules(results)
    for name, about in (("majority", "the commonest class"), ("file_facts", "file facts alone, no pixel")):
        scores = results.get("baselines", {}).get(name, {"why_not": ""})
        if "why_not" not in scores:
            shown = f"ROC AUC {_with_interval(scores, 'roc_auc')}, accuracy {_with_interval(scores, 'accuracy')}"
            level = scores.get("level")
            own = "" if level in (None, results["interval"]["level"]) else f" (intervals of {100 * level:g} %)"
            out.print(f"test set by {about}, by image: {shown}{own}")
    for warning in results["warnings"]:
        out.print(f"! {escape(warning)}", style="yellow")
    for finding in (results.get("audit") or {"findings": []})["findings"]:
        if finding["severity"] == "fail":
            out.print(f"! audit: {escape(finding['title'])}", style="yellow")
    if "test" in results:
        out.print(escape(test_use.label(results)))
        if not test_use.is_first(results):
            out.print(f"! {escape(test_use.history(results))}", style="yellow")


def _rules(results: Mapping[str, Any]) -> None:
    """How intervals and decisions were made."""
    if "interval" in results:
        interval = results["interval"]
        out.print(f"({interval['level']:.0%} intervals: {escape(interval['assumes'])})")
        rule = results["threshold_rule"]
        chosen = "" if rule == "fixed" else f", chosen on validation by {rule}"
        if results["positive"] is not None:
            out.print(f"threshold {results['threshold']:.4f}{chosen}")
    if "refitted" in results:
        again = results["refitted"]
        shown = f"accuracy {_with_interval(again['test'], 'accuracy')}, threshold {again['threshold']:.4f}"
        out.print(f"{escape(again['note'])} {shown}")


def _with_interval(scores: Mapping[str, Any], name: str) -> str:
    interval = scores.get("intervals", {}).get(name)
    if interval is None or scores[name] is None:
        return _shown(scores[name])
    return f"{scores[name]:.3f} ({interval['low']:.3f}–{interval['high']:.3f})"


def _class_table(per_class: Mapping[str, Any], split: str) -> None:
    table = Table(title=f"{split}, each class against all others", title_justify="left")
    table.add_column("class")
    for heading in (*PER_CLASS, "images"):
        table.add_column(heading, justify="right")
    for name, scores in per_class.items():
        table.add_row(escape(name), *(_shown(scores[key]) for key in PER_CLASS), str(scores["images"]))
    out.print(table)


def published_table(published: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Numbers of a paper beside ours."""
    table = Table(title=escape(published["source"]), title_justify="left")
    for heading in ("test score", "published", "obtained, by image"):
        table.add_column(heading, justify="right" if heading != "test score" else "left")
    for name, value in published["scores"].items():
        table.add_row(name, _shown(value), _shown(results["test"].get(name)) if "test" in results else "–")
    table.add_section()
    table.add_row("protocol", published["protocol"], results["protocol"])
    out.print(table)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def agreed(question: str) -> bool:
    """Whether the person at the terminal agrees to what is deleted.

    Raises:
        UserError: nobody is there.
    """
    if not sys.stdin or not sys.stdin.isatty():
        raise UserError("this asks before it deletes, and nobody is there to answer. Set yes=true.")
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def is_terminal() -> bool:
    """Whether a person is watching."""
    return err.is_terminal and not out.quiet
