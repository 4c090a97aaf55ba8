"""What no single field can tell: settings that contradict each other or the dataset, and settings without effect."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ddtl.config import phases, sources, where
from ddtl.schema import backbones
from ddtl.schema.run import Config, DatasetConfig
from ddtl.schema.scores import AIMED, MONITORS, SCORES
from ddtl.utils import ranks, threads
from ddtl.utils.errors import UserError
from ddtl.utils.redaction import redact_url
from ddtl.utils.suggest import did_you_mean

# Bytes of a name that becomes a folder's; file systems take 255, and some names get an ending.
LONGEST = 200

WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".ckpt")


def problems(config: Config, trains: bool = True, writes: bool = True) -> list[str]:
    """Return a line for each contradiction, naming the key to change.

    Args:
        config: what is requested.
        trains: whether it will be trained; what is only evaluated goes one image at a time as well as any other way.
        writes: whether anything is written to paths.runs_dir.
    """
    every = (
        _names, _run, _paths, _ranges, _finetune, _hardware, _batch_of_one, _weights, _phantom, _own, _pooled,
        _channels, _loggers, _evaluation, _unwritable,
    )  # fmt: skip
    skipped = [*([] if trains else [_batch_of_one]), *([] if writes else [_unwritable])]
    return [line for check in every if check not in skipped for line in check(config)]


_NEEDED = {"folder": ("root",), "table": ("table",), "dicom": ("root", "labels"), "nifti": ("root", "labels")}


def of_record(config: Config) -> Iterator[str]:
    """The keys of a stored configuration whose values no command can work with.

    What depends on this machine is not checked.
    """
    d = config.dataset
    for check in (_names, _ranges, _phantom, _evaluation):
        yield from (re.split("[ =:]", line, maxsplit=1)[0] for line in check(config))
    if any(_finetune(config)):
        yield "finetune.phases"
    if d.kind == "pooled" and sources.problems(d):
        yield "dataset.sources"
    yield from (f"dataset.{key}" for key in _NEEDED.get(d.kind, ()) if getattr(d, key) is None)
    try:
        re.compile(d.patient_regex or "")
    except re.error:
        yield "dataset.patient_regex"


def _names(c: Config) -> Iterator[str]:
    kind, name = c.dataset.kind, c.dataset.name
    kinds = where.options("dataset")
    if kind not in kinds:
        yield f"dataset.kind={kind}: no such dataset.{did_you_mean(kind, kinds)} There are {', '.join(kinds)}."
    elif c.dataset.protocol == "official" and "official" not in (protocols := sources.protocols_of(kind)):
        yield f"dataset.protocol={c.dataset.protocol}: {kind} has none. There are {', '.join(protocols)}."
    if not is_folder_name(name):
        yield (
            f"dataset.name={_short(name)}: must be a plain folder name of at most {LONGEST} bytes; results are filed "
            "under it."
        )
    elif kind in kinds and kind not in sources.BY_KEYS and name != kind:
        yield (
            f"dataset.name={name}: {kind} is filed under its own name, so that uses of its test set are counted. Leave "
            "dataset.name out."
        )
    elif name.casefold() in sources.RESERVED:
        yield (
            f"dataset.name={name}: ddtl keeps records of its own in a folder of this name. Set another: "
            f"dataset.name=my_{name}"
        )
    elif kind in sources.BY_KEYS and name.casefold() in {other for other in kinds if other not in sources.BY_KEYS}:
        yield (
            f"dataset.name={name}: is the name of another dataset, and uses of test sets are counted by name. Set "
            f"another: dataset.name=my_{name}"
        )
    wrong = backbones.problem(c.model.key) or backbones.size_problem(c.model.key, c.dataset.image_size)
    if wrong:
        yield wrong
    losses = where.options("loss")
    if c.loss.name not in losses:
        hint = did_you_mean(c.loss.name, losses)
        yield f"loss.name={c.loss.name}: no such loss.{hint} There are {', '.join(losses)}."
    elif c.loss.model_dump().keys() != where.keys_in(where.option_file("loss", c.loss.name)):
        yield f"loss.name={c.loss.name}: the other keys of loss are of another one. Set loss={c.loss.name} instead."
    if c.trainer.monitor not in MONITORS:
        hint = did_you_mean(c.trainer.monitor, MONITORS)
        yield f"trainer.monitor={c.trainer.monitor}: no such score.{hint} There are {', '.join(MONITORS)}."


def _run(c: Config) -> Iterator[str]:
    name = c.run.name
    if name is not None and not (name.strip() and name.isprintable() and len(name.encode(errors="replace")) <= LONGEST):
        yield (
            f"run.name={_short(name)!r}: must be 1 to {LONGEST} printable characters. Leave it out, and the run is "
            "named for you."
        )
    elif name is not None and not is_folder_name(name):
        yield f"run.name={name}: must be a plain folder name; paths.runs_dir says where that folder is."
    for score in c.run.published.scores if c.run.published is not None else ():
        if score not in SCORES:
            hint = did_you_mean(score, SCORES)
            yield f"run.published.scores.{score}: no such score.{hint} There are {', '.join(SCORES)}."


def is_folder_name(name: str) -> bool:
    """Whether a name is that of one folder, in sight and not a path."""
    plain = bool(name.strip()) and name.isprintable() and not name.startswith(".") and not set(name) & set("/\\")
    return plain and len(name.encode(errors="replace")) <= LONGEST


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:50]}… ({len(name)} characters)"


def _paths(c: Config) -> Iterator[str]:
    for key, text in _folders(c):
        path = os.path.expanduser(text)
        if "://" in text:
            yield f"{key}={_short(text)}: is a URL, and a folder of this machine is wanted. Set another {key}."
            continue
        if text.startswith("~/") and path.startswith("~"):
            yield f"{key}={text}: this user has no home folder. Name one that exists or can be made: {key}=/tmp/ddtl"
            continue
        if path.startswith("~"):
            yield f"{key}={text}: there is no such user. A folder with the name ~ is written ./~."
            continue
        if _is_too_long(path):
            yield f"{key}={_short(text)}: this path is longer than a file system takes. Set another {key}."
            continue
        there = _nearest(path)
        if not os.path.isdir(there):
            yield f"{key}={text}: {there} is not a folder. Set another {key}."
    mirror = c.paths.weights_mirror
    if mirror and c.model.weights == "imagenet" and not mirror.startswith("file://") and (wrong := no_url(mirror)):
        yield (
            f"paths.weights_mirror={mirror}: {wrong}. It comes from the command line, or from the variable "
            "DDTL_WEIGHTS_MIRROR: unset DDTL_WEIGHTS_MIRROR"
        )


def no_url(mirror: str) -> str:
    """Why a text is not a URL to fetch from, as a predicate; empty where it is one."""
    if not mirror.startswith(("http://", "https://")):
        return "must begin with https:// or http://"
    try:
        parts = urlsplit(mirror)
        is_host = bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port
        is_host = False
    if not (is_host and mirror.isascii() and mirror.isprintable() and " " not in mirror):
        return "is not a URL. Write signs of a password such as @ : / ? # % and blanks as %40 %3A %2F %3F %23 %25 %20"
    return ""


def _folders(c: Config) -> list[tuple[str, str]]:
    return [(f"paths.{name}", getattr(c.paths, name)) for name in ("data_dir", "runs_dir", "cache_dir")]


def _unwritable(c: Config) -> Iterator[str]:
    there = _nearest(os.path.expanduser(c.paths.runs_dir))
    if os.path.isdir(there) and not os.access(there, os.W_OK | os.X_OK):
        yield f"paths.runs_dir={c.paths.runs_dir}: {there} cannot be written to. Set another paths.runs_dir."


def _is_too_long(path: str) -> bool:
    """Whether what is written below a folder would go beyond what Linux takes: 255 bytes a name, 4095 in all."""
    data = os.fsencode(os.path.abspath(path))
    return len(data) + 2 * LONGEST > 4000 or any(len(part) > 255 for part in data.split(b"/"))


def _nearest(path: str) -> str:
    """The path itself, or the first folder above it that exists."""
    path = os.path.abspath(path)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _ranges(c: Config) -> Iterator[str]:
    d = c.dataset
    if d.kind != "pooled" and None in (d.val_fraction, d.test_fraction):
        yield "dataset.val_fraction and dataset.test_fraction must be numbers; null is for dataset=pooled."
    elif d.protocol in ("grouped", "random") and (d.val_fraction or 0) + (d.test_fraction or 0) >= 1:
        yield "dataset.val_fraction and dataset.test_fraction leave nothing to train on; their sum must be under 1."
    if c.dataset.protocol == "kfold" and c.dataset.fold >= c.dataset.n_folds:
        yield f"dataset.fold={c.dataset.fold}: dataset.n_folds={c.dataset.n_folds} folds count from 0."
    if not all(0 <= beta < 1 for beta in c.optimizer.betas):
        yield f"optimizer.betas={list(c.optimizer.betas)}: each must be at least 0 and under 1."


def _finetune(c: Config) -> Iterator[str]:
    if not backbones.problem(c.model.key):
        found = phases.problems(c.finetune, backbones.stages_of(c.model.key), c.trainer.max_epochs)
        yield from found or [*_low_rank(c), *_fitted_head(c), *_encoder(c)]


def _encoder(c: Config) -> Iterator[str]:
    """What an encoder from a file does not go with."""
    m = c.model
    if m.library != "file":
        for key in ("file", "mean", "std"):
            if getattr(m, key) is not None:
                yield f"model.{key}: is that of an encoder. Set model=features, or model.{key}=null."
        return
    if min(_still(c)) < _backbone(c):
        yield f"finetune={c.finetune.name}: model=features is frozen. Set finetune=logistic_probe or linear_probe."
    if Path(m.file or "").suffix.lower() == ".pt2" and not m.trusted:
        yield (
            f"model.file={m.file}: a file of torch.export can run code of its own when it is read. Set "
            "model.trusted=true where its source is trusted, or export it as ONNX."
        )
    if (m.mean is None) != (m.std is None) or len(m.mean or ()) != len(m.std or ()):
        yield "model.mean and model.std: have a number each for each channel. Set both, or both to null."
    elif len(m.mean or (0,)) == 2:
        yield "model.mean: an image has one channel or three. Set one number or three."
    if any(value <= 0 for value in m.std or ()):
        yield "model.std: must be more than 0."
    if m.grayscale == "sum":
        yield "model.grayscale=sum: an encoder's first layer stays as it is. Set model.grayscale=replicate."
    if c.trainer.compile:
        yield "trainer.compile=true: an encoder from a file is not compiled. Set trainer.compile=false."


def _fitted_head(c: Config) -> Iterator[str]:
    """What a fitted head does not go with."""
    if c.finetune.penalties is None:
        return
    first, last = c.finetune.penalties
    key = "finetune.penalties"
    if last > first:
        yield f"{key}=[{first:g}, {last:g}]: the strongest comes first. Set {key}=[{last:g},{first:g}]."
    if min(_still(c)) < _backbone(c):
        yield f"{key}: a head is fitted to a frozen backbone, and a phase trains some of it. Set {key}=null."
    if c.model.head.hidden:
        yield f"{key}: the head that is fitted has one layer. Set model.head.hidden=[]."
    if c.trainer.devices * c.trainer.num_nodes > 1:
        yield f"{key}: the head is fitted in one process. Set trainer.devices=1 trainer.num_nodes=1."
    for name in ("ema", "average_last"):
        if getattr(c.trainer, name) is not None:
            yield f"trainer.{name} averages heads of several penalties. Set trainer.{name}=null, or {key}=null."
    if c.loss.name != "cross_entropy" or c.loss.label_smoothing:
        yield f"{key}: a head is fitted by cross-entropy. Set loss=cross_entropy loss.label_smoothing=0."
    if c.dataset.sampling != "shuffle":
        yield f"{key}: each image is fitted once. Set dataset.sampling=shuffle loss.class_weights=balanced."
    if c.augment.mixup or c.augment.cutmix:
        yield f"{key}: mixed images have no features to store. Set augment.mixup=0 augment.cutmix=0."
    elif c.augment.steps(c.dataset.image_size) and not c.finetune.cached_views:
        yield f"{key}: images that each epoch augments are not fitted. Set augment=none or finetune.cached_views=4."
    if c.finetune.cache_gb == 0:
        yield f"{key}: a head is fitted to stored features. Set finetune.cache_gb=4."


def _low_rank(c: Config) -> Iterator[str]:
    wanted, largest = phases.lora(c.finetune), backbones.attention_rank(c.model.key)
    if wanted is not None and largest is not None and (line := phases.lora_problem(wanted[0], largest, c.model.name)):
        yield line


def _still(c: Config) -> list[int]:
    """How many stages at the network's beginning stay frozen, for each phase."""
    return phases.still(c.finetune, backbones.stages_of(c.model.key))


