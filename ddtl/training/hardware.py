"""What this machine has, and what ``auto`` means on it. Reads the hardware; measures nothing."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import torch

from ddtl.schema.run import TrainerConfig
from ddtl.utils import ranks, threads
from ddtl.utils.errors import UserError
from ddtl.utils.redaction import redact

PACKAGES = (
    "ddtl", "torch", "torchvision", "timm", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf", "optuna",
    "albumentations", "opencv-python-headless", "numpy", "scipy", "scikit-learn", "pillow", "wandb",
)  # fmt: skip


@dataclass(frozen=True)
class Hardware:
    """The choices that ``auto`` came to; ``reason`` says why in a few words."""

    accelerator: Literal["cpu", "gpu"]
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    reason: str

    @property
    def fused(self) -> bool:
        """Whether the optimiser may run as one kernel; under a gradient scaler Lightning cannot clip with it."""
        return self.precision != "16-mixed"


def resolve(config: TrainerConfig) -> Hardware:
    """Read the hardware.

    Raises:
        UserError: what was requested is not here.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    accelerator: Literal["cpu", "gpu"] = (
        "gpu" if config.accelerator == "gpu" or (config.accelerator == "auto" and gpus) else "cpu"
    )
    if accelerator == "gpu" and not gpus:
        raise UserError("trainer.accelerator=gpu: torch sees no GPU on this machine. Take trainer=cpu.")
    have, what, instead = (gpus, "GPUs", "trainer=cpu or ") if accelerator == "gpu" else (threads.cores(), "cores", "")
    # A process that srun or torchrun started may be bound to its own cores, and sees no others.
    bound = accelerator == "cpu" and ranks.assign_process(config.devices, config.num_nodes).external
    if config.devices > have and not bound:
        raise UserError(
            f"trainer.devices={config.devices}: this machine has {have} {what[:-1] if have == 1 else what} to use. "
            f"Take {instead}trainer.devices={have}."
        )
    bf16 = torch.cuda.is_bf16_supported() if accelerator == "gpu" else _cpu_has_bf16()
    if config.precision == "16-mixed" and accelerator == "cpu":
        raise UserError("trainer.precision=16-mixed needs a GPU; on a CPU use trainer.precision=bf16-mixed or 32.")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    if config.precision == "auto":
        precision = "bf16-mixed" if bf16 else "32-true"
    else:
        precision = "32-true" if config.precision == 32 else config.precision
    name = torch.cuda.get_device_name(0) if accelerator == "gpu" else cpu_name()
    has = "with" if bf16 else "without"
    return Hardware(accelerator, precision, f"{name}, {has} fast bf16")


def environment() -> dict[str, Any]:
    """Return what a reader needs to repeat the run. Stays on this machine: it contains the command line."""
    return {
        "command": [os.path.basename(sys.argv[0]), *map(redact, sys.argv[1:])],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": versions(),
    }


def arithmetic() -> str:
    """Return a short hash of what decides how numbers are rounded here: torch, processor, GPUs and threads."""
    parts = (
        torch.__version__,
        cpu_name(),
        torch.get_num_threads(),
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]


def versions() -> dict[str, str]:
    """Return installed versions of the packages that results depend on."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _cpu_has_bf16() -> bool:
    """Return whether bf16 is faster than fp32: with Intel's AMX, or AMD's AVX-512; Intel's AVX-512 alone gains
    nothing.
    """
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return False
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return "amx_bf16" in flags or ("avx512_bf16" in flags and "AuthenticAMD" in text)
