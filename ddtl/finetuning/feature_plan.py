"""Whether a phase keeps what its frozen stages make of the images: a pure decision, and its reason in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddtl.finetuning.schedule import Phase


@dataclass(frozen=True)
class Demand:
    """What one split needs of the frozen stages in a phase.

    Attributes:
        of: the images in words, as "training images".
        passes: images sent through, each counted as often as it comes.
        distinct: different ones among them; an image's fixed views count one by one.
        why_not: why the output must be computed each time; empty where it may be kept.
    """

    of: str
    passes: int
    distinct: int
    why_not: str = ""


@dataclass(frozen=True)
class Plan:
    """Which demands are met by what is kept, in their order, and why."""

    kept: tuple[bool, ...]
    reason: str


def decide(demands: Sequence[Demand], bytes_each: int, cache_gb: float, processes: int = 1) -> Plan:
    """Keep what saves computing and fits, the first demand first.

    Args:
        demands: of the splits.
        bytes_each: of one image's activations.
        cache_gb: memory for all of them on one machine, in 10^9 bytes.
        processes: that share it, each with activations of its own.
    """
    limit = room = cache_gb * 1e9 / processes
    limit_in_words = f"finetune.cache_gb={cache_gb:g}" + (f", shared by {processes} processes" if processes > 1 else "")
    stored: list[str] = []
    computed: list[str] = []
    kept = []
    for demand in demands:
        size = demand.distinct * bytes_each
        why_not = demand.why_not
        if cache_gb == 0:
            why_not = "finetune.cache_gb=0"
        elif not why_not and demand.passes <= demand.distinct:
            why_not = "none comes twice"
        elif not why_not and size > room:
            why_not = f"{in_words(size)} do not fit in {limit_in_words}"
            if room < limit:
                why_not += f", of which {in_words(room)} are left"
        kept.append(not why_not)
        if why_not:
            computed.append(f"{demand.of} ({why_not})")
        else:
            room -= size
            stored.append(f"{demand.distinct} {demand.of} ({in_words(size)})")
    parts = [f"computed once and kept for {' and '.join(stored)}"] if stored else []
    parts += [f"computed each time for {' and '.join(computed)}"] if computed else []
    return Plan(tuple(kept), ", ".join(parts))


def sentence(phase: Phase, depth: int, plan: Plan) -> str:
    """The decision in one line: which epochs, which stages, what is kept and why."""
    stages = list(phase.states)
    if depth == len(stages) - 1:
        what = "the frozen backbone's output"
    elif depth == 1:
        what = f"the output of the frozen stage {stages[0]}"
    else:
        what = f"the output of the frozen stages {stages[0]} to {stages[depth - 1]}"
    epochs = f"epoch {phase.end}" if phase.end - phase.first == 1 else f"epochs {phase.first + 1} to {phase.end}"
    return f"{phase.name}, {epochs}: {what} is {plan.reason}"


def in_words(size: float) -> str:
    """Bytes for a reader: 0.4 MB, 12 MB, 1.5 GB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}" if size < 10 * unit else f"{size / unit:.0f} {name}"
    return f"{size / 1e3:.0f} kB"
