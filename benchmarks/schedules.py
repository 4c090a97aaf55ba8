"""What each fine-tuning schedule is worth: ROC AUC in the domain that it trains on and in another one.

    python -m benchmarks.schedules covid19ct        # ImageNet weights; official test set, and all of sarscov2ct's
    python -m benchmarks.schedules phantom          # a network that knows site a is trained on site b, from few
    patients python -m benchmarks.schedules covid19ct --runs runs/schedules model.weights=squeezenet1_1.pth
    paths.data_dir=…

Every schedule with every seed is an ordinary run under ``--runs``; the same command resumes it where it was stopped and
trains nothing twice. The tables contain means over seeds; their 95 % intervals come of resampled patients and seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring import finish

SCHEDULES = ("full", "linear_probe", "lp_ft", "gradual", "layer_decay", "surgical")
TRAIN_SITE_A = ("dataset=phantom", "dataset.test_fraction=0.4", "logger=none")
SITE_A = "dataset=phantom dataset.phantom.sites=[a] dataset.test_fraction=0.4"
# A network trains on 37 patients and is tested on 90.
SITE_B = ("dataset=phantom", "dataset.phantom.sites=[b]", "dataset.test_fraction=0.6")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("covid19ct", "phantom"))
    parser.add_argument("--runs", type=Path, default=Path("runs/schedules"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--schedules", type=lambda text: text.split(","), default=SCHEDULES, help="a,b,…; all")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="val: to choose by, tests nothing")
    parser.add_argument("settings", nargs="*", help="what train.py takes")
    arguments = parser.parse_intermixed_args()
    if len(set(arguments.schedules)) < 2:
        parser.error("--schedules takes two or more: they are compared")
    started = time.perf_counter()
    words = ["logger=none", *arguments.settings]
    if arguments.study == "covid19ct":
        words = ["dataset=covid19ct", "model=squeezenet1_1", *words]
        external = "dataset=sarscov2ct"
    else:
        first = trained([*TRAIN_SITE_A, *arguments.settings, f"paths.runs_dir={arguments.runs}/site_a"])
        words = [*SITE_B, f"model.weights={first}", *words]
        external = SITE_A
    words += [f"paths.runs_dir={arguments.runs}", f"evaluation.test={str(arguments.split == 'test').lower()}"]
    folders = [
        trained([*words, f"finetune={schedule}", f"seed={seed}"])
        for schedule in arguments.schedules
        for seed in range(arguments.seeds)
    ]
    tables = {"in": table(folders, arguments.split)}
    if arguments.split == "test":
        paths = [word for word in arguments.settings if word.startswith("paths.")]
        tables["other"] = table([evaluated(folder, [*external.split(), *paths]) for folder in folders], "test")
    finish(
        benchmark="schedules",
        study=arguments.study,
        split=arguments.split,
        seeds=arguments.seeds,
        domains=tables,
        settings=words,
        seconds=time.perf_counter() - started,
    )


def trained(words: Sequence[str]) -> Path:
    """Return the folder of a run, trained where it is not finished yet."""
    from ddtl.config.load import load
    from ddtl.training.train import train
    from ddtl.utils import console
    from ddtl.utils.memory import tune_allocator

    console.set_up_logging()
    console.line(f"\n{' '.join(words)}")
    tune_allocator()
    return train(load(words)).folder


def evaluated(run: Path, words: Sequence[str]) -> Path:
    """Return the folder with the run's scores on another dataset."""
    from ddtl.commands.evaluate import main as evaluate
    from ddtl.config.load import load

    dataset = load(words).dataset
    folder = run / "evaluations" / f"{dataset.name}-{dataset.protocol}"
    if not (folder / "results.json").exists():
        evaluate([str(run), *words])
    return folder


def table(folders: Sequence[Path], split: str) -> dict[str, object]:
    """Print the comparison of the runs, and hands over means and intervals."""
    from ddtl.evaluation.comparison.comparison import compare
    from ddtl.reports.comparison import runs as compared, tables as comparison_tables
    from ddtl.reports.run.methods import markdown_table

    runs = compared.read(folders, split)
    result = compare(runs.methods)
    for shown in (comparison_tables.of_methods(runs, result), comparison_tables.of_pairs(result)):
        print(f"\n{shown.caption}\n\n{markdown_table(shown)}\n\n{shown.note or ''}", flush=True)
    record = comparison_tables.record(runs, result)
    return {key: record[key] for key in ("dataset", "protocol", "units", "images", "methods")}


if __name__ == "__main__":
    main()
