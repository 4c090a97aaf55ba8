"""What ddtl can do with networks of timm: each network through one matrix of checks, on the phantom.

    python -m benchmarks.backbones                          # 20 networks of 10 families and more
    python -m benchmarks.backbones resnet18 test_vit        # these
    python -m benchmarks.backbones --markdown table.md      # the table of docs/backbones.md, too

A network is random, 64 × 64 pixels, and trains on a few batches; what is checked are properties and not scores:

- schedules: a step in each phase of each schedule, of finetune=lora where the network has attention; what is frozen
  stays as it was to the bit, all else has a gradient
- cached: a run with stored outputs of the frozen stages ends with the same weights as one without, to the bit
- resumed: a run killed with SIGKILL after its first epoch and resumed ends as one that was left alone, to the bit
- ONNX: the largest difference between the exported file's answers and the network's
- heat map: its cells, drawn by Grad-CAM of the layer that `ddtl explain` takes
- two processes: they end with the same weights to the bit, and near those of one process

Each check is a process of its own, forked from one that has imported everything.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

NETWORKS = (
    "densenet121", "resnet18", "resnet50d", "tf_efficientnet_lite0", "mobilenetv3_small_100", "regnety_002",
    "convnext_atto", "vit_tiny_patch16_224", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mobilevit_xs",
    "ghostnet_100", "mixnet_s", "edgenext_xx_small", "hgnetv2_b0", "repvit_m1", "mobilenetv4_conv_small",
    "mambaout_femto", "inception_next_atto", "hrnet_w18_small",
)  # fmt: skip
SCHEDULES = ("full", "linear_probe", "lp_ft", "gradual", "layer_decay", "surgical")
COLUMNS = ("stages", "schedules", "cached", "resumed", "ONNX", "heat map", "two processes")
LIMIT = 600.0  # seconds of a check
SIZE = 64
SMALL = (
    "dataset=phantom", "dataset.phantom.n_patients=16", "dataset.phantom.slices_per_patient=4",
    "dataset.phantom.size=64", f"dataset.image_size={SIZE}", "dataset.batch_size=8", "dataset.num_workers=0",
    "trainer=cpu", "trainer.precision=32", "trainer.limit_batches=2", "trainer.checkpoint_seconds=0", "logger=none",
    "augment=none", "model.weights=none", "evaluation.replicates=100", "evaluation.test=false",
    "optimizer.lr=1e-3",
)  # fmt: skip


def words(name: str, folder: Path, *more: str) -> list[str]:
    """Return the settings of a small run; its images are shared by all."""
    return [f"model=timm:{name}", *SMALL, f"paths.cache_dir={folder.parent / 'cache'}", *more]


def stages(name: str, folder: Path) -> str:
    """Count the stages, the head included."""
    from ddtl.schema.backbones import stages_of

    del folder
    return str(len(stages_of(f"timm:{name}")))


def schedules(name: str, folder: Path) -> str:
    """Make a step in each phase of each schedule, and compare what is frozen with what it was."""
    import torch

    from ddtl.config.load import load
    from ddtl.finetuning.callback import apply_epoch
    from ddtl.finetuning.optimizer import configure
    from ddtl.finetuning.schedule import compile_schedule
    from ddtl.models.network import Network
    from ddtl.schema.backbones import attention_rank, stages_of

    steps = 0
    count = len(stages_of(f"timm:{name}"))
    torch.manual_seed(0)
    network = Network(load(words(name, folder)).model, 2, SIZE)
    images, labels = torch.rand(4, 1, SIZE, SIZE), torch.tensor([0, 1, 0, 1])
    for schedule in (*SCHEDULES, *(["lora"] if attention_rank(f"timm:{name}") else [])):
        config = load(words(name, folder, f"finetune={schedule}", f"trainer.max_epochs={count}"))
        if schedule == "lora":
            network = Network.of(config, 2)
        table = compile_schedule(config.finetune, list(network.stages), count)
        made = configure(network, config.optimizer, table, steps_per_epoch=1, fused=False)
        for phase in table.phases:
            apply_epoch(network, table, phase.first)
            before = {key: value.clone() for key, value in network.state_dict().items()}
            made["optimizer"].zero_grad()
            torch.nn.functional.cross_entropy(network.train()(images), labels).backward()
            made["optimizer"].step()
            _require_frozen(network, before, schedule)
            steps += 1
    return f"{steps} phases"


def _require_frozen(network: Any, before: dict[str, Any], schedule: str) -> None:
    import torch

    from ddtl.models import adapters

    prefix = {stage: "head." if stage == "head" else f"backbone.stages.{stage}." for stage in network.stages}
    now = network.state_dict()
    for stage, start in prefix.items():
        moved = {key.removeprefix(start) for key in before if key.startswith(start)}
        moved = {key for key in moved if not torch.equal(before[start + key], now[start + key])}
        if moved and stage in network.frozen:
            raise RuntimeError(f"{schedule}: the frozen stage {stage} has moved")
        # Whether a step moves a weight is another question: the gradients of a random network may be too small for it.
        named = dict(network.stages[stage].named_parameters())
        trains = adapters.chosen(network.stages[stage], network.subsets.get(stage, "all"))
        if other := sorted((moved & set(named)) - trains):
            raise RuntimeError(f"{schedule}: {stage}.{other[0]} should not train and has moved")
        without = sorted(key for key in trains if named[key].grad is None)
        if without and stage not in network.frozen:
            raise RuntimeError(f"{schedule}: {stage}.{without[0]} should train and has no gradient")


def _weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def train(settings: Sequence[str]) -> Path:
    """Train a run in this process; its folder."""
    from ddtl.config.load import load
    from ddtl.training.train import train as fit

    return fit(load(settings)).folder


def cached(name: str, folder: Path) -> str:
    """Compare a run that keeps outputs of frozen stages with one that computes them each time."""
    more = ("finetune=lp_ft", "finetune.probe=0.5", "trainer.max_epochs=4")
    found = [
        _weights(train(words(name, folder, *more, f"finetune.cache_gb={gb}", f"paths.runs_dir={folder / str(gb)}")))
        for gb in (0, 2)
    ]
    if found[0] != found[1]:
        raise RuntimeError("the weights differ")
    return "equal"


def resumed(name: str, folder: Path) -> str:
    """Compare a run that was killed after its first epoch with one that was left alone."""
    more = ("finetune=lp_ft", "finetune.probe=0.4", "trainer.max_epochs=3")
    broken = words(name, folder, *more, f"paths.runs_dir={folder / 'broken'}")
    child = multiprocessing.get_context("fork").Process(target=train, args=(broken,))
    child.start()
    while child.is_alive() and not list((folder / "broken").glob("*/*/checkpoints/last.ckpt")):
        time.sleep(0.01)
    is_killed = child.is_alive()
    os.kill(child.pid or 0, signal.SIGKILL) if is_killed else None
    child.join()
    if not is_killed and child.exitcode:
        raise RuntimeError("training failed")
    again = _weights(train(broken))
    if again != _weights(train(words(name, folder, *more, f"paths.runs_dir={folder / 'whole'}"))):
        raise RuntimeError("the weights differ")
    return "equal" if is_killed else "ended before it was killed"


def exported(name: str, folder: Path) -> str:
    """Write an ONNX file and compare its answers with the network's."""
    import numpy as np
    import torch

    from ddtl.config.load import load
    from ddtl.export import onnx
    from ddtl.models.network import Network
    from ddtl.utils.errors import UserError

    torch.manual_seed(0)
    network = Network(load(words(name, folder)).model, 2, SIZE).eval()
    try:
        onnx.write(network, SIZE, folder / "model.onnx", {})
    except UserError as error:
        return f"refused: {error}"
    images = np.random.default_rng(0).random((7, 1, SIZE, SIZE), dtype=np.float32)
    largest = onnx.largest_difference(network, folder / "model.onnx", images, 4, lambda *_: None)
    if not largest <= 1e-4:
        raise RuntimeError(f"they differ by {largest:.1g}")
    return f"{largest:.1g}"


