"""``config.yaml``: the settings of a run, as reports read them, and as commands that resume the run do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

from pydantic import Field, ValidationError, with_config
from typing_extensions import TypedDict

from ddtl.records.checking import OPEN, Count, FolderName, Name, Number, Scalar, Share, Text, check, refusal
from ddtl.schema.run import moved
from ddtl.utils.reading import Unreadable, read_yaml

if TYPE_CHECKING:
    from ddtl.schema.run import Config

NAME = "config.yaml"

_Range = Annotated[list[Number], Field(min_length=2, max_length=2)]
_Rate = Annotated[float, Field(ge=0, le=1e6)]


@with_config(OPEN)
class _Head(TypedDict):
    hidden: list[Count]
    dropout: Share


@with_config(OPEN)
class _Model(TypedDict):
    name: Name
    weights: NotRequired[Text]
    head: NotRequired[_Head]
    grayscale: NotRequired[Text]


@with_config(OPEN)
class _Loss(TypedDict):
    name: Name
    label_smoothing: NotRequired[Share]
    class_weights: NotRequired[Text]


@with_config(OPEN)
class _Augment(TypedDict):
    horizontal_flip: Number
    rotate_degrees: Number
    shift: Number
    scale: _Range
    brightness: Number
    contrast: Number
    gamma: _Range
    noise: Number
    blur: Number
    erase: Number


@with_config(OPEN)
class _Optimizer(TypedDict):
    name: Name
    lr: Annotated[float, Field(gt=0, le=1e6)]
    weight_decay: Number
    momentum: Number
    schedule: Name
    warmup: Share
    final_lr_ratio: Share


@with_config(OPEN)
class _Finetune(TypedDict):
    name: Name
    backbone_lr_ratio: _Rate
    head_lr_ratio: _Rate


@with_config(OPEN)
class _Trainer(TypedDict):
    max_epochs: Annotated[int, Field(ge=1, le=100_000)]
    patience: NotRequired[Count | None]
    ema: NotRequired[Share | None]
    clip_norm: NotRequired[Number | None]
    deterministic: NotRequired[bool]


@with_config(OPEN)
class _Dataset(TypedDict):
    name: NotRequired[FolderName]
    kind: NotRequired[Name]
    image_size: NotRequired[Count]
    batch_size: NotRequired[Count]
    sampling: NotRequired[Text]
    phantom: NotRequired[dict[Text, Any] | None]
    source_settings: NotRequired[dict[Text, dict[Text, Any]] | None]


@with_config(OPEN)
class _Published(TypedDict):
    source: Text
    protocol: Text
    scores: dict[Text, Number | None]


@with_config(OPEN)
class _Run(TypedDict):
    published: NotRequired[_Published | None]


@with_config(OPEN)
class _Evaluation(TypedDict):
    threshold: NotRequired[Scalar]


@with_config(OPEN)
class SettingsRecord(TypedDict):
    """The parts that reports read; those of earlier versions have fewer."""

    dataset: NotRequired[_Dataset]
    model: NotRequired[_Model]
    loss: NotRequired[_Loss]
    augment: NotRequired[_Augment]
    optimizer: NotRequired[_Optimizer]
    finetune: NotRequired[_Finetune]
    trainer: NotRequired[_Trainer]
    evaluation: NotRequired[_Evaluation]
    run: NotRequired[_Run]
    seed: NotRequired[Count]


def read(folder: Path) -> dict[str, Any]:
    """Return the settings as plain values; empty where there is no such file.

    Raises:
        Unreadable: it is damaged.
    """
    path = folder / NAME
    try:
        found: dict[str, Any] = check(path, moved(read_yaml(path)), SettingsRecord)
    except FileNotFoundError:
        return {}
    return found


def config(folder: Path) -> Config:
    """Return the run's configuration.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: it is damaged, or was written by another version of ddtl.
    """
    from ddtl.config import checks, sources
    from ddtl.schema.run import Config

    path = folder / NAME
    fix = "The run was made by another version of ddtl, or the file is damaged. Use that version, or an intact copy."
    try:
        found = Config.model_validate(read_yaml(path))
    except ValidationError as error:
        raise refusal(path, error, Config.model_json_schema, fix) from None
    wrong = next(checks.of_record(found), None)
    if wrong is not None:
        raise Unreadable(path, f"{wrong} is none that this version of ddtl knows", fix)
    return found.model_copy(update={"dataset": sources.resolved(found.dataset)})
