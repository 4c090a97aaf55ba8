"""
A shortcut, and how it is found
===============================

Where something other than the disease tells the classes apart, a network may use it, and its score on the same kind of
images does not show that.

In this phantom an arrow in the corner goes with the class. Its strength is known, and so is the truth without it.
"""

import ddtl

small = {"dataset.image_size": 64, "dataset.phantom.n_patients": 100, "trainer.max_epochs": 8, "optimizer.lr": 3e-3}
run = ddtl.train(
    "model.weights=none", "dataset.phantom.shortcut=1", model="resnet18", logger="none", finetune="full", **small
)
run.scores().query("split == 'test' and score == 'roc_auc'")

# %%
# The same network on the same patients without the arrow. The difference is what the arrow gave it:

without = run.evaluate("dataset=phantom", **{"dataset.phantom.shortcut": 0, "dataset.phantom.n_patients": 100})
without.scores().query("split == 'test' and score == 'roc_auc'")

# %%
# Heat maps show where the network finds its evidence. ``ddtl audit`` searches for such marks before a network is
# trained: :doc:`/audit`.

maps = run.explain(n=4, randomised=0)
shown = list(maps.sheets.values())[:2]
