"""A network as an ONNX file, and whether the file gives what the network gives."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddtl.models import adapters
from ddtl.models.network import Network
from ddtl.utils.errors import UserError
from ddtl.utils.progress import Progress

OPSET = 18
INPUT, OUTPUTS = "images", ("logits", "probabilities")


class _Answers(nn.Module):
    """Images to logits and probabilities, without what only training needs."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network.classify(self.network.embed(images, 0), 0)
        return logits, logits.softmax(dim=1)


def require() -> None:
    """See that the packages are there.

    Raises:
        UserError: they are not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"format=onnx needs the package {error.name}: pip install 'ddtl[export]'. format=safetensors needs none."
        ) from error


def write(network: Network, size: int, path: Path, metadata: Mapping[str, Any], channels: int = 1) -> None:
    """Write the network in fp32, for any number of images at a time.

    The file takes ``images`` (N, channels, size, size) float32, gray levels / 255, and gives ``logits`` and
    ``probabilities`` (N, classes).

    Args:
        network: in evaluation mode, on the CPU.
        metadata: stored in the file's metadata under ``ddtl``, as JSON.
        channels: of an image: 1, or 3 where each is a window of its own.
    """
    import onnx

    example = torch.zeros(2, channels, size, size)  # of one image, torch would take the 1 for a constant
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's advice about its own exporter
        program = torch.onnx.export(
            _Answers(adapters.merged(network)).eval(), (example,), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=[INPUT], output_names=list(OUTPUTS), dynamic_shapes={INPUT: {0: torch.export.Dim("N")}},
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = "ddtl", json.dumps(metadata, ensure_ascii=False)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def largest_difference(network: Network, path: Path, images: np.ndarray, batch: int, progress: Progress) -> float:
    """Return the largest difference between a logit or probability of the file, run by ONNX Runtime, and the network's.

    Args:
        network: in evaluation mode, on the CPU.
        images: (N, channels, size, size) float32; they go through in batches of ``batch``, the last one of the rest.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers = _Answers(network)
    largest = 0.0
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        with torch.inference_mode():
            ours = [output.numpy() for output in answers(torch.from_numpy(part))]
        for mine, theirs in zip(ours, session.run(list(OUTPUTS), {INPUT: part}), strict=True):
            # Not max(): what is not a number must not pass for a small difference.
            largest = float(np.maximum(largest, np.abs(mine - theirs).max()))
        progress(min(start + batch, len(images)), len(images))
    return largest
