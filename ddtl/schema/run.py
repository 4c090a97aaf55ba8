"""What a run can be given: frozen, typed and checked. No torch here, so that a mistake is answered at once.

Every field is, with its meaning and its default, in a file under ``conf/``; these classes have types and bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from ddtl.schema.augment import AugmentConfig
from ddtl.schema.backbones import key_of
from ddtl.schema.section import (
    Epochs,
    Finite,
    Fraction,
    Names,
    NonNegative,
    NonNegativeInt,
    OpenFraction,
    Positive,
    PositiveInt,
    Range,
    Section,
    Seed,
    Text,
    Thousands,
)
from ddtl.schema.units import Protocol


def _texts(value: Any) -> Any:
    """A dict of names as text: in a YAML file labels such as 0 and 1 need no quotes."""
    if not isinstance(value, dict):
        return value
    return {_text(key): _text(name) for key, name in value.items()}


def _text(value: Any) -> Any:
    """A number as text, anything else as it is."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


ClassMap = Annotated[dict[Text, Text], BeforeValidator(_texts), Field(min_length=1)]
PatientIds = Literal["check", "join", "exact"]


# The keys of a dataset that say where a person's own files are and how they name things; nothing outside this machine
# is given them.
OWN_FILES = ("root", "table", "labels", "patient_regex", "patients", "own", "exclude")

# Settings that came after runs had been named, with the value at which a run is what it was before. At that value they
# do not belong to its identity, so that it keeps its name.
NEUTRAL: dict[str, Any] = {
    "dataset.sources": None,
    "dataset.class_map": None,
    "dataset.window": None,
    "dataset.slices": "all",
    "dataset.slice_step": 1,
    "dataset.spacing": None,
    "dataset.patient_ids": "check",
    "dataset.train_patients": None,
    "dataset.harmonize": "none",
    "trainer.average_last": None,
    "finetune.trainable_stages": None,
    "finetune.rank": None,
    "finetune.alpha": None,
    "finetune.penalties": None,
    "evaluation.threshold_unit": "auto",
    "evaluation.batchnorm": "stored",
    "evaluation.batchnorm_prior": 0,
    "evaluation.refit": False,
    "evaluation.design": "case_control",
    "loss.name": "cross_entropy",
    "model.library": "torchvision",
    "model.mean": None,
    "model.std": None,
    **{f"augment.{key}": field.default for key, field in AugmentConfig.model_fields.items() if not field.is_required()},
}

# Keys that had another name in earlier versions, with the name that they have now. They are still read, and an
# identity spells them as it did, so that a run keeps its name.
MOVED = {"model.label_smoothing": "loss.label_smoothing", "model.class_weights": "loss.class_weights"}


def moved(tree: Any) -> Any:
    """Return settings of an earlier version, by section, with their keys where they are now."""
    for old, new in MOVED.items():
        (was, key), (now, new_key) = old.split("."), new.split(".")
        before = tree.get(was) if isinstance(tree, dict) else None
        there = tree.get(now, {"name": "cross_entropy"}) if isinstance(before, dict) and key in before else None
        if isinstance(before, dict) and isinstance(there, dict):
            rest = {name: value for name, value in before.items() if name != key}
            tree = {**tree, was: rest, now: {**there, new_key: before[key]}}
    return tree


def _sites(names: tuple[str, ...]) -> tuple[str, ...]:
    if sorted(names) not in (["a"], ["b"], ["a", "b"]):
        raise ValueError("takes a, b or both")
    return names


class PhantomConfig(Section):
    """The procedural dataset; see ``conf/dataset/phantom.yaml``."""

    n_patients: Annotated[int, Field(ge=1, le=100_000)]
    slices_per_patient: Annotated[int, Field(ge=1, le=1_000)]
    sites: Annotated[Names, AfterValidator(_sites)]
    size: Annotated[int, Field(ge=32, le=4096)]
    seed: Seed
    prevalence: OpenFraction
    gap: Literal["scanner", "grey"]
    shortcut: Fraction


class WindowConfig(Section):
    """How stored values become grey levels; see :class:`ddtl.data.images.levels.Window`."""

    center: Finite
    width: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    slope: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    intercept: Finite = 0.0

    @property
    def others(self) -> tuple[WindowConfig, ...]:
        """Those of the second and third channel, where there are three windows."""
        return ()


class WindowsConfig(WindowConfig):
    """Three windows, each a channel of the image: this one and two others. It is stored as the list of them."""

    further: tuple[WindowConfig, WindowConfig]

    @property
    def others(self) -> tuple[WindowConfig, ...]:
        """Those of the second and third channel."""
        return self.further

    @model_serializer
    def _as_list(self) -> list[dict[str, float]]:
        own = {key: getattr(self, key) for key in WindowConfig.model_fields}
        return [own, *(other.model_dump() for other in self.further)]


