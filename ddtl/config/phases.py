"""From a schedule's settings to its phases: which stages each trains, at which rates, for how many epochs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

from ddtl.schema.run import FinetuneConfig, PhaseConfig
from ddtl.utils.suggest import did_you_mean

ALL, BACKBONE = "all", "backbone"  # words for several stages at once
_SLACK = Fraction(1, 100)  # so that three times 0.333 is a whole run


def planned(config: FinetuneConfig, stages: Sequence[str]) -> tuple[PhaseConfig, ...]:
    """The phases as listed; without a list, one for each trainable stage, from the head down, all of a length.

    The latter is gradual unfreezing (Howard and Ruder 2018, ACL). ``trainable_stages`` holds for every phase.
    """
    trainable = stages[-(config.trainable_stages or len(stages)) :]
    if config.phases:
        return tuple(_limited(phase, stages, trainable) for phase in filled(config.phases))
    share = 1 / len(trainable)
    return tuple(
        PhaseConfig(name=trainable[first], train=tuple(trainable[first:]), fraction=share)
        for first in reversed(range(len(trainable)))
    )


def filled(phases: Sequence[PhaseConfig]) -> tuple[PhaseConfig, ...]:
    """The phases with a number where one takes the ``rest``: what the other fractions leave of 1, exactly."""
    rest = float(_rest(phases))
    return tuple(p.model_copy(update={"fraction": rest}) if p.fraction == "rest" else p for p in phases)


def has_ssf(config: FinetuneConfig) -> bool:
    """Whether the network needs a scale and a shift behind its layers."""
    return any(phase.parameters == "ssf" for phase in config.phases)


def lora(config: FinetuneConfig) -> tuple[int, float] | None:
    """Rank and alpha of the low-rank updates that the network needs; None where no phase trains such."""
    if not any(phase.parameters == "lora" for phase in config.phases):
        return None
    assert config.rank is not None, "problems() has a line about it"
    assert config.alpha is not None, "problems() has a line about it"
    return config.rank, config.alpha


def lora_problem(rank: int, largest: int, model: str) -> str:
    """Why a network takes no low-rank updates of a rank, as a line; empty where it does.

    Args:
        rank: of the updates.
        largest: that each of the linear layers of its attention can have; 0 where there are none.
        model: its name.
    """
    if not largest:
        return (
            f"finetune.phases: parameters=lora trains updates of attention, and {model} has no linear layers of "
            "attention. Take finetune=ssf, norm_affine or bitfit, or a vision transformer: "
            "model=timm:vit_tiny_patch16_224."
        )
    if rank > largest:
        return (
            f"finetune.rank={rank}: a layer of {model}'s attention has no more than {largest} inputs or outputs. Set "
            f"finetune.rank={largest} or less."
        )
    return ""


def _rest(phases: Sequence[PhaseConfig]) -> Fraction:
    return 1 - sum((Fraction(str(p.fraction)) for p in phases if isinstance(p.fraction, float)), Fraction(0))


def _limited(phase: PhaseConfig, stages: Sequence[str], trainable: Sequence[str]) -> PhaseConfig:
    if len(trainable) == len(stages):
        return phase
    return phase.model_copy(update={"train": tuple(name for name in trained(phase, stages) if name in trainable)})


def takes(config: FinetuneConfig, fraction: float | None) -> bool:
    """Whether some phase lasts as long as that."""
    return any(phase.fraction == fraction for phase in config.phases)


def members(word: str, stages: Sequence[str]) -> list[str]:
    """The stages that a word of ``train`` or ``rates`` stands for; none where there is no such stage."""
    several = {ALL: list(stages), BACKBONE: list(stages[:-1])}
    return several.get(word, [stage for stage in stages if stage == word])


def trained(phase: PhaseConfig, stages: Sequence[str]) -> list[str]:
    """The stages that train in a phase, in order."""
    chosen = {stage for word in phase.train for stage in members(word, stages)}
    return [stage for stage in stages if stage in chosen]


def rates(config: FinetuneConfig, phase: PhaseConfig, stages: Sequence[str]) -> dict[str, float]:
    """Each stage's rate as a multiple of ``optimizer.lr``: its ratio × the decay below the head × the phase's own.

    The decay is per stage, the head's being 1 (layer-wise decay: Howard and Ruder 2018, ACL; Clark et al. 2020, ICLR).
    """
    own = {stage: rate for word, rate in phase.rates.items() for stage in members(word, stages)}
    head = len(stages) - 1
    found = dict.fromkeys(stages, 0.0)
    for stage in trained(phase, stages):
        depth = head - stages.index(stage)
        ratio = config.backbone_lr_ratio if depth else config.head_lr_ratio
        found[stage] = ratio * config.decay**depth * own.get(stage, 1.0)
    return found


def still(config: FinetuneConfig, stages: Sequence[str]) -> list[int]:
    """For each phase, how many stages at the network's beginning stay frozen."""
    chosen = [trained(phase, stages) for phase in planned(config, stages)]
    return [stages.index(names[0]) if names else len(stages) for names in chosen]


