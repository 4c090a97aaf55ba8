"""What a network makes of images before its head, kept while it predicts."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from ddtl.models.network import Network
from ddtl.utils.files import write_bytes

NAME = "embeddings.npz"


@contextmanager
def collect_features(network: Network) -> Iterator[list[np.ndarray]]:
    """Collect the embeddings of each batch that the network sees within: the feature maps' means, (N, features)
    float32.
    """
    parts: list[np.ndarray] = []

    def keep(head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        parts.append(inputs[0].detach().float().mean(dim=(2, 3)).cpu().numpy())

    handle = network.head.register_forward_pre_hook(keep)
    try:
        yield parts
    finally:
        handle.remove()


def write(parts: Sequence[np.ndarray], rows: Sequence[int], path: Path) -> None:
    """Write them in the order of predictions, which is that of the manifest.

    Args:
        parts: from :func:`collect_features`.
        rows: manifest row of each embedding, as they were predicted.
        path: the file; its one array is called ``embeddings``.
    """
    found = np.concatenate(parts).astype(np.float16)
    assert len(found) == len(rows), "each image was seen once"
    buffer = io.BytesIO()
    np.savez_compressed(buffer, embeddings=found[np.argsort(rows, kind="stable")])
    write_bytes(path, buffer.getvalue())