# Windows that a name is enough for: center and width in Hounsfield units.
WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "mediastinum": (40.0, 400.0),
    "bone": (400.0, 1800.0),
}


def _window(value: Any, info: ValidationInfo) -> Any:
    """The settings of a window that is given by its name; of a list of three windows, all of them."""
    if isinstance(value, list | tuple):
        return _windows(value, info)
    if not isinstance(value, str):
        return value
    if info.data.get("kind") not in ("dicom", "nifti"):
        raise ValueError(
            "a name is of Hounsfield units, which only dataset=dicom and nifti know; take {center: …, width: …, "
            "slope: …, intercept: …}"
        )
    if value not in WINDOWS:
        raise ValueError(f"takes {', '.join(WINDOWS)} or {{center: -600, width: 1500}}")
    center, width = WINDOWS[value]
    return {"center": center, "width": width}


def _windows(values: Sequence[Any], info: ValidationInfo) -> WindowsConfig:
    """Return the windows of a list."""
    if info.data.get("kind") not in ("dicom", "nifti"):
        raise ValueError(
            "three windows are of Hounsfield units, which only dataset=dicom and nifti know; take one window"
        )
    names = ", ".join(WINDOWS)
    wrong = f"takes one window or three, each of {names} or {{center: -600, width: 1500}}, whose width is more than 1"
    if len(values) != 3 or not all(isinstance(value, str | dict | WindowConfig) for value in values):
        raise ValueError(wrong)
    named = [_window(value, info) for value in values]
    try:
        first, second, third = (WindowConfig.model_validate(value) for value in named)
    except ValidationError:
        raise ValueError(wrong) from None
    if len({first, second, third}) < 3:
        raise ValueError("names a window twice; take three different ones, as [lung, mediastinum, bone]")
    return WindowsConfig(**first.model_dump(), further=(second, third))


_OneWindow = WindowConfig | Literal["lung", "mediastinum", "bone"]
NamedWindow = Annotated[
    WindowConfig,
    BeforeValidator(_window, json_schema_input_type=_OneWindow | tuple[_OneWindow, _OneWindow, _OneWindow]),
    SerializeAsAny(),
]


def _some(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if not numbers:
        raise ValueError("takes numbers from 1, as [10, 20, 30]")
    return numbers


Slices = (
    Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], Field(strict=False), AfterValidator(_some)]
    | Literal["all", "middle", "lung"]
)
SliceStep = Annotated[int, Field(ge=1, le=100_000)]
Spacing = Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)]  # mm


class OwnDataset(Section):
    """A person's own images as a source of ``dataset=pooled``; see the files of these kinds in ``conf/dataset/``."""

    # None: a table where there is one, else a folder.
    kind: Literal["folder", "table", "dicom", "nifti"] | None = None
    root: Text | None = None
    table: Text | None = None
    classes: Names | None = None
    class_map: ClassMap | None = None
    patient_regex: Text | None = None
    patients: Text | None = None
    patient_ids: PatientIds = "check"
    window: NamedWindow | None = None
    labels: Text | None = None
    slices: Slices = "all"
    slice_step: SliceStep = 1
    spacing: Spacing | None = None

    @property
    def reader(self) -> str:
        """The kind of dataset that reads the files."""
        return self.kind or ("folder" if self.table is None else "table")


