"""What makes a run the run that it is: the settings that count, and the name and hash made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ddtl.config.phases import filled
from ddtl.records.identity import short_hash
from ddtl.schema.run import MOVED, NEUTRAL, OWN_FILES
from ddtl.utils import plugins
from ddtl.utils.errors import UserError
from ddtl.utils.reading import printable

if TYPE_CHECKING:  # for their names only: this module and what imports it can do without torch
    from ddtl.models.weights import Weights
    from ddtl.schema.run import Config, EvaluationConfig, PhaseConfig
    from ddtl.training.hardware import Hardware


PLUGIN = "plugin."  # what the keys of an identity begin with that name a plugin

# Settings that cannot change a result: where things lie, who is shown the curves, how loading is spread over processes,
# how often it is saved and how named, and what is scored of a trained model.
_NEUTRAL: dict[str, Any] = {
    "paths": True,
    "logger": True,
    "run": True,
    "verbose": True,
    "evaluation": True,
    # The rows that come of a person's own files count, in the manifest's digest, and not where they lie.
    # What is let through changes nothing of it.
    "dataset": {
        **dict.fromkeys(("num_workers", "allow_label_conflicts", "allow_few_grey_levels", "source_settings"), True),
        **dict.fromkeys(OWN_FILES, True),
    },
    "trainer": {"profiler": True, "detect_anomaly": True, "checkpoint_seconds": True},
    "model": {"file": True, "trusted": True},  # its hash counts, as that of the weights
    "finetune": {"probe": True},  # counts in the phase that refers to it
}


def identity(config: Config, hardware: Hardware, manifest_digest: str, weights: Weights) -> dict[str, Any]:
    """Return everything that changes the result, by dotted key."""
    settings = counting(config)
    # Their results, not their spelling: ``auto`` means another thing on another machine, and a file may move.
    settings["trainer.accelerator"] = hardware.accelerator
    settings["trainer.precision"] = hardware.precision
    settings["model.weights"] = "none" if weights.digest is None else f"sha256:{weights.digest}"
    settings["dataset.digest"] = manifest_digest
    return settings


def counting(config: Config) -> dict[str, Any]:
    """Return the settings that can change a result, by dotted key."""
    settings = _flat(config.model_dump(mode="json", exclude=_NEUTRAL))
    # What a phase that takes the rest comes to.
    settings["finetune.phases"] = [_phase(phase) for phase in filled(config.finetune.phases)]
    settings |= {old: settings.pop(new) for old, new in MOVED.items()}
    settings |= {f"{PLUGIN}{plugin.module}": plugin.identity for plugin in plugins_of(config)}
    return {key: value for key, value in settings.items() if NEUTRAL.get(key, ...) != value}


def _phase(phase: PhaseConfig) -> dict[str, Any]:
    """Return a phase; one that trains all parameters of its stages as it was before there were others."""
    found = phase.model_dump(mode="json")
    return {key: value for key, value in found.items() if (key, value) != ("parameters", "all")}


def plugins_of(config: Config) -> list[plugins.Plugin]:
    """Return the plugins that a run uses."""
    d = config.dataset
    sources = (d.source_settings or {}).values() if d.kind == "pooled" else ()
    kinds = {d.kind, *(source.kind for source in sources)}
    found = plugins.of({"loss": config.loss.name, "backbone": config.model.key})
    found += [plugin for kind in kinds for plugin in plugins.of({"dataset": kind})]
    return list(dict.fromkeys(found))


def plugin_notes(config: Config) -> list[str]:
    """Return what a reader of a run's scores must know of its plugins, a sentence each."""
    return [
        f"The run uses the plugin {plugin.module} ({plugin.identity}): its loss, its network or its dataset is code of "
        "its user's own."
        for plugin in plugins_of(config)
    ]


def require_plugins(identity_: Mapping[str, Any], folder: object) -> None:
    """Refuse a run whose plugins are not here as they were.

    Raises:
        UserError: one is absent or another one.
    """
    here = {plugin.module: plugin.identity for plugin in plugins.load()}
    for key, needed in identity_.items():
        module = key.removeprefix(PLUGIN)
        if module == key or here.get(module) == needed:
            continue
        if module not in here:
            raise UserError(
                f"{folder}: the run uses the plugin {printable(module)} ({printable(needed)}), which is not loaded. "
                f"Set {plugins.VARIABLE}={printable(module)}, with its folder on PYTHONPATH or installed."
            )
        raise UserError(
            f"{folder}: the run uses the plugin {printable(module)} as it was ({printable(needed)}), and here it is "
            f"{here[module]}. Put that version back, or train again."
        )


def scoring(config: EvaluationConfig) -> dict[str, Any]:
    """Return the settings that decide about a run's scores, as ``results.json`` contains them."""
    # Whether the test set is scored shows by itself; and only on other datasets is anything refitted.
    settings = config.model_dump(mode="json", exclude={"test", "refit"})
    return {key: value for key, value in settings.items() if NEUTRAL.get(f"evaluation.{key}", ...) != value}


def run_name(config: Config, identity_: Mapping[str, Any]) -> str:
    """Return the folder's name: by hand, or what a reader wants to know first and the hash of the rest."""
    if config.run.name is not None:
        return config.run.name
    return f"{config.model.name}-{config.finetune.name}-s{config.seed}-{short_hash(identity_)}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
