"""What a sweep can be given, apart from the settings of its trials: frozen, typed and checked. No torch, no Optuna."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from ddtl.schema.run import NonNegativeInt, Positive, PositiveInt, Seed, Text
from ddtl.schema.section import Section
from ddtl.schema.study import StudyConfig, Texts


class SearchConfig(Section):
    """What is varied; see ``conf/search/``."""

    name: Annotated[str, Field(pattern=r"^[\w-]+$")]  # part of the sweep's name
    space: dict[str, Any]


class EngineConfig(Section):
    """Where trials run; see ``conf/engine/``. Further keys are settings of one engine."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, bool | int | float | str | None]

    kind: Annotated[str, Field(pattern=r"^[a-z][a-z_]*$")]  # a module of ddtl/sweeps/engines
    workers: PositiveInt | Literal["auto"]
    gpus_per_trial: PositiveInt
    # Only in conf/engine/ray.yaml.
    address: Text | None = None
    # Only in conf/engine/slurm.yaml.
    partition: Text | None = None
    minutes: PositiveInt | None = None
    gpus: NonNegativeInt | None = None
    cpus: PositiveInt | None = None
    memory_gb: PositiveInt | None = None
    setup: Texts = ()


class ClassConfig(Section):
    """A class by its name, and the arguments it is made with."""

    name: Text
    args: dict[str, Any]


class SweepSection(Section):
    """The sweep's own settings; see ``conf/sweep.yaml``."""

    name: Text | None
    seed: Seed
    objective: Annotated[tuple[Literal["score", "seconds"], ...], Field(strict=False)]
    storage: Text | None
    seeds: PositiveInt
    max_failures: PositiveInt
    retries: NonNegativeInt
    trial_minutes: Positive | None
    keep: PositiveInt


class SweepConfig(Section):
    """Everything that ``conf/sweep.yaml`` contains; see :func:`ddtl.sweeps.plan.settings.read`."""

    search: SearchConfig | None = None  # none for a grid
    study: StudyConfig | None = None
    engine: EngineConfig
    n_trials: PositiveInt
    finalize: bool
    preview: PositiveInt | None
    sampler: ClassConfig
    pruner: ClassConfig
    sweep: SweepSection
