"""
Your own images, in a table
===========================

A CSV names the images, their labels and their patients. Mistakes in it are reported before anything is trained, all in
one message.
"""

import tempfile
from pathlib import Path

import ddtl

phantom = ddtl.dataset("phantom", **{"dataset.image_size": 64, "dataset.phantom.n_patients": 60})
table = phantom.manifest[["path", "label", "patient_id"]]
file = Path(tempfile.mkdtemp()) / "images.csv"
table.to_csv(file, index=False)

# %%
# Images of one patient under two spellings would be two patients, of whom one may be in training and the other one in
# the test. That is refused:

small = {"dataset.image_size": 64, "trainer.max_epochs": 2, "optimizer.lr": 1e-3}
words = ["model.weights=none", "dataset=table", "dataset.name=chest", "model=squeezenet1_1", "logger=none"]
spelled = table.copy()
spelled.loc[0, "patient_id"] = f" {spelled.loc[0, 'patient_id'].upper()}"
spelled.to_csv(file.with_name("spelled.csv"), index=False)
try:
    ddtl.train(*words, **small, **{"dataset.table": file.with_name("spelled.csv")})
except ddtl.UserError as error:
    print(str(error).replace(str(file.parent), "FOLDER"))

# %%
# With equal spellings it trains.

run = ddtl.train(*words, finetune="full", **small, **{"dataset.table": file})
run.plot_patients()
