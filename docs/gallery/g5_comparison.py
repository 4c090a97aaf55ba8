"""
Is one run better than another?
===============================

Compare two runs on the same patients. The difference of two scores has an interval of its own, which is narrower than
those of the scores suggest: both networks were tested on the same images.
"""

import ddtl

small = {"dataset.image_size": 64, "dataset.phantom.n_patients": 60, "trainer.max_epochs": 2}
words = ["model.weights=none", "model=squeezenet1_1", "logger=none", "finetune=full"]
a = ddtl.train(*words, **small, **{"optimizer.lr": 1e-3})
b = ddtl.train(*words, **small, **{"optimizer.lr": 1e-5})

# %%
# A row a score, with its limits and the p-value of the paired test:

difference = ddtl.compare(a, b)
difference[["score", "score_a", "score_b", "difference", "low", "high", "p"]]

# %%
# And in words, what may be claimed of it and what limits that:

print(*difference.attrs["claims"], *difference.attrs["caveats"], sep="\n")
