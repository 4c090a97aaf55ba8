"""The commands that made the golden archives; every path is relative to the folder in which they were typed."""

from __future__ import annotations

# Of 60 patients of 2 slices; full precision on one processor, so that another machine computes the same.
PHANTOM = (
    "dataset.phantom.n_patients=60",
    "dataset.phantom.slices_per_patient=2",
    "dataset.phantom.size=64",
    "dataset.image_size=32",
    "dataset.batch_size=8",
)
SETTINGS = (
    "model.name=golden",
    "model.weights=none",
    "trainer=cpu",
    "trainer.checkpoint_seconds=0",
    "optimizer.lr=0.01",
    "logger=none",
)
COMMON = (*PHANTOM, *SETTINGS)

AUDIT = ("audit", "dataset=phantom", *PHANTOM)
FINISHED = ("train", "dataset=phantom", *COMMON, "trainer.max_epochs=12", "finetune=lp_ft")
# Killed when its second epoch of sixteen was behind it.
KILLED = ("train", "dataset=phantom", *COMMON, "trainer.max_epochs=16", "seed=7")
KILLED_AFTER = 2
# Killed when two of its five trials were done and a third had a checkpoint.
SWEEP = (
    "sweep", "search=lr", "dataset=phantom", *PHANTOM, *[word for word in SETTINGS if word != "optimizer.lr=0.01"],
    "trainer.max_epochs=8", "n_trials=5", "finalize=false",
    "engine.workers=1",
)  # fmt: skip
SWEEP_NAME = "phantom-lr"
SWEEP_KILLED_AFTER = 2
# Killed when one of its two runs was trained and evaluated.
STUDY = (
    "sweep", "study=cross_dataset", "study.datasets=[phantom:a,phantom:b]", "study.seeds=1", *COMMON,
    "trainer.max_epochs=8", "engine.workers=1",
)  # fmt: skip
STUDY_NAME = "cross_dataset-phantom-a-phantom-b"

# Ten commands whose runs must keep their names; names.json holds those that they had. Own images are drawn by
# :func:`tests.golden.inputs.draw`. The last two need the public datasets.
NAMED: dict[str, tuple[str, ...]] = {
    "defaults": ("dataset=phantom", "trainer=cpu"),
    "two sites, all augmentation": (
        "dataset=phantom", *COMMON, "dataset.phantom.sites=[a,b]", "augment=strong", "dataset.harmonize=clahe",
    ),
    "one of three folds": ("dataset=phantom", *COMMON, "dataset.protocol=kfold", "dataset.n_folds=3", "dataset.fold=1"),
    "lp_ft from a weights file": (
        "dataset=phantom", *COMMON, "finetune=lp_ft", "model.weights=weights.safetensors", "trainer.ema=0.9",
    ),
    "gradual, averaged, few patients": (
        "dataset=phantom", *COMMON, "finetune=gradual", "trainer.average_last=2", "dataset.train_patients=0.5",
        "optimizer=sgd", "finetune.trainable_stages=3",
    ),
    "folder": (
        "dataset=folder", "dataset.root=images", "dataset.name=mine", "dataset.patient_regex='(P\\d+)_'",
        "dataset.classes=[normal,covid]", "dataset.image_size=32", "dataset.batch_size=4", *SETTINGS,
    ),
    "table": (
        "dataset=table", "dataset.table=images.csv", "dataset.name=listed", "dataset.classes=[normal,covid]",
        "dataset.image_size=32", "dataset.batch_size=4", *SETTINGS,
    ),
    "folder with an exclude list": (
        "dataset=folder", "dataset.root=images", "dataset.name=mine", "dataset.patient_regex='(P\\d+)_'",
        "dataset.classes=[normal,covid]", "dataset.exclude=exclude.csv", "dataset.image_size=32",
        "dataset.batch_size=4", *SETTINGS,
    ),
    "pooled": ("dataset=pooled", "dataset.sources=[phantom:a,phantom:b]", *COMMON, "dataset.sampling=balanced"),
    "pooled with own images": (
        "dataset=pooled",
        "dataset.sources=[phantom:a,mine]",
        "dataset.own={mine: {root: images, patient_regex: '(P\\d+)_', classes: [normal, covid]}}",
        *COMMON,
    ),
    "covid19ct": ("dataset=covid19ct", "dataset.image_size=32", *SETTINGS),
    "sarscov2ct": ("dataset=sarscov2ct", "dataset.image_size=32", *SETTINGS, "finetune=layer_decay", "seed=3"),
}  # fmt: skip
REAL = ("covid19ct", "sarscov2ct")
