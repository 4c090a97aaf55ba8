"""The paragraphs of a methods section, in Markdown, from a run's record and settings.

What a name holds never becomes markup; what the record does not know is a blank.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ddtl.evaluation import test_use
from ddtl.reports.html import format
from ddtl.reports.run import audit_section, schedule, sentences
from ddtl.reports.run.stored import Stored
from ddtl.reports.sections import reproduce
from ddtl.schema.scores import SCORES, title_of
from ddtl.schema.units import SCORED
from ddtl.utils import wording


def blank(what: str) -> str:
    """A gap that its reader must close."""
    return f"[to be filled in: {what}]"


def escaped(text: str) -> str:
    """A name as Markdown shows it letter by letter, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~!&$])", r"\\\1", " ".join(str(text).split()))


def data(stored: Stored) -> str:
    """Images, patients, classes, where they come from, and how they were split."""
    record = stored.record
    unit = SCORED[record["grouping"]]
    images, n_groups = (sum(part[what] for part in stored.parts.values()) for what in ("images", "groups"))
    groups = "" if record["grouping"] == "none" or stored.leaky else f" of {n_groups:,} {unit}"
    names = wording.listed([escaped(name) for name in stored.classes])
    positive = f"; {escaped(record['positive'])} was the positive class" if record.get("positive") else ""
    return " ".join(
        filter(
            None,
            [
                f"The dataset {escaped(record['dataset'])} gave {images:,} CT images{groups} in {len(stored.classes)} "
                f"classes ({names}{positive}).",
                blank("sources and dates, scanners, who was included and excluded"),
                escaped(sentences.excluded(record)),
                blank("how the classes were established: the reference standard"),
                assignment(record),
                counts(stored),
                unknown_patients(record),
                escaped(audit_section.text(stored)),
            ],
        )
    )


def assignment(record: Mapping[str, Any]) -> str:
    """How images came into training, validation and test."""
    unit = SCORED[record["grouping"]]
    seed = f" (seed {record['split_seed']})" if "split_seed" in record else ""
    apart = {
        "patient": "no patient has images in two of them",
        "near_duplicate": "near-duplicate images are in the same one",
        "none": "no patients are named, so images were dealt one by one",
    }[record["grouping"]]
    ways = {
        "official": "Training, validation and test set are those that the dataset's authors published",
        "grouped": f"Whole {unit} were dealt at random to training, validation and test set{seed}",
        "kfold": f"Whole {unit} were dealt at random to {record.get('n_folds', blank('number'))} folds{seed}; fold "
        f"{record.get('fold', blank('number'))}, counted from 0, was the test set",
    }
    if record["protocol"] in ways:
        return f"{ways[record['protocol']]}: {apart}."
    share = record.get("leaked_share")
    leaked = f" ({wording.percent(share)} of the test images)" if share else ""
    return (
        f"Single images were dealt at random to training, validation and test set{seed}, so that images of one patient "
        f"stand in several of them{leaked} and the scores are optimistic."
    )


def counts(stored: Stored) -> str:
    """Images of each class in each part."""
    names = {"train": "training", "val": "validation", "test": "test"}
    parts = []
    for split, part in stored.parts.items():
        each = ", ".join(f"{escaped(label)} {n:,}" for label, n in part["classes"].items())
        grouping = stored.record["grouping"]
        unit = "" if grouping == "none" else f" of {part['groups']:,} {SCORED[grouping]}"
        parts.append(f"{names[split]}: {part['images']:,} images{unit} ({each})")
    alone = " Training and validation images of this dataset were not used." if stored.trained_on else ""
    return format.sentence("; ".join(parts)) + alone


def unknown_patients(record: Mapping[str, Any]) -> str:
    """What follows from a dataset that names no patients; empty where it does."""
    if record["grouping"] == "patient":
        return ""
    return "The dataset names no patients, so images of one patient may stand in training and in test."


def preprocessing(stored: Stored) -> str:
    """From a file to the network's input."""
    side = stored.config.get("dataset", {}).get("image_size")
    if side is None:
        return blank("preprocessing")
    channels = (
        "shown to the network as one channel, the first layer's weights summed over colours"
        if stored.config.get("model", {}).get("grayscale") == "sum"
        else "repeated in three channels"
    )
    return (
        f"Images were converted to 8-bit gray, resized to {side} × {side} pixels (antialiased bilinear, the aspect "
        f"ratio not kept), {channels}, and normalised with ImageNet's mean and standard deviation."
    )


