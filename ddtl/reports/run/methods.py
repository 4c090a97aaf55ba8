"""``methods.md``: what a paper must state about a run, as far as the run knows it, and the CLAIM checklist.

The text is in ``templates/methods.md.jinja`` and those that it imports; here are the facts. Everything comes from the
record; what no record can know is a blank, ``[to be filled in: …]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddtl.evaluation import test_use
from ddtl.reports import prose
from ddtl.reports.html import format
from ddtl.reports.html.page import Cell, Table
from ddtl.reports.run import audit_section, schedule, scores, sentences
from ddtl.reports.run.stored import SPLITS, Stored, patients
from ddtl.reports.sections import reproduce
from ddtl.schema.scores import SCORES, TITLES, title_of
from ddtl.schema.units import SCORED

_PACKAGES = ("ddtl", "torch", "torchvision", "pytorch-lightning", "albumentations", "scikit-learn", "numpy")
_TRAINING = {"finetune", "optimizer", "trainer", "dataset", "model"}


def render(stored: Stored) -> str:
    """Return the text, in Markdown."""
    return prose.document("methods.md.jinja", f=facts(stored))


def facts(stored: Stored) -> dict[str, Any]:
    """Return what the methods text, the checklist and the model card say about a run."""
    record, config = stored.record, stored.config
    return {
        "record": record,
        "config": {"model": None, "augment": None, "trainer": None, **config},
        "heading": f"{record['dataset']}, protocol {record['protocol']}, {stored.folder.name}",
        **_data(stored),
        **_training(stored),
        **_evaluation(stored),
        **_results(stored),
        **_machine(stored),
    }


def _data(stored: Stored) -> dict[str, Any]:
    return {
        "classes": stored.classes,
        "parts": {SPLITS[split]: part for split, part in stored.parts.items()},
        "images": sum(part["images"] for part in stored.parts.values()),
        "groups": sum(part["groups"] for part in stored.parts.values()),
        "unit": SCORED[stored.record["grouping"]],
        "leaky": stored.leaky,
        "trained_on": stored.trained_on,
        "excluded": sentences.excluded(stored.record),
        "audit": audit_section.text(stored),
    }


# Augmentations that the template names in words of their own.
_NAMED_STEPS = {
    "name", "horizontal_flip", "rotate_degrees", "shift", "scale", "brightness", "contrast", "gamma", "noise", "blur",
    "erase",
}  # fmt: skip


def _training(stored: Stored) -> dict[str, Any]:
    config = stored.config
    augment = config.get("augment") or {}
    is_configured = set(config) >= _TRAINING
    return {
        "is_configured": is_configured,
        "model": config.get("model", {}).get("name"),
        "grayscale": config.get("model", {}).get("grayscale"),
        "windows": _windows(config.get("dataset", {})),
        "image_size": config.get("dataset", {}).get("image_size"),
        "harmonize": config.get("dataset", {}).get("harmonize", "none"),
        "loss": config.get("loss", {}),
        "further_augmentations": [
            f"{key.replace('_', ' ')} ({value})"
            for key, value in augment.items()
            if key not in _NAMED_STEPS and value not in (0, [1, 1])
        ],
        "strategy": schedule.strategy(stored) if is_configured else "",
        "peak_rates": schedule.peak_rates(stored) if is_configured else "",
        "monitor": sentences.monitor(stored.record.get("monitor", "")),
        "epochs": len(stored.metrics),
        "patience": config.get("trainer", {}).get("patience"),
    }


def _windows(dataset: Mapping[str, Any]) -> list[str]:
    """Return the three windows that are an image's channels, in words; empty where it has one channel."""
    sources = [dataset, *(dataset.get("source_settings") or {}).values()]
    windows = next((one["window"] for one in sources if isinstance(one.get("window"), list)), None) or []
    return [f"{one['center']:g}/{one['width']:g} HU" for one in windows]


def _evaluation(stored: Stored) -> dict[str, Any]:
    record = stored.record
    fitted = record.get("calibration") or {}
    unhelpful = next((note for note in fitted.get("notes", ()) if note.startswith("temperature scaling")), None)
    return {
        "split": stored.split,
        "earlier_uses": "" if test_use.is_first(record) else test_use.history(record),
        "used_before": test_use.before(record),
        "test_use": "" if test_use.number(record) is None else test_use.label(record),
        "threshold": sentences.threshold(record, stored.config),
        "scores": [title_of(name) for name in SCORES],
        "all_scores": [title_of(name) for name in TITLES],
        "aggregation": sentences.aggregation(stored.scores),
        "interval": record.get("interval"),
        "interval_unit": sentences.interval_unit(record) if record.get("interval") else "",
        "interval_methods": sentences.interval_methods(record) if record.get("interval") else [],
        "coverage": sentences.coverage(stored),
        "clustering": sentences.clustering(stored),
        "calibration": {
            "temperature": fitted.get("temperature"),
            "limits": format.interval(fitted.get("temperature_interval")),
            "unhelpful": format.sentence(unhelpful) if unhelpful else "",
        },
        "shortcut": sentences.shortcut_text(stored),
        "nearest": format.with_interval((record.get("baselines") or {}).get("nearest") or {}, "roc_auc"),
        "majority": ((record.get("baselines") or {}).get("majority") or {}).get("accuracy"),
        "warnings": sentences.warnings(stored),
    }


def _results(stored: Stored) -> dict[str, Any]:
    shown = {split: found for split in ("test", "val") if (found := stored.record.get(split))}
    return {
        "results": results(stored),
        "binary": stored.binary,
        "unit_of_scores": stored.unit,
        "split_name": SPLITS[stored.split],
        "confusion": stored.main["confusion"],
        "performance": [
            (
                SPLITS[split],
                "image" if patients(found) is None else "patient",
                format.with_interval(patients(found) or found, "roc_auc"),
            )
            for split, found in shown.items()
        ],
        "accuracy": [
            f"{title_of(name)} {format.with_interval(stored.main, name)}"
            for name in ("accuracy", "sensitivity", "specificity")
        ],
    }


def _machine(stored: Stored) -> dict[str, Any]:
    environment, versions = stored.environment, stored.record.get("versions", {})
    command = reproduce.command(stored.environment)
    return {
        "environment": {"python": None, **environment},
        "versions": [f"{name} {versions[name]}" for name in _PACKAGES if name in versions],
        "machine": ", ".join(environment.get("gpus") or []) or environment.get("cpu"),
        "command": None if command is None else prose.code(command),
    }


def results(stored: Stored) -> Any:
    """Return the table of scores, as Markdown."""
    table = scores.table(stored)
    return prose.Markdown(
        "Scores are optimistic: leaky split.\n\n" * stored.leaky
        + markdown_table(table)
        + f"\n\n{prose.escaped(table.note)}".rstrip()
    )


def markdown_table(table: Table) -> str:
    """Return a pipe table; numbers to the right."""
    rule = ["---", *["---:"] * (len(table.columns) - 1)]
    lines = [
        rule if line is rule else [prose.escaped(text_of(cell)) for cell in line]
        for line in (table.columns, rule, *table.rows)
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text_of(value: str | Cell) -> str:
    """Return the text of a cell of a table, small print after its number."""
    return value if isinstance(value, str) else f"{value.text} {value.note}".strip()