def lengths(phases: Sequence[PhaseConfig], max_epochs: int) -> list[int]:
    """Epochs of each phase; a fraction is one of the epochs that phases with ``epochs`` leave.

    Fractions are rounded by the method of the largest remainder, in exact arithmetic; of equal remainders the later
    phase takes the epoch. A phase may come out with none.
    """
    left = max_epochs - sum(phase.epochs or 0 for phase in phases)
    shares = {i: Fraction(str(phase.fraction)) for i, phase in enumerate(phases) if phase.fraction is not None}
    quotas = {i: share * left / sum(shares.values()) for i, share in shares.items()}
    whole = {i: int(quota) for i, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda i: (quotas[i] - whole[i], i), reverse=True)
    for i in by_remainder[: left - sum(whole.values())]:
        whole[i] += 1
    return [phase.epochs or whole[i] for i, phase in enumerate(phases)]


def problems(config: FinetuneConfig, stages: Sequence[str], max_epochs: int) -> list[str]:
    """A line for each mistake in a schedule, naming the key to change."""
    found = [line for phase in config.phases for line in _names(phase, stages)]
    found += _remaining(config.phases)
    found += _limit(config, stages)
    found += _updates(config)
    if found:
        return found
    wanted = planned(config, stages)
    return [*_times(wanted, max_epochs)] or list(_idle(config, wanted, stages))


def _names(phase: PhaseConfig, stages: Sequence[str]) -> Iterator[str]:
    at = f"finetune.phases: phase {phase.name}"
    known = [*stages, BACKBONE, ALL]
    if not phase.train:
        yield f"{at}: train is empty, so nothing would train. Name stages: {', '.join(known)}."
    for key, words in (("train", phase.train), ("rates", phase.rates)):
        seen: dict[str, str] = {}
        for word in words:
            if not members(word, stages):
                hint = did_you_mean(word, known)
                yield f"{at}: {key} names {word}, and there is no such stage.{hint} There are {', '.join(known)}."
            for stage in members(word, stages):
                if stage in seen:
                    yield f"{at}: {key} names {stage} twice, by {seen[stage]} and by {word}. Leave one out."
                    break
                seen[stage] = word
    for word in phase.rates:
        idle = [stage for stage in members(word, stages) if stage not in trained(phase, stages)]
        if idle:
            yield f"{at}: rates.{word} has no effect on {', '.join(idle)}: not in train. Add it there or leave it out."
    if phase.parameters != "all" and phase.train and not set(trained(phase, stages)) - {stages[-1]}:
        yield f"{at}: parameters={phase.parameters} has no effect on the head, which trains whole. Leave it out."
    if (phase.epochs is None) == (phase.fraction is None):
        yield f"{at}: takes either epochs or fraction, {'not both' if phase.epochs else 'and has neither'}."