class DatasetConfig(Section):
    """Which images, how they are split and how they are fed; see ``conf/dataset/``."""

    kind: str
    name: Text
    protocol: Protocol
    image_size: Annotated[int, Field(ge=32, le=1024)]
    batch_size: PositiveInt
    sampling: Literal["shuffle", "balanced"]
    num_workers: Annotated[int, Field(ge=0, le=1_000)]
    n_folds: Annotated[int, Field(ge=2, le=1_000_000)]
    fold: NonNegativeInt
    split_seed: Seed
    val_fraction: OpenFraction | None
    test_fraction: OpenFraction | None
    phantom: PhantomConfig | None
    train_patients: PositiveInt | OpenFraction | None = None
    harmonize: Literal["none", "equalize", "clahe", "match", "match_image"] = "none"
    exclude: Text | None = None
    class_map: ClassMap | None = None
    allow_label_conflicts: bool = False
    allow_few_grey_levels: bool = False
    # Only where a person's own images are read: conf/dataset/folder.yaml, table.yaml, dicom.yaml and nifti.yaml.
    root: Text | None = None
    table: Text | None = None
    classes: Names | None = None
    patient_regex: Text | None = None
    patients: Text | None = None
    patient_ids: PatientIds = "check"
    window: NamedWindow | None = None
    # Only where slices of CT volumes are read: conf/dataset/dicom.yaml and nifti.yaml.
    labels: Text | None = None
    slices: Slices = "all"
    slice_step: SliceStep = 1
    spacing: Spacing | None = None
    # Only in conf/dataset/pooled.yaml.
    sources: Names | None = None
    own: dict[str, OwnDataset] | None = None
    # Of dataset=pooled alone: the settings of each source, which ddtl/config/sources.py fills in.
    source_settings: dict[str, DatasetConfig] | None = None

    @property
    def channels(self) -> int:
        """Of an image: 1, or 3 where each is a window of its own."""
        sources = [self] if self.kind != "pooled" else list((self.source_settings or {}).values())
        return 3 if any(one.window is not None and one.window.others for one in sources) else 1

    def of_sources(self) -> dict[str, DatasetConfig]:
        """Return the settings of each source of a pool by its name, split and prepared as the pool is.

        What is in the test of a source is the same alone and in the pool.
        """
        assert self.source_settings is not None, "filled in when the configuration was loaded"
        shared: dict[str, Any] = {key: getattr(self, key) for key in _OF_THE_POOL}
        shared |= {key: value for key in ("val_fraction", "test_fraction") if (value := getattr(self, key)) is not None}
        return {name: source.model_copy(update=shared) for name, source in self.source_settings.items()}


# Settings of a pool that its sources share.
_OF_THE_POOL = (
    "protocol", "split_seed", "n_folds", "fold", "image_size", "batch_size", "sampling", "num_workers", "harmonize",
)  # fmt: skip


class HeadConfig(Section):
    """What is on the pooled features; see ``conf/model/``."""

    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(strict=False)]
    dropout: Annotated[float, Field(ge=0, lt=1)]


Channels = Annotated[tuple[Finite, ...], Field(strict=False, min_length=1, max_length=3)]


class ModelConfig(Section):
    """Backbone, head and initial weights; see ``conf/model/``."""

    name: str
    grayscale: Literal["replicate", "sum"]
    weights: str
    head: HeadConfig
    library: Literal["torchvision", "timm", "file"] = "torchvision"
    # Only in conf/model/features.yaml: the encoder, and how its images were normalised.
    file: Text | None = None
    mean: Channels | None = None
    std: Channels | None = None
    trusted: bool = False

    @property
    def key(self) -> str:
        """Under which ``ddtl.schema.backbones`` finds the network."""
        return key_of({"library": self.library, "name": self.name, "file": self.file})