def augmentation(stored: Stored) -> str:
    """What was varied in training."""
    found = stored.config.get("augment")
    if not found:
        return blank("augmentation")
    steps = [
        (found["horizontal_flip"], f"left-right flips (probability {found['horizontal_flip']:g})"),
        (found["rotate_degrees"], f"rotation (± {found['rotate_degrees']:g}°)"),
        (found["shift"], f"shifts (± {wording.percent(found['shift'])} of the side)"),
        (list(found["scale"]) != [1, 1], f"zoom ({found['scale'][0]:g} to {found['scale'][1]:g})"),
        (found["brightness"], f"brightness (± {wording.percent(found['brightness'])})"),
        (found["contrast"], f"contrast (± {wording.percent(found['contrast'])})"),
        (list(found["gamma"]) != [1, 1], f"gamma ({found['gamma'][0]:g} to {found['gamma'][1]:g})"),
        (found["noise"], f"Gaussian noise (standard deviation up to {wording.percent(found['noise'])})"),
        (found["blur"], f"Gaussian blur (probability {found['blur']:g})"),
        (found["erase"], f"erasing of a rectangle (probability {found['erase']:g})"),
    ]
    used = [text for on, text in steps if on]
    return f"Training images were varied by {wording.listed(used)}." if used else "Training images were not augmented."


def network(stored: Stored) -> str:
    """Input, architecture and initial weights."""
    model = stored.config.get("model")
    if not model:
        return f"{preprocessing(stored)} {blank('network and initial weights')}"
    hidden = [f"a hidden layer of {width} units" for width in model["head"]["hidden"]]
    head = wording.listed([*hidden, f"dropout ({model['head']['dropout']:g})", "a linear layer"])
    return (
        f"{preprocessing(stored)} The network was {escaped(model['name'])} with global average pooling, {head}; "
        f"{initial_weights(stored.record)}."
    )


def initial_weights(record: Mapping[str, Any]) -> str:
    """Where training started."""
    found = record.get("weights")
    if not found:
        return f"it started from {blank('initial weights')}"
    if found.get("digest") is None:
        return "it started from random weights"
    return (
        f"its backbone started from the weights {escaped(found['source'])} (SHA-256 {escaped(found['digest'][:12])}…)"
    )


def training(stored: Stored) -> str:
    """What trained, on what loss, with which optimiser, how long."""
    config = stored.config
    if not {"finetune", "optimizer", "trainer", "dataset", "model"} <= set(config):
        return blank("training: loss, optimiser, schedule, epochs, batch size")
    trainer = config["trainer"]
    loss = "cross-entropy"
    if config["model"].get("label_smoothing"):
        loss += f" with label smoothing {config['model']['label_smoothing']:g}"
    if config["model"].get("class_weights") == "balanced":
        loss += ", classes weighed by the inverse of their frequency"
    extras = [
        f"gradients were clipped at norm {trainer['clip_norm']:g}" if trainer.get("clip_norm") else "",
        f"a running mean of the weights (decay {trainer['ema']:g}) was scored" if trainer.get("ema") else "",
        "each class was drawn equally often" if config["dataset"].get("sampling") == "balanced" else "",
    ]
    more = "".join(f"; {extra}" for extra in extras if extra)
    return (
        f"{augmentation(stored)} {escaped(schedule.strategy(stored))}, on {loss}, with {_optimizer(stored)}, for up to "
        f"{trainer['max_epochs']} epochs in batches of {config['dataset']['batch_size']}{more}. {_seed(stored)}"
    )


def _optimizer(stored: Stored) -> str:
    found = stored.config["optimizer"]
    name = {"adamw": "AdamW", "sgd": f"SGD (momentum {found['momentum']:g})"}.get(found["name"], escaped(found["name"]))
    warmup = f"linear warm-up over {wording.percent(found['warmup'])} of the steps, then " if found["warmup"] else ""
    shape = f"cosine decay to {wording.percent(found['final_lr_ratio'])} of the peak"
    after = shape if found["schedule"] == "cosine" else f"a {escaped(found['schedule'])} rate"
    return f"{name} ({schedule.peak_rates(stored)}, weight decay {found['weight_decay']:g}, {warmup}{after})"


def _seed(stored: Stored) -> str:
    seed = stored.record.get("seed")
    exact = stored.config["trainer"].get("deterministic")
    return (
        f"Seed {seed}; {'deterministic algorithms only' if exact else 'algorithms that may differ in the last bits'}."
    )


