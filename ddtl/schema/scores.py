"""The one list of score names: what can be monitored, what is in ``results.json``, what the tables print."""

from __future__ import annotations

# What is computed after every epoch, over images, with the direction that is better.
EPOCH_SCORES: dict[str, str] = {
    "val/loss": "min",
    "val/roc_auc": "max",
    "val/average_precision": "max",
    "val/accuracy": "max",
    "val/balanced_accuracy": "max",
    "val/f1": "max",
}
# Over patients of two classes; computed where it is monitored.
BY_PATIENT = "val/patient_roc_auc"
# What can decide about the best checkpoint.
MONITORS: dict[str, str] = {**EPOCH_SCORES, BY_PATIENT: "max"}


def with_unit(monitor: str) -> str:
    """A monitored score, or its title, with its unit: whether it is computed over images or over patients."""
    if monitor == BY_PATIENT:
        return "val/roc_auc by patient"
    return "ROC AUC by patient" if monitor == BY_PATIENT.partition("/")[2] else f"{monitor} by image"


# What results.json contains for each split, with the title, in the order of the tables.
TITLES = {
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision (PPV)",
    "f1": "F1",
    "mcc": "Matthews' coefficient",
    "brier": "Brier score (lower is better)",
}
SCORES: tuple[str, ...] = tuple(TITLES)
# From the least to the largest value, where that is not 0 to 1; the Brier score of several classes reaches 2.
RANGES: dict[str, tuple[float, float]] = {"mcc": (-1.0, 1.0)}

LOWER_IS_BETTER: tuple[str, ...] = ("brier",)
# All others are functions of which images are predicted positive.
FROM_PROBABILITIES: tuple[str, ...] = ("roc_auc", "average_precision", "brier")

# Those that records of every version contain; one that came later may be missing from earlier records.
ALWAYS_RECORDED: tuple[str, ...] = (
    "roc_auc", "average_precision", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1",
    "mcc", "brier",
)  # fmt: skip

# What is there for each class against all others, where there are more than two.
PER_CLASS: tuple[str, ...] = ("roc_auc", "sensitivity", "specificity", "precision", "f1")

# Rules that choose a threshold which makes a rate reach ``evaluation.target`` on validation; by its lower limit, those
# that guarantee it.
GUARANTEED: tuple[str, ...] = ("sensitivity_guaranteed", "specificity_guaranteed")
AIMED: tuple[str, ...] = ("sensitivity", "specificity", *GUARANTEED)


def title_of(name: str) -> str:
    """A score's name without what is in brackets behind it."""
    return TITLES.get(name, name).partition(" (")[0]
