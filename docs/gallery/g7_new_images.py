"""
New images
==========

Predict files and arrays with a run, and see which images are unlike those that it was trained on.
"""

import numpy as np

import ddtl

small = {"dataset.image_size": 64, "dataset.phantom.n_patients": 60}
run = ddtl.train(
    "model.weights=none", model="squeezenet1_1", logger="none", finetune="full", **small,
    **{"trainer.max_epochs": 2, "optimizer.lr": 1e-3},
)  # fmt: skip

# %%
# A row an image, or a row a patient where patients are known:

phantom = ddtl.dataset("phantom", **small)
files = phantom.manifest.query("split == 'test'")[["path", "patient_id"]].head(12)
run.predict(files, unit="patient")

# %%
# Noise is not a CT slice. It has a probability like any other image, and is marked as out of distribution:

noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8)
run.predict(list(noise))[["file", "probability_COVID", "far_from_training"]]
