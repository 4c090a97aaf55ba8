"""A head that is fitted and not trained: penalised logistic regression on the frozen backbone's features.

Each epoch has a penalty of its own, from the strongest to the weakest, and what is monitored on validation chooses one
as it chooses an epoch. An epoch's head is a function of the features and of its penalty alone, so that a resumed run
has the same.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

_TOLERANCE = 1e-8  # of the gradient
_ITERATIONS = 10_000
_CONSTANT = 1e-5  # a deviation of this share of a feature's largest value is rounding


def penalty_of(epoch: int, epochs: int, limits: tuple[float, float]) -> float:
    """Return the penalty of an epoch that counts from 0: from the first limit to the last by a constant factor."""
    first, last = limits
    return first if epochs == 1 else float(first * (last / first) ** (epoch / (epochs - 1)))


def fit(
    features: np.ndarray, labels: np.ndarray, n_classes: int, penalty: float, class_weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Fit a linear layer: the least mean cross-entropy plus penalty / 2 × the sum of the weights' squares.

    Penalised are the weights of standardised features (mean 0 and standard deviation 1 over these images), and not the
    biases. Of two classes it is the weights of the logits' difference. A feature that does not vary has the weight 0.

    Args:
        features: (N, F).
        labels: (N,) 0 to ``n_classes`` - 1, each at least once.
        n_classes: at least two.
        penalty: above 0.
        class_weights: (n_classes,) weights of the images by label; None for equal ones.

    Returns:
        Weights (n_classes, F) and biases (n_classes,) for the features as they are, float64; and whether the least
        value was reached.
    """
    features = features.astype(np.float64)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    varies = deviation > _CONSTANT * np.abs(features).max(axis=0)
    weights = np.ones(len(labels)) if class_weights is None else class_weights[labels]
    if not varies.any():  # then the shares of the classes are all that can be fitted
        biases = np.log(np.bincount(labels, weights, n_classes) / weights.sum())
        return np.zeros((n_classes, len(mean))), biases - biases.mean(), True
    model = LogisticRegression(C=1 / (penalty * weights.sum()), tol=_TOLERANCE, max_iter=_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((features - mean)[:, varies] / deviation[varies], labels, sample_weight=weights)
    slopes, biases = np.zeros((len(model.coef_), len(mean))), model.intercept_
    slopes[:, varies] = model.coef_ / deviation[varies]
    biases = biases - slopes @ mean
    if n_classes == 2:
        slopes, biases = np.concatenate([-slopes, slopes]) / 2, np.concatenate([-biases, biases]) / 2
    return slopes, biases, bool(model.n_iter_.max() < _ITERATIONS)
