"""A score that is added as CONTRIBUTING.md says: Youden's J, 2 × balanced accuracy - 1, and so are its limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import numpy as np
from ddtl.schema import scores
scores.TITLES["youden"] = "Youden's J"
scores.SCORES = tuple(scores.TITLES)
scores.RANGES["youden"] = (-1.0, 1.0)
from ddtl.evaluation import metrics
def with_youden(function):
    def found(*given, **named):
        of_all = function(*given, **named)
        s, t = of_all["sensitivity"], of_all["specificity"]
        return {**of_all, "youden": None if s is None or t is None else s + t - 1}
    return found
metrics._of_one_class = with_youden(metrics._of_one_class)
metrics._weighted_of_one_class = with_youden(metrics._weighted_of_one_class)
from ddtl.evaluation.comparison import matrix
from ddtl.evaluation.intervals.intervals import METHODS, intervals, multiclass_intervals
assert matrix.limits("youden", binary=True) == (-1.0, 1.0)
assert matrix.widest_of("youden", binary=True) == 2.0

rng = np.random.default_rng(0)
labels = np.repeat([0, 1], 30)
clusters = np.arange(60) // 2
cases = {
    "usual": np.clip(0.5 + (labels - 0.5) * 0.3 + rng.normal(0, 0.3, 60), 0, 1),
    "perfect": labels.astype(float), "all wrong": 1.0 - labels, "all positive": np.ones(60),
}
for case, p in cases.items():
    for method in ("default", *METHODS):
        found = intervals(labels, p, clusters, 0.5, method=method, replicates=200)
        ours, known = found["youden"], found["balanced_accuracy"]
        assert ours is not None, (case, method)
        if method not in ("logit", "wilson") or case != "usual":
            limits = 2 * known.low - 1, 2 * known.high - 1
            assert np.allclose((ours.low, ours.high), limits, atol=1e-9), (case, method, ours, known)
of_three = np.arange(60) % 3
perfect = multiclass_intervals(of_three, np.eye(3)[of_three], np.arange(60))
assert perfect["youden"].low < 1 == perfect["youden"].high
print("held")
"""


def test_a_new_score_has_limits_where_nothing_varies_and_keeps_its_range() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False, cwd=root
    )
    assert done.stdout == "held\n", done.stderr
