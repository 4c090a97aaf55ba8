"""``results.json``: the scores of a run, or of an evaluation on other data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from ddtl.records.checking import (
    OPEN,
    Contradiction,
    Count,
    FolderName,
    Moment,
    Name,
    Number,
    Scalar,
    Share,
    Text,
    agree,
    check,
)
from ddtl.schema.scores import ALWAYS_RECORDED, PER_CLASS, RANGES
from ddtl.schema.units import SPLITS
from ddtl.utils.reading import Unreadable, read_object

if TYPE_CHECKING:
    from ddtl.evaluation.predictions import Predictions

NAME = "results.json"
_FIX = "Delete it and repeat the command that made it: it scores again, without training."

# A score; a Brier score of several classes reaches 2.
_LEAST = min(0.0, *(low for low, _ in RANGES.values()))
_LARGEST = max(2.0, *(high for _, high in RANGES.values()))
Score = Annotated[float, Field(ge=_LEAST, le=_LARGEST, allow_inf_nan=False)]
_Use = Annotated[int, Field(ge=1, le=10**9)]
_Threshold = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(ge=1e-6, le=1e6)]


@with_config(OPEN)
class Interval(TypedDict):
    low: Score
    high: Score
    method: Name


Intervals = dict[Name, Interval | None]


@with_config(OPEN)
class Scores(TypedDict):
    roc_auc: NotRequired[Score | None]
    average_precision: NotRequired[Score | None]
    accuracy: NotRequired[Score | None]
    balanced_accuracy: NotRequired[Score | None]
    sensitivity: NotRequired[Score | None]
    specificity: NotRequired[Score | None]
    precision: NotRequired[Score | None]
    f1: NotRequired[Score | None]
    mcc: NotRequired[Score | None]
    brier: NotRequired[Score | None]
    intervals: NotRequired[Intervals | None]
    why_not: NotRequired[Text]


@with_config(OPEN)
class Confusion(TypedDict):
    """With two classes the four counts; with more the names and a row for each true class."""

    tp: NotRequired[Count]
    fp: NotRequired[Count]
    fn: NotRequired[Count]
    tn: NotRequired[Count]
    classes: NotRequired[list[Text]]
    counts: NotRequired[list[list[Count]]]


@with_config(OPEN)
class Limits(TypedDict):
    """A confidence interval."""

    low: Number
    high: Number


@with_config(OPEN)
class Estimate(TypedDict):
    """A number with its interval, where there is one."""

    value: Number
    low: Number | None
    high: Number | None


@with_config(OPEN)
class Line(TypedDict):
    """Intercept and slope of a logistic recalibration."""

    intercept: Estimate | None
    slope: Estimate | None
    p_value: Share | None
    why_not: Text | None


@with_config(OPEN)
class Chance(TypedDict):
    """The calibration error of a calibrated network: its mean and 95th percentile."""

    mean: Share
    high: Share


@with_config(OPEN)
class Floor(TypedDict):
    ece: Chance
    ece_mass: Chance


@with_config(OPEN)
class Errors(TypedDict):
    """Calibration errors."""

    ece: Number | None
    ece_mass: Number | None
    brier: Number | None
    floor: NotRequired[Floor]
    debiased: NotRequired[Share]
    line: NotRequired[Line]


@with_config(OPEN)
class CalibrationErrors(Errors):
    temperature: NotRequired[Errors | None]
    platt: NotRequired[Errors | None]


@with_config(OPEN)
class PredictiveValues(TypedDict):
    prevalence: Share
    ppv: Share | None
    npv: Share | None
    ppv_interval: NotRequired[Limits | None]
    npv_interval: NotRequired[Limits | None]


@with_config(OPEN)
class NetBenefit(TypedDict):
    """At the threshold."""

    threshold: Share
    model: Number | None
    treat_all: Number | None
    treat_none: Number | None
    interval: Limits | None


@with_config(OPEN)
class PatientScores(Scores):
    confusion: NotRequired[Confusion]
    patients: NotRequired[Count]
    aggregation: NotRequired[Literal["mean", "max", "vote"]]
    mixed: NotRequired[Count | None]
    calibration: NotRequired[CalibrationErrors | None]
    predictive_values: NotRequired[list[PredictiveValues] | None]
    net_benefit: NotRequired[NetBenefit | None]


@with_config(OPEN)
class ClassScores(Scores):
    images: Count


@with_config(OPEN)
class ScoreClustering(TypedDict):
    design_effect: Number
    correlation: Number
    effective_images: Number


@with_config(OPEN)
class Clustering(TypedDict):
    """How much alike the images of a patient are."""

    scores: dict[Text, ScoreClustering]
    effective_patients: list[Number]


@with_config(OPEN)
class SplitScores(Scores):
    images: Count
    groups: Count
    classes: dict[Text, Count]
    confusion: Confusion
    undefined: NotRequired[dict[Text, Text]]
    patients: NotRequired[PatientScores | None]
    clustering: NotRequired[Clustering | None]
    calibration: NotRequired[CalibrationErrors | None]
    predictive_values: NotRequired[list[PredictiveValues] | None]
    net_benefit: NotRequired[NetBenefit | None]
    per_class: NotRequired[dict[Text, ClassScores]]


@with_config(OPEN)
class Counts(TypedDict):
    images: Count
    groups: Count
    classes: dict[Text, Count]


@with_config(OPEN)
class Splits(TypedDict):
    train: NotRequired[Counts]
    val: NotRequired[Counts]
    test: NotRequired[Counts]


@with_config(OPEN)
class Platt(TypedDict):
    slope: Number
    intercept: Number


@with_config(OPEN)
class CrossFitted(TypedDict):
    """The gain in log-loss of each correction on patients that it was not fitted on."""

    folds: Count
    clusters: Count
    log_loss: Number
    temperature: Estimate | None
    platt: Estimate | None


@with_config(OPEN)
class Calibration(TypedDict):
    temperature: Temperature | None
    temperature_interval: NotRequired[Limits | None]
    platt: NotRequired[Platt | None]
    cross_fitted: NotRequired[CrossFitted | None]
    notes: NotRequired[list[Text]]


@with_config(OPEN)
class IntervalSetting(TypedDict):
    level: Annotated[float, Field(gt=0, lt=1)]
    method: Name
    design: NotRequired[Literal["case_control", "cohort"]]
    replicates: Count
    unit: Literal["patient", "group", "image"]
    assumes: Text


@with_config(OPEN)
class Excluded(TypedDict):
    images: Count
    list_digest: Name


@with_config(OPEN)
class Finding(TypedDict):
    check: Text
    severity: Literal["fail", "warn", "note"]
    title: Text
    sentence: Text


@with_config(OPEN)
class AuditSummary(TypedDict):
    when: Moment
    ddtl: Text
    checks: Count
    power: NotRequired[Text | None]
    findings: list[Finding]


@with_config(OPEN)
class Weights(TypedDict):
    source: Text
    digest: Text | None


_Colours = Annotated[list[Number], Field(min_length=3, max_length=3)]


@with_config(OPEN)
class NetworkFacts(TypedDict):
    """What timm states about a network of its own."""

    library: Text
    name: Text
    mean: _Colours
    std: _Colours
    input_size: Count
    license: Text | None


@with_config(OPEN)
class TrainedOn(TypedDict):
    dataset: Name
    protocol: Name
    run: Name


@with_config(OPEN)
class AucDifference(TypedDict):
    """The ROC AUC of the model minus that of the baseline."""

    roc_auc: Score
    interval: Interval


@with_config(OPEN)
class FileMetadata(Scores):
    features: NotRequired[list[Text]]
    difference: NotRequired[AucDifference | None]
    level: NotRequired[Share | None]


@with_config(OPEN)
class Nearest(Scores):
    """Of a fitted head: the nearest training images by the same features."""

    neighbours: Count
    difference: NotRequired[AucDifference | None]


@with_config(OPEN)
class Baselines(TypedDict):
    majority: NotRequired[Scores | None]
    file_facts: NotRequired[FileMetadata | None]
    nearest: NotRequired[Nearest | None]


@with_config(OPEN)
class TestUses(TypedDict):
    total: NotRequired[_Use]
    of_run: NotRequired[Count]
    planned: NotRequired[Text]
    changed: NotRequired[list[Text]]
    others: NotRequired[dict[Text, Count]]


@with_config(OPEN)
class Evaluation(TypedDict):
    """The settings that decide about scores."""

    patient: NotRequired[Literal["mean", "max", "vote"]]
    threshold: NotRequired[Scalar]
    level: NotRequired[Number]
    batchnorm: NotRequired[Literal["stored", "adapt"]]


@with_config(OPEN)
class Refitted(TypedDict):
    """Threshold and temperature of the other dataset's validation images."""

    threshold: _Threshold
    note: NotRequired[Text]
    val_images: NotRequired[Count]
    calibration: NotRequired[Calibration | None]
    test: NotRequired[Scores]


