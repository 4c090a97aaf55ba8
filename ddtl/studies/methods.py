"""What can be applied in addition to plain fine-tuning, as words of ``train.py`` and of ``ddtl evaluate``."""

from __future__ import annotations

from dataclasses import dataclass

from ddtl.records.study_folder import PLAIN


@dataclass(frozen=True)
class AdaptationMethod:
    """A way to train or to evaluate.

    Attributes:
        train: words for train.py; a method without any shares the plain runs.
        external: words for ``ddtl evaluate`` on other datasets.
        in_domain: words for ``ddtl evaluate`` on the run's own test set; without any the run itself was scored so.
    """

    train: tuple[str, ...] = ()
    external: tuple[str, ...] = ()
    in_domain: tuple[str, ...] = ()


_ADAPT = ("evaluation.batchnorm=adapt",)

METHODS = {
    PLAIN: AdaptationMethod(),
    "strong": AdaptationMethod(train=("augment=strong",)),
    "equalize": AdaptationMethod(train=("dataset.harmonize=equalize",)),
    "clahe": AdaptationMethod(train=("dataset.harmonize=clahe",)),
    "match": AdaptationMethod(external=("dataset.harmonize=match",)),
    "match_image": AdaptationMethod(train=("dataset.harmonize=match_image",)),
    "average": AdaptationMethod(train=("trainer.average_last=5",)),
    "adapt": AdaptationMethod(external=_ADAPT, in_domain=_ADAPT),
}
# A pool's sources have a map each, so it must have been trained with them.
_POOLED = {"match": AdaptationMethod(train=("dataset.harmonize=match",))}


def of(name: str, pooled: bool) -> AdaptationMethod:
    """Return a method for a run on one dataset, or on several pooled ones."""
    return _POOLED.get(name, METHODS[name]) if pooled else METHODS[name]
