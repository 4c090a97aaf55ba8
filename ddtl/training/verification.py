"""That the scores of a run are those of the epoch that they are reported for.

The monitored score is computed again from the predictions that ``results.json`` is made of, and must be what
``metrics.jsonl`` recorded when the epoch was validated: within ``TOLERANCE`` on the same machine, since the same images
go through the same network in the same batches. Another machine, another torch or another number of threads rounds
otherwise; there, and with ``trainer.deterministic=false``, the recorded score must be one that logits reach which
differ by no more than rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ddtl.evaluation.patients import WhyNot, patient_roc_auc
from ddtl.evaluation.predictions import Predictions
from ddtl.models.metrics import of_predictions
from ddtl.models.module import Classifier
from ddtl.schema.scores import BY_PATIENT
from ddtl.training import hardware
from ddtl.training.run import Run
from ddtl.utils.errors import InconsistentRecord

TOLERANCE = 1e-6
# How far logits may be apart by rounding, as a share of the largest of them: some hundred steps of the number format.
ROUNDING = {"32-true": 2.0**-14, "bf16-mixed": 2.0**-4, "16-mixed": 2.0**-7}


def check_epoch(
    run: Run, recorded: Mapping[str, Any] | None, val: Predictions, epoch: int, machine: str | None
) -> list[str]:
    """Compare the validation predictions with the record of the epoch that they are reported for.

    Args:
        run: whose predictions.
        recorded: the epoch's row.
        val: predictions of the validation images.
        epoch: counts from 0.
        machine: what it was computed on, as :func:`ddtl.training.hardware.arithmetic`; None where nobody knows.

    Returns:
        What a reader should know: that there was nothing to compare with.

    Raises:
        InconsistentRecord: they are of other weights.
    """
    monitor = run.config.trainer.monitor
    value = None if recorded is None else recorded.get(monitor)
    if recorded is None or not isinstance(value, float | int):
        return [f"metrics.jsonl has no {monitor} of epoch {epoch + 1}, so the scores could not be compared with it."]
    logits, labels = torch.from_numpy(val.logits), torch.from_numpy(val.label)

    def score(logits: Tensor) -> float:
        if monitor != BY_PATIENT:
            return of_predictions(logits, labels)[monitor]
        found = patient_roc_auc(replace(val, logits=logits.numpy()), run.config.evaluation.patient)
        return math.nan if isinstance(found, WhyNot) else found

    now = score(logits)
    if abs(now - value) <= TOLERANCE * max(1.0, abs(value)):
        return []
    if machine != hardware.arithmetic() or not run.config.trainer.deterministic:
        low, high = _reachable(logits, labels, score, ROUNDING[run.machine.precision])
        if low - TOLERANCE <= value <= high + TOLERANCE:
            return []
    raise InconsistentRecord(
        f"the weights to be scored reach {monitor} {now:.6f} on validation, and metrics.jsonl recorded {value:.6f} for "
        f"epoch {epoch + 1}: they are not that epoch's, and nothing was scored. Train again with run.overwrite=true."
    )


def _reachable(
    logits: Tensor, labels: Tensor, score: Callable[[Tensor], float], rounding: float
) -> tuple[float, float]:
    """Return the lowest and the highest score of logits that differ by rounding.

    All scores can but rise where the logit of each image's own class rises and the others fall.
    """
    step = rounding * max(1.0, float(logits.abs().max()))
    own = 2 * torch.nn.functional.one_hot(labels, logits.shape[1]) - 1
    scores = [score(logits + sign * step * own) for sign in (-1, 1)]
    return min(scores), max(scores)


class Unchanged:
    """Keeps a network's weights and statistics, to see that nothing has put others into their place."""

    def __init__(self, module: Classifier) -> None:
        self.module = module
        self.before = {name: value.detach().clone() for name, value in module.network.state_dict().items()}

    def check(self) -> None:
        """Raise InconsistentRecord: they are others now."""
        now = self.module.network.state_dict()
        changed = [name for name, value in self.before.items() if not torch.equal(value, now[name].to(value.device))]
        if changed:
            raise InconsistentRecord(
                f"the network changed while it predicted ({changed[0]}): its scores would be those of other weights. "
                "Nothing was scored. Please report this."
            )