@with_config(OPEN)
class Rate(TypedDict):
    mean: Share
    low: Share
    high: Share


@with_config(OPEN)
class ExpectedRates(TypedDict):
    """What a chosen threshold gives for other patients."""

    sensitivity: Rate
    specificity: Rate
    kept: Share | None


@with_config(OPEN)
class Results(TypedDict):
    """The whole file."""

    dataset: FolderName
    protocol: FolderName
    grouping: Literal["patient", "near_duplicate", "none"]
    classes: Annotated[list[Text], Field(min_length=2, max_length=10_000)]
    positive: NotRequired[Text | None]
    warnings: list[Text]
    warning_names: NotRequired[Any]
    excluded: NotRequired[Excluded | None]
    leaked_share: NotRequired[Share | None]
    splits: Splits
    split_seed: NotRequired[Count | None]
    sources: NotRequired[list[Name] | None]
    fold: NotRequired[Count]
    n_folds: NotRequired[Count]
    seed: NotRequired[Count | None]
    digest: NotRequired[Name]
    contents: NotRequired[dict[Literal["val", "test"], Name]]
    audit: NotRequired[AuditSummary | None]
    weights: NotRequired[Weights]
    network: NotRequired[NetworkFacts | None]
    monitor: NotRequired[Name]
    precision: NotRequired[Name]
    harmonize: NotRequired[Name]
    versions: NotRequired[dict[Text, Text]]
    best_epoch: NotRequired[Count]
    averaged_epochs: NotRequired[Count]
    look: NotRequired[_Use]
    test_use: NotRequired[_Use]
    test_uses: NotRequired[TestUses | None]
    test_uses_before: NotRequired[Count | None]
    trained_on: NotRequired[TrainedOn | None]
    threshold: _Threshold
    threshold_rule: NotRequired[
        Literal["fixed", "youden", "sensitivity", "specificity", "sensitivity_guaranteed", "specificity_guaranteed"]
    ]
    threshold_unit: NotRequired[Literal["image", "patient"] | None]
    threshold_expected: NotRequired[ExpectedRates | None]
    threshold_target: NotRequired[Share | None]
    threshold_on_val: NotRequired[dict[Literal["sensitivity", "specificity"], Share | None] | None]
    threshold_note: NotRequired[Text | None]
    calibration: NotRequired[Calibration | None]
    interval: NotRequired[IntervalSetting | None]
    evaluation: NotRequired[Evaluation]
    baselines: NotRequired[Baselines | None]
    refitted: NotRequired[Refitted | None]
    val: NotRequired[SplitScores]
    test: NotRequired[SplitScores]