def _remaining(phases: Sequence[PhaseConfig]) -> Iterator[str]:
    taking = [phase.name for phase in phases if phase.fraction == "rest"]
    if len(taking) > 1:
        yield f"finetune.phases: {' and '.join(taking)} both take the rest. Give all but one of them a number."
    elif taking and _rest(phases) <= 0:
        yield f"finetune.phases: the others leave no rest for {taking[0]}. Their fractions must sum to less than 1."


def _limit(config: FinetuneConfig, stages: Sequence[str]) -> Iterator[str]:
    limit = config.trainable_stages
    if limit is None:
        return
    if limit >= len(stages):
        yield (
            f"finetune.trainable_stages={limit}: there are {len(stages)} stages, the head included. Set fewer, or null "
            "for all."
        )
        return
    for phase in planned(config, stages):
        if not phase.train:
            yield f"finetune.trainable_stages={limit}: leaves phase {phase.name} nothing to train. Set more, or null."


def _updates(config: FinetuneConfig) -> Iterator[str]:
    missing = [key for key in ("rank", "alpha") if getattr(config, key) is None]
    for phase in config.phases:
        if phase.parameters == "lora" and missing:
            keys = " and ".join(f"finetune.{key}" for key in missing)
            yield (
                f"finetune.phases: phase {phase.name}: parameters=lora needs {keys}. Begin with finetune=lora, or in a "
                "schedule's file with defaults: [lora]."
            )
            return


def _times(phases: Sequence[PhaseConfig], max_epochs: int) -> Iterator[str]:
    fixed = sum(phase.epochs or 0 for phase in phases)
    shares = [Fraction(str(phase.fraction)) for phase in phases if phase.fraction is not None]
    total = sum(shares, start=Fraction(0))
    at = "finetune.phases"
    if not shares and fixed != max_epochs:
        what = "leave a gap" if fixed < max_epochs else "do not fit"
        yield (
            f"{at}: {fixed} epochs of phases {what} in trainer.max_epochs={max_epochs}. Set trainer.max_epochs={fixed} "
            "or give one phase fraction: 1.0, which is all that the others leave."
        )
    elif shares and abs(total - 1) > _SLACK:
        what = "leave a gap" if total < 1 else "overlap"
        yield f"{at}: fractions that sum to {float(total):g} {what}. They must sum to 1."
    elif shares and (max_epochs < fixed or 0 in lengths(phases, max_epochs)):
        enough = max_epochs + 1
        while enough < fixed or 0 in lengths(phases, enough):
            enough += 1
        yield (
            f"finetune: {len(phases)} phases, and trainer.max_epochs={max_epochs} leaves one of them without an epoch. "
            f"Set trainer.max_epochs={enough} or more, or another finetune, such as finetune=full."
        )


def _idle(config: FinetuneConfig, phases: Sequence[PhaseConfig], stages: Sequence[str]) -> Iterator[str]:
    """Settings that change nothing in these phases."""
    chosen = [set(trained(phase, stages)) for phase in phases]
    backbone = set(stages[:-1])
    if not any(backbone & names for names in chosen):
        if config.batchnorm != "frozen_stats":
            yield f"finetune.batchnorm=train: {config.name} freezes the backbone. Set finetune.batchnorm=frozen_stats."
        if config.decay != 1:
            yield f"finetune.decay={config.decay:g}: {config.name} freezes the backbone. Set finetune.decay=1."
    elif config.backbone_lr_ratio == 0:
        yield "finetune.backbone_lr_ratio=0 freezes what the phases train. Set it above 0, or finetune=linear_probe."
    elif all(names <= backbone for names in chosen) and config.head_lr_ratio != 1:
        yield f"finetune.head_lr_ratio={config.head_lr_ratio:g}: the head never trains. Set finetune.head_lr_ratio=1."
    if config.rewarm and not any(after - before for before, after in pairwise(chosen)):
        yield f"finetune.rewarm={config.rewarm:g}: {config.name} unfreezes nothing. Set finetune.rewarm=0."
    if config.cached_views and all(backbone & names for names in chosen):
        yield (
            f"finetune.cached_views={config.cached_views}: no phase of {config.name} freezes the whole backbone. "
            "Set finetune.cached_views=0."
        )
