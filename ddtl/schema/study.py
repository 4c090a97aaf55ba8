"""What a study can be given; see ``conf/study/``. No torch, no Optuna."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ddtl.schema.run import OpenFraction, OwnDataset, PositiveInt, Text
from ddtl.schema.section import Section
from ddtl.schema.units import Protocol

Texts = Annotated[tuple[Text, ...], Field(strict=False)]
Protocols = Annotated[tuple[Protocol, ...], Field(strict=False)]
Patients = Annotated[tuple[PositiveInt | OpenFraction, ...], Field(strict=False)]

Kind = Literal["cross_dataset", "paper_vs_honest", "seeds", "schedules", "kfold", "learning_curve", "grid"]


class StudyConfig(Section):
    """The runs of a study; each file of ``conf/study/`` contains the keys that its kind has."""

    kind: Kind
    name: Text | None
    seeds: PositiveInt
    datasets: Texts = ()
    own: dict[str, OwnDataset] | None = None
    pooled: bool = False
    leave_one_out: bool | Literal["auto"] = False
    methods: Texts = ("plain",)
    patients: Patients = ()
    schedules: Texts = ()
    targets: Texts = ()
    protocols: Protocols | Literal["auto"] = "auto"
