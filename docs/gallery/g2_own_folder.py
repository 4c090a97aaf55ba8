"""
Your own images, a folder for each class
========================================

A folder for each class is a dataset. What the names of the files show about patients is given as a pattern, so that no
patient is in two splits.

The images here are those of the phantom, copied into two folders as yours might be.
"""

import shutil
import tempfile
from pathlib import Path

import ddtl

phantom = ddtl.dataset("phantom", **{"dataset.image_size": 64, "dataset.phantom.n_patients": 60})
chest = Path(tempfile.mkdtemp()) / "chest"
for row in phantom.manifest.itertuples():
    folder = chest / ("covid" if row.label == "COVID" else "normal")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(row.path, folder / f"{row.patient_id}_{row.Index}.png")
sorted(path.name for path in (chest / "covid").iterdir())[:3]

# %%
# ``normal`` is the negative class by its name. Where names do not decide, training is refused with the lines to choose
# from; ``dataset.classes=[normal,covid]`` sets the order, the positive class last.

small = {"dataset.image_size": 64, "trainer.max_epochs": 2, "optimizer.lr": 1e-3}
own = {"dataset.name": "chest", "dataset.root": chest, "dataset.patient_regex": r"([^/_]+)_"}
run = ddtl.train(
    "model.weights=none", dataset="folder", model="squeezenet1_1", logger="none", finetune="full", **small, **own
)
run

# %%
# No patient is in two splits:

table = run.predictions
set(table.query("split == 'val'")["patient_id"]) & set(table.query("split == 'test'")["patient_id"])