def _backbone(c: Config) -> int:
    return len(backbones.spec_of(c.model.key).stages)


def _has_batchnorm(c: Config) -> bool:
    return not backbones.problem(c.model.key) and backbones.spec_of(c.model.key).has_batchnorm


def _hardware(c: Config) -> Iterator[str]:
    """The batch, the processes, the hardware, and the length of the run."""
    yield from _averages(c)
    parts = c.trainer.devices * c.trainer.num_nodes * c.trainer.accumulate
    if c.dataset.batch_size % parts:
        up, cores = -(-c.dataset.batch_size // parts) * parts, threads.cores()
        fix = f"Set dataset.batch_size={up}."
        if c.trainer.devices > cores:  # then the batch is hardly what is meant
            fix = f"Set fewer trainer.devices: {c.trainer.devices} are more than the {cores} cores of this machine."
        yield (
            f"dataset.batch_size={c.dataset.batch_size} is the whole batch and cannot be shared out evenly over "
            f"trainer.devices × trainer.num_nodes × trainer.accumulate = {parts}. {fix}"
        )
    if c.trainer.num_nodes > 1 and c.trainer.strategy == "auto" and c.trainer.devices == 1:
        yield "trainer.num_nodes > 1 needs trainer.strategy=ddp."
    else:
        try:
            ranks.assign_process(c.trainer.devices, c.trainer.num_nodes)
        except UserError as error:
            yield str(error)
    if c.trainer.precision == "16-mixed" and c.trainer.accelerator == "cpu":
        yield "trainer.precision=16-mixed needs a GPU; on a CPU use trainer.precision=bf16-mixed or 32."


def _averages(c: Config) -> Iterator[str]:
    k, epochs = c.trainer.average_last, c.trainer.max_epochs
    if k is not None and k > epochs:
        yield f"trainer.average_last={k}: there are no more than trainer.max_epochs={epochs}. Set it to at most that."
    if k is not None and c.trainer.ema is not None:
        yield "trainer.average_last and trainer.ema both average the weights; set one of them to null."
    if k is not None and c.trainer.patience is not None:
        yield "trainer.average_last needs to know the last epochs, which trainer.patience leaves open; set one to null."


def _batch_of_one(c: Config) -> Iterator[str]:
    """BatchNorm that is trained on one image at a time normalises each image by itself."""
    parts = c.trainer.devices * c.trainer.num_nodes * c.trainer.accumulate
    if not _has_batchnorm(c) or c.dataset.batch_size != parts or c.finetune.batchnorm == "frozen_stats":
        return
    if min(_still(c)) < _backbone(c):
        yield (
            f"dataset.batch_size={c.dataset.batch_size}: one image at a time, on which BatchNorm cannot be trained. "
            f"Set dataset.batch_size={2 * parts} or more, or finetune.batchnorm=frozen_stats."
        )


def _weights(c: Config) -> Iterator[str]:
    weights, file = c.model.weights, c.model.file
    if file is not None and not os.path.isfile(os.path.expanduser(file)):
        yield f"model.file={file}: there is no such file."
    if weights == "imagenet" and c.model.library == "timm" and not backbones.problem(c.model.key):
        published = backbones.spec_of(c.model.key).timm
        if published is not None and not published.repository:
            yield (
                f"model.weights=imagenet: timm publishes no weights of {c.model.name}. Set model.weights=none, or give "
                "a file."
            )
    if weights in ("imagenet", "none"):
        return
    path = Path(os.path.expanduser(weights))
    if not os.path.exists(path):
        hint = did_you_mean(weights, ("imagenet", "none"))
        yield f"model.weights={weights}: no such file or folder.{hint} It takes imagenet, none, a file or a run folder."
    elif path.is_dir() and not (path / "model.safetensors").is_file():
        yield f"model.weights={weights}: not the folder of a finished run, it contains no model.safetensors."
    elif path.is_file() and path.suffix not in WEIGHT_FILES:
        yield f"model.weights={weights}: a weights file ends in {', '.join(WEIGHT_FILES)}."


def _phantom(c: Config) -> Iterator[str]:
    if c.dataset.kind == "phantom" and c.dataset.phantom is None:
        yield "dataset.phantom is empty: take the dataset with dataset=phantom, not with dataset.kind=phantom."


def _own(c: Config) -> Iterator[str]:
    """A person's own images: that they are named, and that what is named is there."""
    d = c.dataset
    if d.kind == "folder" and d.root is None:
        yield "dataset=folder needs dataset.root=FOLDER, which contains a folder of images for each class."
    if d.kind == "table" and d.table is None:
        yield "dataset=table needs dataset.table=FILE, a CSV with the columns path and label."
    yield from _volumes(d)
    if d.patient_regex is not None and d.patients is not None:
        yield "dataset.patient_regex and dataset.patients both define the patients; set one of them to null."
    if d.patient_regex is not None:
        try:
            re.compile(d.patient_regex)
        except re.error as error:
            yield f"dataset.patient_regex={d.patient_regex}: not a regular expression ({error})."
    for key, text, there in (
        ("dataset.root", d.root, os.path.isdir),
        ("dataset.table", d.table, os.path.isfile),
        ("dataset.labels", d.labels, os.path.isfile),
        ("dataset.patients", d.patients, os.path.isfile),
        ("dataset.exclude", d.exclude, os.path.isfile),
    ):
        if text is not None and not there(os.path.expanduser(text)):
            what = "folder" if there is os.path.isdir else "file"
            if os.path.exists(os.path.expanduser(text)):
                yield f"{key}={text}: is not a {what}. Set {key} to a {what}."
            else:
                seen_from = "" if os.path.isabs(os.path.expanduser(text)) else f" in {os.getcwd()}"
                yield f"{key}={text}: there is no such {what}{seen_from}. Set {key} to one that is there."
    if d.classes is not None and (len(d.classes) < 2 or len(set(d.classes)) != len(d.classes)):
        yield f"dataset.classes=[{', '.join(d.classes)}]: names two classes or more, each once, the positive one last."


def _volumes(d: DatasetConfig) -> Iterator[str]:
    """Slices of CT volumes, whose files say what stored values mean."""
    if d.kind not in ("dicom", "nifti"):
        return
    what = "DICOM files" if d.kind == "dicom" else "NIfTI volumes"
    columns = "patient_id, study, series or slice" if d.kind == "dicom" else "path"
    if d.root is None:
        yield f"dataset={d.kind} needs dataset.root=FOLDER, which contains {what} at any depth."
    if d.labels is None:
        yield f"dataset={d.kind} needs dataset.labels=FILE, a CSV with the columns label and {columns}."
    if d.window is None:
        yield f"dataset.window=null: {what} store Hounsfield units. Set dataset.window=lung."
    elif any((one.slope, one.intercept) != (1, 0) for one in (d.window, *d.window.others)):
        yield f"dataset.window.slope and intercept are in the headers of {what}. Set center and width alone."


def _channels(c: Config) -> Iterator[str]:
    """What takes images of one channel, where each of three windows is one."""
    is_pooled = c.dataset.kind == "pooled"
    if is_pooled and sources.problems(c.dataset):
        return
    dataset = sources.resolved(c.dataset) if is_pooled else c.dataset
    if dataset.channels == 1:
        return
    if is_pooled and len({source.window for source in dataset.of_sources().values()}) > 1:
        yield (
            "dataset.sources: one has three windows, which are the channels of its images, and another has other ones. "
            "Set the same window=[…] for each in dataset.own, or a single window for all."
        )
    if c.model.grayscale != "replicate":
        yield "model.grayscale=sum: dataset.window has three channels. Set model.grayscale=replicate."
    if c.dataset.harmonize != "none":
        yield (
            f"dataset.harmonize={c.dataset.harmonize}: takes images of one window, and dataset.window has three. Set "
            "dataset.harmonize=none."
        )


def _pooled(c: Config) -> Iterator[str]:
    """The sources of ``dataset=pooled``: that they exist, and that own files are there."""
    if c.dataset.kind != "pooled":
        return
    wrong = sources.problems(c.dataset)
    yield from wrong
    for name, source in {} if wrong else sources.resolved(c.dataset).of_sources().items():
        for line in _own(c.model_copy(update={"dataset": source})):
            yield line.replace("dataset.", f"dataset.own.{name}.")


def _loggers(c: Config) -> Iterator[str]:
    if c.logger.tensorboard and importlib.util.find_spec("tensorboard") is None:
        yield "logger.tensorboard=true needs a package that is not here: pip install 'ddtl[tensorboard]'."
    if c.logger.mlflow.enabled and importlib.util.find_spec("mlflow") is None:
        yield "logger.mlflow.enabled=true needs a package that is not here: pip install 'ddtl[mlflow]'."
    store = c.logger.mlflow.store
    if store is not None and not store.startswith(("sqlite:///", "http://", "https://")):
        yield (
            f"logger.mlflow.store={redact_url(store)}: it is sqlite:////folder/file.db, or the URL of a server, as "
            "http://127.0.0.1:5000."
        )
    elif store is not None and redact_url(store) != store:
        yield (
            f"logger.mlflow.store={redact_url(store)}: a password would be written down. Set the variables "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )


def _evaluation(c: Config) -> Iterator[str]:
    e = c.evaluation
    if e.threshold in AIMED and e.target is None:
        yield f"evaluation.threshold={e.threshold} needs the value to reach: evaluation.target=0.95."
    if e.batchnorm == "adapt" and not backbones.problem(c.model.key) and not _has_batchnorm(c):
        yield f"evaluation.batchnorm=adapt: {c.model.name} has no BatchNorm. Set evaluation.batchnorm=stored."
    if e.level < 0.5:
        yield f"evaluation.level={e.level:g}: an interval's level is a large share, such as 0.95."


_OF_STEPS = ("optimizer.lr", "optimizer.weight_decay", "model.head.dropout", "finetune.head_lr_ratio")

# (key, whether it has no effect, why): a line is logged where such a key was set on the command line.
WITHOUT_EFFECT: tuple[tuple[str, Callable[[Config], bool], str], ...] = (
    ("optimizer.momentum", lambda c: c.optimizer.name == "adamw", "adamw has no momentum; see optimizer.betas"),
    ("optimizer.betas", lambda c: c.optimizer.name == "sgd", "sgd has no betas; see optimizer.momentum"),
    ("optimizer.final_lr_ratio", lambda c: c.optimizer.schedule == "constant", "the rate is constant"),
    ("finetune.backbone_lr_ratio", lambda c: min(_still(c)) >= _backbone(c), "the backbone is frozen"),
    ("finetune.cache_gb", lambda c: max(_still(c)) == 0, "the network's first stage always trains"),
    ("finetune.probe", lambda c: not phases.takes(c.finetune, c.finetune.probe), "no phase refers to it"),
    *(
        (f"finetune.{key}", lambda c: phases.lora(c.finetune) is None, "no phase trains low-rank updates")
        for key in ("rank", "alpha")
    ),
    *((key, lambda c: c.finetune.penalties is not None, "the head is fitted, without steps") for key in _OF_STEPS),
    (
        "finetune.cached_views",
        lambda c: not c.augment.steps(c.dataset.image_size),
        "images are not augmented, so all their views are equal",
    ),
    ("dataset.split_seed", lambda c: c.dataset.protocol == "official", "the official split is fixed"),
    ("dataset.val_fraction", lambda c: c.dataset.protocol == "official", "the official split is fixed"),
    ("dataset.test_fraction", lambda c: c.dataset.protocol == "official", "the official split is fixed"),
    ("dataset.test_fraction", lambda c: c.dataset.protocol == "kfold", "the test is one of dataset.n_folds parts"),
    ("dataset.fold", lambda c: c.dataset.protocol != "kfold", "only dataset.protocol=kfold has folds"),
    ("dataset.n_folds", lambda c: c.dataset.protocol != "kfold", "only dataset.protocol=kfold has folds"),
    (
        "dataset.phantom.gap",
        lambda c: c.dataset.phantom is not None and "b" not in c.dataset.phantom.sites,
        "there is no site b; see dataset.phantom.sites",
    ),
    ("trainer.strategy", lambda c: c.trainer.devices * c.trainer.num_nodes == 1, "there is one process"),
    *(
        (f"logger.wandb.{key}", lambda c: c.logger.wandb.mode == "disabled", "W&B is off: logger.wandb.mode=disabled")
        for key in ("project", "entity", "group", "tags", "artifacts", "timeout")
    ),
    *(
        (f"logger.mlflow.{key}", lambda c: not c.logger.mlflow.enabled, "MLflow is off: logger.mlflow.enabled=false")
        for key in ("store", "experiment")
    ),
    ("logger.upload_samples", lambda c: c.logger.wandb.mode == "disabled", "nothing is uploaded: W&B is off"),
    (
        "evaluation.replicates",
        lambda c: c.evaluation.interval not in ("percentile", "bca"),
        "only evaluation.interval=percentile and bca draw bootstrap samples",
    ),
    (
        "evaluation.target",
        lambda c: c.evaluation.threshold not in AIMED,
        "only evaluation.threshold=sensitivity or specificity aim at a value",
    ),
    ("evaluation.threshold_unit", lambda c: not isinstance(c.evaluation.threshold, str), "the threshold is fixed"),
    (
        "evaluation.batchnorm_prior",
        lambda c: c.evaluation.batchnorm != "adapt",
        "only evaluation.batchnorm=adapt measures statistics to mix",
    ),
    ("evaluation.batchnorm", lambda c: not c.evaluation.test, "only the test set is adapted to: evaluation.test=true"),
    (
        "dataset.harmonize",
        lambda c: c.dataset.harmonize == "match" and c.dataset.kind != "pooled",
        "a dataset matches itself; only other datasets that the run is evaluated on are changed",
    ),
    ("finetune.batchnorm", lambda c: not _has_batchnorm(c), "the network has no BatchNorm"),
)


def warnings(config: Config, explicit: set[str]) -> list[str]:
    """A line for each setting among ``explicit`` that changes nothing, and for likely slips."""
    lines = [f"{key} has no effect: {why}." for key, idle, why in WITHOUT_EFFECT if key in explicit and idle(config)]
    name = config.finetune.name
    if config.evaluation.refit:
        lines.append("evaluation.refit has no effect on a run's own test set: `ddtl evaluate RUN dataset=…` refits.")
    if "finetune.name" in explicit:
        lines.append(f"finetune.name={name} only renames the schedule. To take another one, write finetune={name}.")
    is_random = config.model.weights == "none" and config.model.library != "file"
    if is_random and _still(config)[0] >= _backbone(config):
        lines.append(f"finetune={name} with model.weights=none trains a head on random features.")
    if config.dataset.sampling == "balanced" and config.loss.class_weights == "balanced":
        lines.append("dataset.sampling=balanced with loss.class_weights=balanced favours the rare classes twice over.")
    return lines
