"""The datasets that ``dataset=pooled`` joins, each with the settings that it has where it stands alone. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ddtl.config import compose
from ddtl.schema.run import DatasetConfig
from ddtl.utils.suggest import did_you_mean

# Folders that ddtl makes beside those of datasets in paths.runs_dir.
RESERVED = ("sweeps", "studies", "audits", "lr_find")
_SITES = ("phantom:a", "phantom:b")
# How a pool's images are prepared and fed, whichever source they come from.
_OF_THE_POOL = ("image_size", "batch_size", "sampling", "num_workers", "harmonize")
_BY_KEYS = ("folder", "table", "pooled")  # datasets that are no source by this name


def base(source: str) -> str:
    """The dataset that a source is of: ``phantom`` for ``phantom:a``."""
    return source.partition(":")[0]


def source_datasets(pooled: DatasetConfig) -> dict[str, DatasetConfig]:
    """The settings of each source, by its name in ``dataset.sources``.

    They are those of ``conf/dataset/<source>.yaml``, with the protocol and the split's seed of the pool, and its
    fractions where it has any: what stands in a source's test is the same alone and in the pool. Those of a run are
    the ones that its ``config.yaml`` holds, whatever the files under ``conf/`` say today.
    """
    return {source: _source(pooled, source) for source in pooled.sources or ()}


def recorded(dataset: DatasetConfig) -> DatasetConfig:
    """A dataset's settings as a record that needs nothing else: those of a pool with those of its sources."""
    if dataset.kind != "pooled":
        return dataset
    shared = {key: getattr(dataset, key) for key in _OF_THE_POOL}
    settings = {name: source.model_copy(update=shared) for name, source in source_datasets(dataset).items()}
    return dataset.model_copy(update={"source_settings": settings})


def problems(pooled: DatasetConfig, protocols: Mapping[str, Sequence[str]]) -> list[str]:
    """What is wrong with the sources' names; a line each.

    Args:
        protocols: those of each dataset, by its name.
    """
    names, own = pooled.sources or (), pooled.own or {}
    lines = []
    shown = f"dataset.sources=[{', '.join(names)}]"
    if len(names) < 2 or len(set(names)) < len(names):
        lines.append(f"{shown}: names two datasets or more, each once.")
    built_in = [name for name in protocols if name not in _BY_KEYS]
    known = [*built_in, *_SITES, *own]
    for name in names:
        if name not in known:
            also = " A folder of your own is declared first: dataset.own={third: {root: /images}}."
            lines.append(f"{shown}: no such dataset as {name}.{did_you_mean(name, known)}{also}")
    if "phantom" in names and set(names) & set(_SITES):
        lines.append(f"{shown}: phantom holds its sites; name phantom:a and phantom:b instead, or phantom alone.")
    if pooled.phantom is None and {base(name) for name in names} & {"phantom"}:
        lines.append("dataset.phantom is empty: it holds the settings of the sources phantom:a and phantom:b.")
    for name, files in own.items():
        if (
            name in (*protocols, *_SITES, *RESERVED)
            or not name.strip()
            or set(name) & set("/\\:")
            or name.startswith(".")
        ):
            lines.append(f"dataset.own.{name}: take another name, plain and not that of a dataset or folder of ddtl.")
        elif name not in names:
            lines.append(f"dataset.own.{name}: is not among {shown}.")
        if files.root is None and files.table is None:
            lines.append(
                f"dataset.own.{name} needs root=FOLDER, with a folder of images for each class, or table=FILE."
            )
        elif files.table is not None and (files.patient_regex or files.patients):
            lines.append(f"dataset.own.{name}: a table names its patients itself, in its column patient_id.")
    return lines


def _source(pooled: DatasetConfig, source: str) -> DatasetConfig:
    own, known = (pooled.own or {}).get(source), (pooled.source_settings or {}).get(source)
    if own is not None:
        found = known or usual("folder" if own.table is None else "table")
        there = {"name": source, **{key: getattr(own, key) for key in type(own).model_fields}}
    else:
        found = known or usual(base(source))
        there = {"phantom": _phantom(pooled, source)} if found.kind == "phantom" else {}
    shared = {key: getattr(pooled, key) for key in ("protocol", "split_seed", "n_folds", "fold")}
    fractions = {key: getattr(pooled, key) for key in ("val_fraction", "test_fraction")}
    asked = {key: value for key, value in fractions.items() if value is not None}
    return found.model_copy(update={**there, **shared, **asked})


def _phantom(pooled: DatasetConfig, source: str) -> object:
    assert pooled.phantom is not None, "conf/dataset/pooled.yaml has the section"
    site = source.partition(":")[2]
    return pooled.phantom.model_copy(update={"sites": (site,)}) if site else pooled.phantom


def usual(option: str) -> DatasetConfig:
    """What ``dataset=<option>`` says when nothing else is said."""
    tree, _ = compose.resolved(compose.composed("train", {"dataset": option}), [])
    return DatasetConfig.model_validate(tree["dataset"])
