"""The datasets that ``dataset=pooled`` joins, each with the settings that it has where it is alone. No torch."""

from __future__ import annotations

from ddtl.config import compose
from ddtl.config.where import OWN, options
from ddtl.schema.run import DatasetConfig
from ddtl.schema.units import PROTOCOLS
from ddtl.utils import plugins
from ddtl.utils.errors import UserError
from ddtl.utils.suggest import did_you_mean

# Folders that ddtl makes next to those of datasets in paths.runs_dir.
RESERVED = ("sweeps", "studies", "audits", "lr_find")
_SITES = ("phantom:a", "phantom:b")
_EVERYWHERE = tuple(protocol for protocol in PROTOCOLS if protocol != "official")  # protocols of all datasets
BY_KEYS = ("folder", "table", "dicom", "nifti", "pooled")  # datasets that cannot be a source by this name


def base(source: str) -> str:
    """The dataset that a source is of: ``phantom`` for ``phantom:a``."""
    return source.partition(":")[0]


def protocols_of(kind: str) -> tuple[str, ...]:
    """The protocols of a dataset, its default first. Those with a published split have it as their default."""
    by_column = ("official",) if kind in ("table", "dicom", "nifti") else ()
    return tuple(dict.fromkeys((usual(kind).protocol, *_EVERYWHERE, *by_column)))


def resolved(dataset: DatasetConfig) -> DatasetConfig:
    """A dataset's settings as a record that needs nothing else: those of a pool with those of its sources.

    A source has the settings of ``conf/dataset/<source>.yaml``, split and prepared as the pool is. Those of a stored
    run are the ones in its ``config.yaml``, whatever the files under ``conf/`` say today.
    """
    if dataset.kind != "pooled" or (dataset.source_settings or {}).keys() == set(dataset.sources or ()):
        return dataset
    found = {name: _source(dataset, name) for name in dataset.sources or ()}
    found = dataset.model_copy(update={"source_settings": found}).of_sources()
    return dataset.model_copy(update={"source_settings": found})


def problems(pooled: DatasetConfig) -> list[str]:
    """What is wrong with the sources' names; a line each."""
    names, own = pooled.sources or (), pooled.own or {}
    datasets = options("dataset")
    lines = []
    shown = f"dataset.sources=[{', '.join(names)}]"
    if len(names) < 2 or len(set(names)) < len(names):
        lines.append(f"{shown}: names two datasets or more, each once.")
    built_in = [name for name in datasets if name not in BY_KEYS]
    known = [*built_in, *_SITES, *own]
    for name in names:
        if name not in known:
            also = " A folder of your own is declared first: dataset.own={third: {root: /images}}."
            lines.append(f"{shown}: no such dataset as {name}.{did_you_mean(name, known)}{also}")
    if "phantom" in names and set(names) & set(_SITES):
        lines.append(f"{shown}: phantom contains its sites; name phantom:a and phantom:b instead, or phantom alone.")
    if pooled.phantom is None and {base(name) for name in names} & {"phantom"}:
        lines.append("dataset.phantom is empty: it contains the settings of the sources phantom:a and phantom:b.")
    for name, files in own.items():
        if (
            name in (*datasets, *_SITES, *RESERVED)
            or not name.strip()
            or set(name) & set("/\\:")
            or name.startswith(".")
        ):
            lines.append(f"dataset.own.{name}: take another name, plain and not that of a dataset or folder of ddtl.")
        elif name not in names:
            lines.append(f"dataset.own.{name}: is not among {shown}.")
        if files.reader in ("dicom", "nifti"):
            continue  # ddtl/config/checks.py names what these need
        if files.root is None and files.table is None:
            lines.append(
                f"dataset.own.{name} needs root=FOLDER, with a folder of images for each class, or table=FILE."
            )
        elif files.table is not None and (files.patient_regex or files.patients):
            lines.append(f"dataset.own.{name}: a table names its patients itself, in its column patient_id.")
    return lines


def _source(pooled: DatasetConfig, source: str) -> DatasetConfig:
    own = (pooled.own or {}).get(source)
    if own is not None:
        files = {key: getattr(own, key) for key in type(own).model_fields if key != "kind"}
        found = usual(own.reader)
        files["window"] = own.window or found.window  # volumes have one
        return found.model_copy(update={"name": source, **files})
    found = usual(base(source))
    return found.model_copy(update={"phantom": _phantom(pooled, source)}) if found.kind == "phantom" else found


def _phantom(pooled: DatasetConfig, source: str) -> object:
    assert pooled.phantom is not None, "conf/dataset/pooled.yaml has the section"
    site = source.partition(":")[2]
    return pooled.phantom.model_copy(update={"sites": (site,)}) if site else pooled.phantom


def usual(option: str) -> DatasetConfig:
    """The settings of ``dataset=<option>`` alone."""
    if option not in options("dataset"):
        raise UserError(
            f"dataset={option}: no such dataset here. Where a plugin or a folder of options has it, name that: "
            f"{plugins.VARIABLE}=MODULE or {OWN}=FOLDER."
        )
    tree, _ = compose.resolved(compose.composed("train", {"dataset": option}), [])
    return DatasetConfig.model_validate(tree["dataset"])
