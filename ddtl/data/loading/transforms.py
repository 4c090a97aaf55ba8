"""Augmentation as a pure function of (image, seed). The only module that knows albumentations.

albumentations 2.0.8 draws from generators of its own that repeat over workers and epochs. Here they are reseeded for
every image, so what was augmented before, and in which process or thread, changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from typing import Any

import numpy as np

from ddtl.schema.augment import NONE, AugmentConfig


class Augmenter:
    """Augments one image at a time; safe in threads, cheap to send to other processes.

    Args:
        spec: what to draw.
        size: side of the images, in pixels.
    """

    def __init__(self, spec: AugmentConfig, size: int) -> None:
        self.spec = spec
        self.size = size
        self._is_on = bool(spec.steps(size))
        self._local = threading.local()  # a pipeline contains the state of its generators, so each thread has its own

    def __reduce__(self) -> tuple[Any, ...]:
        return Augmenter, (self.spec, self.size)

    def __call__(self, image: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
        """One augmented image, a function of ``image`` and ``seed`` alone.

        Args:
            image: uint8 ``(size, size)`` or ``(size, size, C)``; left as it is.
            seed: whatever names the draw, such as (run's seed, epoch, sample).

        Returns:
            float32 ``(C, size, size)`` in [0, 1]. All channels are moved, and their grey levels changed, alike.
        """
        assert image.dtype == np.uint8, image.dtype
        assert image.shape[:2] == (self.size, self.size), image.shape
        if self._is_on:
            pipeline: _Pipeline | None = getattr(self._local, "pipeline", None)
            if pipeline is None:
                pipeline = self._local.pipeline = _Pipeline(self.spec, self.size, is_gray=image.ndim == 2)
            image = pipeline(image, seed)
        floats = np.multiply(image, np.float32(1 / 255), dtype=np.float32)
        return floats[np.newaxis] if image.ndim == 2 else np.ascontiguousarray(floats.transpose(2, 0, 1))


def import_libraries() -> None:
    """Import what augmentation needs; before loader processes are forked, since W&B's import hook fails in them."""
    _compose(NONE, 32)


class _Pipeline:
    """An albumentations pipeline and the two generators that all its steps draw from."""

    def __init__(self, spec: AugmentConfig, size: int, *, is_gray: bool) -> None:
        self._compose = _compose(spec, size, is_gray=is_gray)
        self._bits = np.random.PCG64(0)
        self._python = random.Random(0)
        self._compose.set_random_state(np.random.Generator(self._bits), self._python)

    def __call__(self, image: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
        self._reseed(seed)
        augmented: np.ndarray = self._compose(image=image)["image"]
        return augmented

    def _reseed(self, seed: tuple[int, ...]) -> None:
        """Sets both generators in place.

        A tenth of the time of ``Compose.set_random_seed``, which besides gives every step the same stream, so that
        the first draw of each step would be the same number. Hashed, because ``SeedSequence`` takes (1, 2) and
        (1, 2, 0) for the same seed.
        """
        name = repr(tuple(int(n) for n in seed)).encode()
        digest = hashlib.blake2b(name, digest_size=64).digest()
        state, increment = int.from_bytes(digest[:16], "little"), int.from_bytes(digest[16:32], "little")
        self._bits.state = {
            "bit_generator": "PCG64",
            "state": {"state": state, "inc": increment | 1},  # PCG64's increment is odd
            "has_uint32": 0,
            "uinteger": 0,
        }
        self._python.seed(int.from_bytes(digest[32:], "little"))


def _compose(spec: AugmentConfig, size: int, *, is_gray: bool = True) -> Any:
    """The albumentations pipeline for ``spec``; channels are of one slice, so noise is the same in all of them."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version
    import albumentations
    import cv2

    cv2.setNumThreads(0)  # parallel work is the loader's business
    alike = {} if is_gray else {"GaussNoise": {"per_channel": False}}
    return albumentations.Compose(
        [getattr(albumentations, step)(**made, **alike.get(step, {})) for step, made in spec.steps(size)]
    )
