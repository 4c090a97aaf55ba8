"""A run's network on this machine, as the run's own predict pass used it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from ddtl.data.images.harmonize import Harmonizer
from ddtl.models import weights
from ddtl.models.network import Network
from ddtl.records.run_folder import RunFolder
from ddtl.schema.run import Config
from ddtl.training import hardware


def load(folder: RunFolder, config: Config, n_classes: int) -> tuple[Network, str]:
    """Return the network with the weights that were scored, in evaluation mode, and the sha256 of their file.

    Raises:
        UserError: the file is not there, or is damaged.
    """
    found = weights.locate(config.model.model_copy(update={"weights": str(folder.path)}), None)
    network = Network.of(config, n_classes)
    weights.require_encoder(network, folder.path)
    weights.load_into(network, found, config.model.key)
    assert found.digest is not None, "a file has a digest"
    return network.eval(), found.digest


class Predictor:
    """Prepared images to logits and pooled features.

    Args:
        network: in evaluation mode; it is moved to the machine's device.
        config: of the run; its trainer says which accelerator and precision are requested.
        harmonizer: what happens to the grey levels of an image first.
    """

    def __init__(self, network: Network, config: Config, harmonizer: Harmonizer | None = None) -> None:
        self._harmonizer = harmonizer
        self.machine = hardware.resolve(config.trainer)
        self.device = torch.device("cuda" if self.machine.accelerator == "gpu" else "cpu")
        self.network = network.to(self.device)
        if config.trainer.channels_last:
            self.network.to(memory_format=torch.channels_last)

    def __call__(self, images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return logits (N, classes) float64 and features (N, channels) float32, the mean of the last feature map.

        Args:
            images: N, uint8 (size, size) or (size, size, 3), as the decoded cache contains them.
        """
        if self._harmonizer is not None:
            images = [self._harmonizer(image, 0) for image in images]
        pixels = torch.from_numpy(np.stack(images)).to(self.device)
        channels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
        x = channels * (1 / 255)  # to the bit as in training
        depth = len(self.network.backbone.stages)
        with torch.inference_mode(), self.autocast():
            feature_map = self.network.embed(x, depth)
            logits = self.network.classify(feature_map, depth)
            features = feature_map.float().mean(dim=(2, 3))
        return logits.float().cpu().numpy().astype(np.float64), features.cpu().numpy()

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the run's precision, as Lightning sets it around a predict step.

        Within it the weights are converted once, not in each call.
        """
        if self.machine.precision == "32-true":
            return nullcontext()
        dtype = torch.bfloat16 if self.machine.precision == "bf16-mixed" else torch.float16
        return torch.autocast(self.device.type, dtype)