def read(folder: Path) -> dict[str, Any]:
    """Return the record in a folder.

    Raises:
        FileNotFoundError: there is none.
        Unreadable: it is damaged, or not a record.
    """
    path = folder / NAME
    try:
        record = read_object(path)
    except Unreadable as problem:
        raise Unreadable(path, problem.reason, _FIX) from None
    return check_record(path, record)


def check_record(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a file, if it is one.

    Raises:
        Unreadable: it is none, with its first fault.
    """
    found: dict[str, Any] = check(path, record, Results, _FIX)
    agree(path, _contradictions(found), _FIX)
    return found


def require(path: Path, record: Mapping[str, Any], *keys: str) -> None:
    """Refuse a record without keys, dotted, that a command needs and that earlier versions may not have written.

    Raises:
        Unreadable: one is not there.
    """
    for key in keys:
        found: Any = record
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is None:
            raise Unreadable(path, f"{key} is missing", _FIX)


def match(path: Path, table: Predictions, record: Mapping[str, Any], splits: Iterable[str]) -> None:
    """Refuse predictions that a record is not of.

    Args:
        path: of the predictions.
        table: all of them.
        record: ``results.json``.
        splits: that are compared; the record has scores of each.

    Raises:
        Unreadable: they are of other classes, or of more or fewer images or patients.
    """
    from ddtl.evaluation.patients import WhyNot, by_patient
    from ddtl.records import predictions  # numpy, without which rows are listed

    if list(table.classes) != record["classes"]:
        raise Unreadable(path, f"is of other classes than {NAME}", predictions.AGAIN)
    for split in splits:
        rows, scores = table.of(split), record[split]
        if len(rows) != scores["images"]:
            reason = f"contains {len(rows)} images of {split}, and by {NAME} there are {scores['images']}"
            raise Unreadable(path, reason, predictions.AGAIN)
        patients = scores.get("patients")
        if len(table.classes) == 2 and patients and "why_not" not in patients:
            found = by_patient(rows, patients["aggregation"], record["threshold"])
            if isinstance(found, WhyNot) or len(found.patient_id) != patients["patients"]:
                raise Unreadable(path, f"is of other patients of {split} than {NAME}", predictions.AGAIN)


def _contradictions(record: Mapping[str, Any]) -> Iterator[Contradiction]:
    classes = record["classes"]
    if len(set(classes)) != len(classes) or "" in classes:
        yield Contradiction("classes", "should be different names")
    positive = record.get("positive")
    if positive is not None and (len(classes) != 2 or positive != classes[-1]):
        yield Contradiction("positive", "should be the second of two classes")
    if "test" not in record and "val" not in record:
        yield Contradiction("test", "is missing, and so is val: one of them contains the scores")
    if record.get("trained_on") and "test" not in record["splits"]:
        yield Contradiction("splits.test", "is missing")
    for split, counts in record["splits"].items():
        if split not in SPLITS:
            yield Contradiction("splits", "should be train, val and test")
        elif not set(classes) <= counts["classes"].keys():
            yield Contradiction(f"splits.{split}.classes", "should count each of the classes")
    for split in ("val", "test"):
        if split in record:
            yield from _of_split(split, record[split], classes)
    uses = record.get("test_uses") or {}
    if record.get("refitted") and "test" not in record:
        yield Contradiction("refitted", "needs the scores of test")
    if uses and "test_use" not in record and "look" not in record:
        yield Contradiction("test_use", "is missing")
    if ("fold" in record) != ("n_folds" in record):
        yield Contradiction("fold", "and n_folds should both be there")


def _of_split(split: str, scores: Mapping[str, Any], classes: list[str]) -> Iterator[Contradiction]:
    if scores["images"] < 1:
        yield Contradiction(f"{split}.images", "should be at least 1")
    if not set(classes) <= scores["classes"].keys():
        yield Contradiction(f"{split}.classes", "should count each of the classes")
    lacking = [name for name in ALWAYS_RECORDED if name not in scores]
    if lacking:
        yield Contradiction(f"{split}.{lacking[0]}", "is missing")
    if len(classes) == 2:
        yield from _four(f"{split}.confusion", scores["confusion"])
        patients = scores.get("patients")
        if patients and "why_not" not in patients:
            for key in (*ALWAYS_RECORDED, "aggregation", "patients", "confusion"):
                if key not in patients:
                    yield Contradiction(f"{split}.patients.{key}", "is missing")
            yield from _four(f"{split}.patients.confusion", patients["confusion"])
    else:
        yield from _of_several(split, scores, classes)


def _of_several(split: str, scores: Mapping[str, Any], classes: list[str]) -> Iterator[Contradiction]:
    """Yield the parts that only a split with more than two classes has."""
    table = scores["confusion"]
    names, counts = table.get("classes"), table.get("counts")
    if names != classes:
        yield Contradiction(f"{split}.confusion.classes", "should be those of the record")
    if not counts or [len(row) for row in counts] != [len(classes)] * len(classes):
        yield Contradiction(f"{split}.confusion.counts", "should be a row of counts for each class")
    each = scores.get("per_class") or {}
    if list(each) != classes:
        yield Contradiction(f"{split}.per_class", "should be about each of the classes")
    if any(not set(PER_CLASS) <= found.keys() for found in each.values()):
        yield Contradiction(f"{split}.per_class", f"should contain {', '.join(PER_CLASS)} of each class")
    if (found := scores.get("patients")) and "why_not" not in found:
        yield Contradiction(f"{split}.patients", "should say why there are no scores by patient")


def _four(key: str, found: Mapping[str, Any]) -> Iterator[Contradiction]:
    for part in ("tp", "fp", "fn", "tn"):
        if part not in found:
            yield Contradiction(f"{key}.{part}", "is missing")
    if not sum(found[part] for part in ("tp", "fp", "fn", "tn")):
        yield Contradiction(key, "should count images")
