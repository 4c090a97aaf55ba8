"""
Slices are not patients
=======================

What a split by slice does to a score. Most papers on chest CT split their images one by one, so that slices of one
patient are in training and in the test.

Both runs have the same images, network and seed.
"""

import pandas as pd

import ddtl

small = {"dataset.image_size": 64, "dataset.phantom.n_patients": 60, "trainer.max_epochs": 2, "optimizer.lr": 1e-3}
words = ["model.weights=none", "model=squeezenet1_1", "logger=none", "finetune=full"]
honest = ddtl.train(*words, **small, **{"dataset.protocol": "grouped"})
leaky = ddtl.train(*words, **small, **{"dataset.protocol": "random"})

# %%
# After so little training the scores may be in either order. What is certain is what the record of the second one
# reports about its split:


def of_images(run: ddtl.Run) -> pd.Series:
    return run.scores().query("split == 'test' and unit == 'image'").set_index("score")["value"]


pd.DataFrame({"grouped": of_images(honest), "random": of_images(leaky)})

# %%

print(*leaky.results["warnings"], sep="\n")

# %%
# :doc:`/studies` has the same comparison over several seeds, as one command: ``study=paper_vs_honest``.