class LossConfig(Section):
    """What training minimises; see ``conf/loss/``. Further keys are numbers of one loss, such as focal's ``gamma``."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[float, Field(ge=0, le=1_000)]]

    name: str
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    class_weights: Literal["none", "balanced"]


class OptimizerConfig(Section):
    """Optimiser and the shape of the learning rate over the run; see ``conf/optimizer/``."""

    name: Literal["adamw", "sgd"]
    lr: Positive
    weight_decay: NonNegative
    betas: Range
    momentum: Annotated[float, Field(ge=0, lt=1)]
    schedule: Literal["cosine", "constant"]
    warmup: Annotated[float, Field(ge=0, lt=1)]
    final_lr_ratio: Fraction


class PhaseConfig(Section):
    """Some epochs in which the same stages train; see ``docs/finetuning.md``."""

    name: Text
    train: Annotated[tuple[Text, ...], Field(strict=False)]
    epochs: Epochs | None = None
    fraction: Annotated[float, Field(ge=0.001, le=1)] | Literal["rest"] | None = None
    rates: dict[str, Positive] = Field(default_factory=dict)
    # Of the backbone's stages; the head trains whole. ddtl/models/adapters.py says which parameters these are.
    parameters: Literal["all", "biases", "norm_affine", "ssf", "lora"] = "all"


Penalty = Annotated[float, Field(ge=1e-12, le=1e6)]


class FinetuneConfig(Section):
    """Which stages train when, at which rate; see ``conf/finetune/``."""

    name: Annotated[str, Field(pattern=r"^[\w-]+$")]  # part of the run's name
    phases: Annotated[tuple[PhaseConfig, ...], Field(strict=False)]
    backbone_lr_ratio: NonNegative
    head_lr_ratio: Positive
    decay: Annotated[float, Field(gt=0, le=1)]
    batchnorm: Literal["train", "frozen_stats"]
    rewarm: NonNegative
    cached_views: Annotated[int, Field(ge=0, le=1_000)]
    cache_gb: NonNegative
    # Not where only the head trains, nor in conf/finetune/surgical.yaml, which names its stages.
    trainable_stages: PositiveInt | None = None
    # Only in conf/finetune/surgical.yaml, whose phase refers to it.
    stages: Names | None = None
    # Only in conf/finetune/lp_ft.yaml, whose first phase refers to it.
    probe: OpenFraction | None = None
    # Only in conf/finetune/lora.yaml: of the low-rank updates, which are scaled by alpha / rank.
    rank: Thousands | None = None
    alpha: Annotated[float, Field(ge=0.001, le=10_000, allow_inf_nan=False)] | None = None
    # Only in conf/finetune/logistic_probe.yaml: of the first epoch's head and of the last one's.
    penalties: Annotated[tuple[Penalty, Penalty], Field(strict=False)] | None = None


class TrainerConfig(Section):
    """Length, hardware and precision of training; see ``conf/trainer/``."""

    max_epochs: Epochs
    accelerator: Literal["auto", "cpu", "gpu"]
    devices: Thousands
    num_nodes: Thousands
    strategy: Literal["auto", "ddp"]
    precision: Literal["auto", 32, "bf16-mixed", "16-mixed"]
    channels_last: bool
    accumulate: PositiveInt
    ema: OpenFraction | None
    average_last: PositiveInt | None = None
    clip_norm: NonNegative
    deterministic: bool
    monitor: str
    patience: PositiveInt | None
    checkpoint_seconds: NonNegative
    limit_batches: PositiveInt | None
    compile: bool
    detect_anomaly: bool
    profiler: Literal["simple", "advanced"] | None


class WandbConfig(Section):
    """Weights & Biases; see ``conf/logger/wandb.yaml``."""

    mode: Literal["auto", "online", "offline", "disabled"]
    project: str
    entity: str | None
    group: str | None
    tags: Names
    artifacts: bool = True  # runs of before there were any do not have it
    timeout: Annotated[float, Field(gt=0, le=86_400)]  # seconds


class MlflowConfig(Section):
    """MLflow; see ``conf/logger/mlflow.yaml``."""

    enabled: bool = False
    store: str | None = None
    experiment: Annotated[str, Field(min_length=1)] = "ddtl"


class LoggerConfig(Section):
    """Where the curves are logged, besides the run's own records; see ``conf/logger/``."""

    wandb: WandbConfig
    mlflow: MlflowConfig = MlflowConfig()  # runs of before there was one do not have it
    tensorboard: bool
    csv: bool
    upload_samples: bool


class EvaluationConfig(Section):
    """How the trained model is scored; see ``conf/evaluation/``."""

    test: bool
    threshold: (
        OpenFraction
        | Literal["youden", "sensitivity", "specificity", "sensitivity_guaranteed", "specificity_guaranteed"]
    )
    threshold_unit: Literal["auto", "image", "patient"] = "auto"
    target: OpenFraction | None
    patient: Literal["mean", "max", "vote"]
    interval: Literal["default", "percentile", "bca", "logit", "wilson"]
    design: Literal["case_control", "cohort"] = "case_control"
    level: OpenFraction
    replicates: Annotated[int, Field(ge=100, le=100_000)]
    prevalences: Annotated[tuple[OpenFraction, ...], Field(strict=False)]
    batchnorm: Literal["stored", "adapt"] = "stored"
    batchnorm_prior: NonNegativeInt = 0
    refit: bool = False


class PathsConfig(Section):
    """Where things are on this machine; no result depends on them."""

    data_dir: Text
    cache_dir: Text
    runs_dir: Text
    weights_mirror: str | None
    data_mirror: str | None


class PublishedConfig(Section):
    """Numbers from a paper, to print next to ours; see ``conf/experiment/``."""

    source: str
    protocol: str
    scores: dict[str, Finite]


class RunConfig(Section):
    """The run's name and how to treat a folder that is there already."""

    name: str | None
    overwrite: bool
    published: PublishedConfig | None


class Config(Section):
    """Everything a run is given. Made by :func:`ddtl.config.load.load`; nothing changes it afterwards."""

    dataset: DatasetConfig
    model: ModelConfig
    loss: LossConfig
    augment: AugmentConfig
    optimizer: OptimizerConfig
    finetune: FinetuneConfig
    trainer: TrainerConfig
    logger: LoggerConfig
    evaluation: EvaluationConfig
    paths: PathsConfig
    run: RunConfig
    seed: Seed
    verbose: bool = False

    _moved = model_validator(mode="before")(moved)