def selection(stored: Stored) -> str:
    """Which epoch was kept, and by what."""
    record = stored.record
    if "best_epoch" not in record or "monitor" not in record:
        return blank("how the final model was selected")
    patience = stored.config.get("trainer", {}).get("patience")
    stop = f" Training stopped after {patience} epochs without improvement." if patience else ""
    ran = f" of {len(stored.metrics)}" if stored.metrics else ""
    what = sentences.monitor(record["monitor"])
    if "averaged_epochs" in record:
        return (
            f"The weights after each of the last {record['averaged_epochs']} of {record['best_epoch'] + 1} epochs were "
            "averaged (stochastic weight averaging, Izmailov et al. 2018)."
        )
    return f"The epoch with the best {what} on validation was kept (epoch {record['best_epoch'] + 1}{ran}).{stop}"


def evaluation(stored: Stored) -> str:
    """Threshold, scores, intervals, calibration, baselines, uses of the test set."""
    record = stored.record
    titles = [title_of(name) for name in SCORES]
    parts = [
        _tested(stored),
        sentences.threshold(record, stored.config),
        f"Reported are {wording.listed(titles)}.",
        sentences.aggregation(stored.scores),
        intervals(record),
        sentences.coverage(stored),
        sentences.clustering(stored),
        calibrated(record),
        sentences.shortcut_text(stored),
        uses(record),
    ]
    return " ".join(escaped(part) for part in parts if part)


def _tested(stored: Stored) -> str:
    if stored.trained_on:
        return (
            f"The model was trained on {stored.trained_on['dataset']} (protocol {stored.trained_on['protocol']}) and "
            f"tested as it was on {stored.record['dataset']}; threshold and calibration come from the validation "
            f"images of {stored.trained_on['dataset']}."
        )
    if stored.split == "test" and not test_use.is_first(stored.record):
        return (
            "The test set played no part in training. "
            f"{test_use.history(stored.record)} Settings that were chosen after an earlier use may have been chosen by "
            "its scores."
        )
    if stored.split == "test":
        return "The test set played no part in training or in choosing the epoch, the threshold or the calibration."
    before = test_use.before(stored.record)
    if before:
        return f"{before} All scores are those of the validation set, which also chose the epoch."
    return "No test set was scored; all scores are those of the validation set, which also chose the epoch."


def intervals(record: Mapping[str, Any]) -> str:
    """What the intervals are, how each was made, and what they assume."""
    made = record.get("interval")
    if not made:
        return ""
    how = "; ".join(f"{scores}: {method}" for scores, method in sentences.interval_methods(record))
    level = wording.percent(made["level"])
    return (
        f"Intervals are {level} confidence intervals over {sentences.interval_unit(record)} ({how}). "
        f"{format.sentence(made['assumes'])}"
    )


def calibrated(record: Mapping[str, Any]) -> str:
    """How probabilities were corrected."""
    fitted = record.get("calibration") or {}
    temperature = fitted.get("temperature")
    if not temperature:
        return ""
    limits = format.interval(fitted.get("temperature_interval"))
    unhelpful = next((note for note in fitted.get("notes", ()) if note.startswith("temperature scaling")), None)
    return (
        "Calibration is given as predicted and after temperature scaling fitted on validation "
        f"(T = {temperature:.3g}{f' {limits}' if limits else ''}). {format.sentence(unhelpful) if unhelpful else ''}"
    ).strip()


def uses(record: Mapping[str, Any]) -> str:
    """How often this test set had been scored."""
    if test_use.number(record) is None:
        return ""
    return f"This was {test_use.label(record)} on the machine of the run."


def software(stored: Stored) -> str:
    """Versions and hardware."""
    found, versions = stored.environment, stored.record.get("versions", {})
    wanted = ("ddtl", "torch", "torchvision", "pytorch-lightning", "albumentations", "scikit-learn", "numpy")
    named = [f"{name} {versions[name]}" for name in wanted if name in versions]
    python = f"Python {found['python']}, " if found.get("python") else ""
    machine = ", ".join(found.get("gpus") or []) or found.get("cpu")
    precision = f", precision {escaped(stored.record['precision'])}" if "precision" in stored.record else ""
    return (
        f"{escaped(python + ', '.join(named))}. Hardware: {escaped(machine) if machine else blank('model')}{precision}."
    )


def command(stored: Stored) -> str:
    """What to type; empty where that is not known."""
    found = reproduce.command(stored.environment)
    return "" if found is None else f"Command: {_code(found)}."


def _code(text: str) -> str:
    """Inline code, whatever back-quotes it holds."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    flat = " ".join(text.split())
    return f"{fence} {flat} {fence}" if "`" in text else f"`{flat}`"
