"""Images a second of `ddtl predict`, from files to tables, against the network's bare forward pass.

    python -m benchmarks.predict_speed                         # 2,481 phantom slices, DenseNet121, 224 px
    python -m benchmarks.predict_speed --real --rounds 1       # the images of sarscov2ct in DDTL_DATA
    python -m benchmarks.predict_speed --memory --model squeezenet1_1

- predict: searching for the files, loading the network, decoding, forward pass, distances to the training images,
tables.
- bare: the same network, in the same precision and with the same settings of the process, on tensors in memory.

The network is a run of one training step; what it answers is of no matter. `--memory` measures the most memory that a
process takes for a tenth of the files and for all of them instead.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring import finish, in_own_process, interleaved, ratio, summary
from ddtl.config.load import load


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as home:
        images = _write_images(arguments, Path(home))
        settings = _settings(arguments, home)
        run = in_own_process(train_a_step, settings)
        run()
        (folder,) = Path(home).glob("runs/phantom/*/")
        if arguments.memory:
            contenders = {
                str(len(part)): in_own_process(memory, str(folder), part, arguments.batch)
                for part in (images[::10], images)
            }
            figures = interleaved(contenders, 1)
            result: dict[str, Any] = {"peak_mb": {f"{name}_images": values[0] for name, values in figures.items()}}
        else:
            contenders = {
                "predict": in_own_process(ours, str(folder), images, arguments.batch),
                "bare": in_own_process(bare, str(folder), len(images), arguments.batch),
            }
            figures = interleaved(contenders, arguments.rounds)
            result = {"ratio": ratio(figures, "predict", "bare"), "images_per_second": summary(figures)}
    finish(benchmark="predict_speed", **result, **{**vars(arguments), "n": len(images)})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="densenet121")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--n", type=int, default=2481, help="images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--real", action="store_true", help="the images of sarscov2ct in DDTL_DATA")
    parser.add_argument("--memory", action="store_true")
    return parser.parse_args()


def _write_images(arguments: argparse.Namespace, home: Path) -> list[str]:
    if arguments.real:
        found = sorted((Path(os.environ["DDTL_DATA"]) / "sarscov2ct").glob("*/*.png"))
    else:
        from ddtl.data.phantom import dataset

        spec = dataset.PhantomSpec(n_patients=-(-arguments.n // 4), size=256)
        dataset.generate(spec, home / "data")
        found = sorted((home / "data" / "images").glob("*/*.png"))
    return [str(path) for path in found[: arguments.n]]


def _settings(arguments: argparse.Namespace, home: str) -> list[str]:
    return [
        f"model={arguments.model}", "model.weights=none", "logger=none", f"paths.runs_dir={home}/runs",
        f"paths.cache_dir={home}/cache", "dataset.phantom.n_patients=60", "dataset.phantom.slices_per_patient=2",
        f"dataset.image_size={arguments.size}", "dataset.batch_size=8", "dataset.val_fraction=0.2",
        "dataset.test_fraction=0.2", "trainer.max_epochs=1", "trainer.limit_batches=1", "evaluation.test=false",
    ]  # fmt: skip


def train_a_step(settings: list[str]) -> Callable[[], float]:
    """Return a run to predict with."""
    from ddtl.training.train import train

    def work() -> float:
        train(load(settings))
        return 0.0

    return work


def ours(folder: str, images: list[str], batch: int) -> Callable[[], float]:
    """Return a round of `ddtl predict`; the features of the training images are there from the first, uncounted
    prediction.
    """
    from ddtl.commands import predict

    settings = [f"output={folder}/../tables", "overwrite=true", f"batch_size={batch}"]
    predict.main([folder, *images[:batch], *settings])

    def measure() -> float:
        started = time.perf_counter()
        assert predict.main([folder, *images, *settings]) == 0
        return len(images) / (time.perf_counter() - started)

    return measure


def bare(folder: str, images: int, batch: int) -> Callable[[], float]:
    """As many images through the network alone."""
    import torch

    from ddtl.inference import network
    from ddtl.records.run_folder import RunFolder
    from ddtl.training.rescore import load_run
    from ddtl.utils.memory import tune_allocator

    tune_allocator()  # as the command does
    of = RunFolder(Path(folder))
    config, results = load_run(of)
    predictor = network.Predictor(network.load(of, config, len(results["classes"]))[0], config)
    size = config.dataset.image_size
    whole = torch.rand(batch, 1, size, size, device=predictor.device)
    parts = [whole] * (images // batch) + ([whole[: images % batch]] if images % batch else [])

    def measure() -> float:
        started = time.perf_counter()
        with torch.inference_mode(), predictor.autocast():
            for part in parts:
                predictor.network(part)
        if predictor.device.type == "cuda":
            torch.cuda.synchronize()
        return images / (time.perf_counter() - started)

    return measure


def memory(folder: str, images: list[str], batch: int) -> Callable[[], float]:
    """Return the most memory, in MB, that this process took until the images were predicted."""
    measure = ours(folder, images, batch)

    def peak() -> float:
        measure()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    return peak


if __name__ == "__main__":
    main()
