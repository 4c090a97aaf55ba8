"""
Thresholds and calibration
==========================

A threshold is chosen on validation, never on the test set, and what a probability is worth is measured.
"""

import ddtl

small = {"dataset.image_size": 64, "dataset.phantom.n_patients": 100, "trainer.max_epochs": 8, "optimizer.lr": 3e-3}
run = ddtl.train("model.weights=none", model="resnet18", logger="none", finetune="full", **small)
run.results["threshold_rule"], run.results["threshold"]

# %%
# Another rule: so high a sensitivity, where validation allows it. Each different scoring of a test set is counted as a
# further use of it.

sensitive = run.evaluate(**{"evaluation.threshold": "sensitivity", "evaluation.target": 0.9})
sensitive.scores().query("split == 'test' and score in ('sensitivity', 'specificity')")

# %%
# The number of this use of the test set, which the record and the page have too:

sensitive.results["test_use"]

# %%
# The reliability diagram, as predicted and after temperature scaling that was fitted on validation:

sensitive.plot_calibration()
