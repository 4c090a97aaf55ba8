"""Which stages trained when, for the page and the methods text: from the settings that the run's folder contains."""

from __future__ import annotations

from pydantic import ValidationError

from ddtl.finetuning.schedule import Phase, Schedule, compile_schedule
from ddtl.reports.html.page import Drawing, Fold, Section, Table
from ddtl.reports.run import schedule_svg
from ddtl.reports.run.stored import Stored
from ddtl.schema.backbones import key_of, spec_of, stages_of
from ddtl.schema.run import FinetuneConfig
from ddtl.utils import wording
from ddtl.utils.errors import UserError

# By the schedule's name, where the record does not say more, and by what trained.
_ALL = "All layers were trained"
_HEAD = "Only the classification head was trained; the backbone stayed as loaded"
_PARTS = {
    "biases": "biases",
    "norm_affine": "scales and shifts of the normalisation layers",
    "ssf": "scales and shifts behind the layers",
    "lora": "low-rank updates of the linear layers of attention",
}
_STRATEGIES = {"full": _ALL, "all layers": _ALL, "linear_probe": _HEAD, "the classification head": _HEAD}


def of(stored: Stored) -> Schedule | None:
    """Return the schedule of the run; None where its folder does not say, as in records of an older version."""
    config = stored.config
    try:
        finetune = FinetuneConfig.model_validate(config["finetune"])
        return compile_schedule(finetune, stages_of(key_of(config["model"])), config["trainer"]["max_epochs"])
    except (KeyError, ValidationError, UserError):
        return None


def section(stored: Stored) -> Section:
    """Return the drawing, and the same as a table."""
    schedule = of(stored)
    if schedule is None:
        return Section("Schedule", [])
    has_batchnorm = spec_of(key_of(stored.config["model"])).has_batchnorm
    *backbone, head = schedule.epochs[0]
    rows = [
        [
            phase.name,
            schedule_svg.span(phase),
            *(schedule_svg.cell(phase.states[stage], has_batchnorm) for stage in backbone),
            schedule_svg.cell(phase.states[head], False),
        ]
        for phase in schedule.phases
    ]
    columns = ["phase", "epochs", *backbone, head]
    table = Table("Rate and BatchNorm of each stage", columns, rows)
    title = f"What trained in which epoch: {stored.config['finetune']['name']}"
    shown = Drawing(title, schedule_svg.svg(schedule, has_batchnorm), schedule_svg.note(schedule, has_batchnorm))
    return Section("Schedule", [shown, Fold("The same as a table", [table])])


def strategy(stored: Stored) -> str:
    """Return which layers were trained when, for the methods text."""
    schedule = of(stored)
    if schedule is None:
        name = stored.config["finetune"]["name"]
        return _STRATEGIES.get(name, f"Layers were trained by the schedule {name}")
    if len(schedule.phases) == 1:
        trained = _trained(schedule.phases[0]) + _details(stored, schedule.phases[0])
        return _STRATEGIES.get(trained, f"Only {trained} were trained; all else stayed as loaded")
    parts = [f"{_trained(phase)}{_details(stored, phase)} in {schedule_svg.epochs(phase)}" for phase in schedule.phases]
    return f"Training went through {len(parts)} phases: {wording.listed(parts)}"


def peak_rates(stored: Stored) -> str:
    """Return the learning rates of head and backbone at their highest, for the methods text."""
    lr, finetune, schedule = stored.config["optimizer"]["lr"], stored.config["finetune"], of(stored)
    if schedule is None:
        backbones, heads = {finetune["backbone_lr_ratio"]} - {0}, {finetune["head_lr_ratio"]}
    else:
        rows = [[state.rate for state in row.values()] for row in schedule.epochs]
        backbones = {rate for *rates, _ in rows for rate in rates} - {0}
        heads = {rate for *_, rate in rows} - {0}
    every = sorted(lr * rate for rate in backbones | heads)
    if len(every) == 1:
        return f"peak learning rate {every[0]:.3g}"
    if len(backbones) == len(heads) == 1:
        return f"peak learning rates {lr * backbones.pop():.3g} (backbone) and {lr * heads.pop():.3g} (head)"
    return f"peak learning rates from {every[0]:.3g} to {every[-1]:.3g}, by stage and phase"


def _details(stored: Stored, phase: Phase) -> str:
    """Return rank and alpha of a phase's low-rank updates, in brackets; empty where there are none."""
    if all(state.parameters != "lora" for state in phase.states.values()):
        return ""
    finetune = stored.config["finetune"]
    return f" (LoRA, rank {finetune['rank']}, alpha {finetune['alpha']:g})"


def _trained(phase: Phase) -> str:
    names = [stage for stage, state in phase.states.items() if not state.frozen]
    subsets = {state.parameters for state in phase.states.values() if not state.frozen} - {"all"}
    if subsets:
        backbone = [name for name in names if phase.states[name].parameters != "all"]
        head = " and the classification head" if len(backbone) < len(names) else ""
        every = len(backbone) == len(phase.states) - 1
        of = "the backbone" if every else f"the stage{'s' * (len(backbone) > 1)} {wording.listed(backbone)}"
        return f"the {_PARTS[subsets.pop()]} of {of}{head}"
    if len(names) == len(phase.states):
        return "all layers"
    if names == list(phase.states)[-1:]:
        return "the classification head"
    return f"the stage{'s' if len(names) > 1 else ''} {wording.listed(names)}"
