"""``card.md``: what must be known about a model by whoever uses it (Mitchell et al. 2019, Model Cards, FAT* 220).

Everything comes from the run's record; what no record can know is a blank, ``[to be filled in: …]``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ddtl.reports.run import methods, paragraphs, sentences, stored
from ddtl.reports.run.paragraphs import blank, escaped
from ddtl.reports.run.stored import Stored
from ddtl.utils.errors import UserError

_FRONT = """\
---
library_name: ddtl
pipeline_tag: image-classification
tags: [medical-imaging, computed-tomography, transfer-learning]
---"""

_USE = """\
For research on the classification of chest-CT slices: to repeat the results below, to compare methods, to start \
transfer learning from. **Not for diagnosis.** The model is no medical device; no regulator has looked at it, and no \
prospective study has shown that anyone is better off for its use.

Not for: decisions about a patient; pictures other than axial chest-CT slices in a lung window; other diseases than \
those of its classes; populations and scanners that nobody has tested it on."""

_ALWAYS = (
    "The scores hold for pictures like those of the test set. Another hospital's scanner, window, patients or share of "
    "positives can change all of them, the threshold's meaning too.",
    "The model answers to every picture, also to one that shows no lung. `ddtl predict` warns of pictures far from the "
    "training images; a file exported from it does not.",
    "A probability is no finding: what in the picture brought it about is not known.",
)


def render(found: Stored, elsewhere: Sequence[Stored], files: Sequence[str]) -> str:
    """The card, in Markdown.

    Args:
        found: the run.
        elsewhere: its evaluations on other data.
        files: the lines about the exported files, in Markdown.
    """
    record = found.record
    name = escaped(found.folder.name)
    parts = {
        "Intended use": _USE,
        "Files": _lines(files),
        "Input and output": f"{_asked(found)} {_answer(found)}",
        "Data": paragraphs.data(found),
        "Model and training": " ".join(
            [paragraphs.network(found), paragraphs.training(found), paragraphs.selection(found)]
        ),
        "Evaluation": paragraphs.evaluation(found),
        "Scores": "\n\n".join([_heading(found), methods.results(found), *map(_elsewhere, elsewhere)]),
        "Limits": _lines([escaped(text) for text in sentences.warnings(found)] + list(_ALWAYS)),
        "Licence and contact": f"{blank('licence of the weights, and of the data they were trained on')} "
        f"{blank('who answers for the model')}",
        "Versions": f"{paragraphs.software(found)} {paragraphs.command(found)}".rstrip(),
    }
    title = f"# Model card: {escaped(record['dataset'])}, {name}"
    sections = [f"## {heading}\n\n{text}" for heading, text in parts.items()]
    return "\n\n".join([_FRONT, title, "**For research. Not for diagnosis.**", *sections]) + "\n"


def evaluations(found: Stored) -> list[Stored]:
    """The run's evaluations on other data, as far as they can be read."""
    read = []
    for results in sorted(found.folder.glob("evaluations/*/results.json")):
        try:
            read.append(stored.read(results.parent))
        except UserError:
            continue
    return read


def _asked(found: Stored) -> str:
    side = found.config.get("dataset", {}).get("image_size", blank("size"))
    return (
        f"The network takes whole pictures in 8-bit gray, resized to {side} × {side} pixels by an antialiased bilinear "
        "filter, their gray levels divided by 255, as one channel: it normalises them itself."
    )


def _answer(found: Stored) -> str:
    record = found.record
    classes = ", ".join(f"{label} {escaped(name)}" for label, name in enumerate(found.classes))
    calibration = record.get("calibration") or {}
    temperature = calibration.get("temperature")
    softened = (
        f"The softmax of the logits divided by {temperature:.6g} gives calibrated probabilities."
        if temperature
        else "No calibration could be fitted."
    )
    return (
        f"For each picture it gives a logit a class ({classes}), whose softmax are probabilities. {softened} "
        f"{escaped(sentences.threshold(record, found.config))}"
    )


def _heading(found: Stored) -> str:
    record = found.record
    return (
        f"Dataset {escaped(record['dataset'])}, protocol {escaped(record['protocol'])}, each score with its interval."
    )


def _elsewhere(found: Stored) -> str:
    return f"### On other data: {escaped(found.record['dataset'])}\n\n{methods.results(found)}"


def _lines(texts: Sequence[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)