def heat_map(name: str, folder: Path) -> str:
    """Draw a map, which must not be flat."""
    import torch

    from ddtl.config.load import load
    from ddtl.explain import gradcam
    from ddtl.models.network import Network
    from ddtl.utils.errors import UserError

    torch.manual_seed(0)
    network = Network(load(words(name, folder)).model, 2, SIZE).eval()
    try:
        cells = gradcam.layers(network, SIZE)
    except UserError as error:
        return f"refused: {error}"
    layer = gradcam.chosen_layer(cells, "auto")
    found = gradcam.heat_maps(
        network, gradcam.module_of(network, layer), torch.rand(2, 1, SIZE, SIZE), torch.tensor([0, 1]),
        network.backbone.as_map,
    )  # fmt: skip
    if found.shape != (2, *cells[layer]) or not abs(found).max() > 0:
        raise RuntimeError("the map is flat")
    return f"{cells[layer][0]} × {cells[layer][1]}, {layer.partition('.')[0]}"


def two_processes(name: str, folder: Path) -> str:
    """Train in two processes and in one."""
    more = (
        "finetune=lp_ft", "finetune.probe=0.5", "finetune.batchnorm=frozen_stats", "model.head.dropout=0",
        "optimizer=sgd", "optimizer.momentum=0", "optimizer.lr=1e-3", "trainer.max_epochs=2",
    )  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    both = words(name, folder, *more, "trainer.devices=2", f"paths.runs_dir={folder / 'two'}")
    processes = [context.Process(target=_one_of_two, args=(rank, port, both, folder)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a process failed")
    digests = [(folder / f"digest-{rank}").read_text() for rank in (0, 1)]
    if digests[0] != digests[1]:
        raise RuntimeError("the processes have different weights")
    if _drops_paths(name):
        return "equal; not compared with one: paths are dropped at random"
    together = next((folder / "two").glob("*/*/model.safetensors")).parent
    largest = _difference(together, train(words(name, folder, *more, f"paths.runs_dir={folder / 'one'}")))
    if not largest <= 1e-4:
        raise RuntimeError(f"they differ by {largest:.1g} from one process")
    return f"equal; from one: {largest:.1g}"


def _drops_paths(name: str) -> bool:
    import timm

    return any(getattr(module, "drop_prob", 0) for module in timm.create_model(name).modules())


def _one_of_two(rank: int, port: int, settings: Sequence[str], folder: Path) -> None:
    from ddtl.models.module import Classifier

    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip

    def write(module: Classifier) -> None:
        content = hashlib.sha256()
        for value in module.network.parameters():
            content.update(value.detach().numpy().tobytes())
        (folder / f"digest-{rank}").write_text(content.hexdigest())

    Classifier.on_train_end = write  # type: ignore[method-assign, assignment]
    train(settings)


def _difference(one: Path, other: Path) -> float:
    from safetensors.torch import load_file

    ours, theirs = (load_file(path / "model.safetensors") for path in (one, other))
    return max(float((ours[key].double() - theirs[key].double()).abs().max()) for key in ours if ours[key].numel())


CHECKS: dict[str, Callable[[str, Path], str]] = dict(
    zip(COLUMNS, (stages, schedules, cached, resumed, exported, heat_map, two_processes), strict=True)
)


def check(name: str, column: str, folder: Path) -> str:
    """Return what a check found of a network, in a process of its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    place = folder / f"{name}-{column.replace(' ', '_')}"
    place.mkdir(parents=True)
    process = context.Process(target=_send, args=(sender, name, column, place))
    process.start()
    found = receiver.recv() if receiver.poll(LIMIT) else f"failed: over {LIMIT:g} s"
    process.kill()
    process.join()
    return str(found)


def _send(sender: Any, name: str, column: str, folder: Path) -> None:
    from ddtl.utils.errors import UserError

    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            found = CHECKS[column](name, folder)
    except UserError as error:
        found = f"refused: {error}"
    except Exception as error:  # whatever a network's code raises is a result
        found = f"failed: {type(error).__name__} {error}"
    sender.send(" ".join(found.split()))


def row(name: str, folder: Path) -> dict[str, str]:
    """Return what all checks found of a network; none is made of one that cannot be cut into stages."""
    found = {"stages": check(name, "stages", folder)}
    if found["stages"].startswith("refused"):
        return found
    return found | {column: check(name, column, folder) for column in COLUMNS[1:]}


def markdown(rows: dict[str, dict[str, str]]) -> str:
    """Return the table."""
    lines = io.StringIO()
    print("| network |", " | ".join(COLUMNS), "|", file=lines)
    print("|---|", "|".join(["---:", *["---"] * (len(COLUMNS) - 1)]), "|", sep="", file=lines)
    for name, found in rows.items():
        cells = [found.get(column, "") for column in COLUMNS]
        print(f"| `{name}` |", " | ".join(cells), "|", file=lines)
    return lines.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--markdown", type=Path, help="a file for the table")
    arguments = parser.parse_args()
    import_everything()
    rows: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.networks:
            started = time.perf_counter()
            rows[name] = row(name, Path(folder))
            print(
                json.dumps({"network": name, "seconds": round(time.perf_counter() - started), **rows[name]}), flush=True
            )
            if arguments.markdown:
                arguments.markdown.write_text(markdown(rows))
    failed = sorted(name for name, found in rows.items() if any(cell.startswith("failed") for cell in found.values()))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def import_everything() -> None:
    """Import what the checks need, before they are forked."""
    import torch

    import ddtl.export.onnx
    import ddtl.training.train
    import ddtl.utils.timm_networks  # noqa: F401

    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
