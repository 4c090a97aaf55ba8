"""
A first run
===========

Train a network on the phantom, read its scores with their intervals, and draw its ROC curve.

The phantom is drawn from a seed, so nothing is fetched. A run is a folder: the same call shows it again, and resumes it
where it was stopped.
"""

import ddtl

small = {"dataset.image_size": 64, "dataset.phantom.n_patients": 100, "trainer.max_epochs": 8, "optimizer.lr": 3e-3}
run = ddtl.train("model.weights=none", model="resnet18", logger="none", finetune="full", **small)

# %%
# Every score has a confidence interval. By patient it counts patients, and not images: the images of one patient are
# alike, and do not count as so many observations.

scores = run.scores()
scores.query("split == 'test' and score in ('roc_auc', 'sensitivity', 'specificity')")

# %%
# The band shows where the curves of other patients would be.

run.plot_roc()

# %%
# The page of the run has all of this in one file, which may be sent to others.

run.report().name
