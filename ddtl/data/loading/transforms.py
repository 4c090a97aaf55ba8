"""Augmentation as a pure function of (image, seed). The only module that knows albumentations.

albumentations 2.0.8 draws from generators of its own that repeat over workers and epochs. Here they are reseeded for
every image, so what was augmented before, and in which process or thread, changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddtl.utils.errors import UserError

_BLUR_SIGMA = (0.5 / 224, 1.5 / 224)  # fractions of the side, so that a blur looks the same at every size
_HOLE_SIDE = (0.1, 0.25)  # fractions of the side


@dataclass(frozen=True)
class AugmentSpec:
    """What is drawn for each image, in this order; the defaults switch every step off.

    Attributes:
        horizontal_flip: probability.
        rotate_degrees: rotation, uniform in ± this many degrees.
        shift: shift along each axis, uniform in ± this fraction of the side (whole pixels).
        scale: zoom, uniform in this range; above 1 enlarges.
        blur: probability of a Gaussian blur, sigma 0.5 to 1.5 pixels at a side of 224.
        noise: Gaussian noise, its standard deviation uniform between 0 and this fraction of white.
        brightness: added to every pixel (the window's level), uniform in ± this fraction of white.
        contrast: factor of every pixel (the window's width), uniform in 1 ± this.
        gamma: exponent, uniform in this range; above 1 darkens.
        erase: probability that one rectangle, with sides of 10 to 25 % of the image's, turns black.
    """

    horizontal_flip: float = 0.0
    rotate_degrees: float = 0.0
    shift: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    blur: float = 0.0
    noise: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: tuple[float, float] = (1.0, 1.0)
    erase: float = 0.0

    def __post_init__(self) -> None:
        for name in ("horizontal_flip", "shift", "blur", "noise", "brightness", "contrast", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"augment.{name} must be between 0 and 1, not {getattr(self, name)}.")
        if not 0 <= self.rotate_degrees <= 180:
            raise UserError(f"augment.rotate_degrees must be between 0 and 180, not {self.rotate_degrees}.")
        for name in ("scale", "gamma"):
            low, high = getattr(self, name)
            if not 0.1 <= low <= high <= 10:
                raise UserError(f"augment.{name} must be a range [low, high] between 0.1 and 10, not {[low, high]}.")
            object.__setattr__(self, name, (float(low), float(high)))  # a list from YAML must compare equal too


NONE = AugmentSpec()


class Augmenter:
    """Augments one image at a time; safe in threads, cheap to send to other processes.

    Args:
        spec: what to draw.
        size: side of the images, in pixels.
    """

    def __init__(self, spec: AugmentSpec, size: int) -> None:
        self.spec = spec
        self.size = size
        self._local = threading.local()  # a pipeline holds the state of its generators, so each thread has its own

    def __reduce__(self) -> tuple[Any, ...]:
        return Augmenter, (self.spec, self.size)

    def __call__(self, image: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
        """One augmented image, a function of ``image`` and ``seed`` alone.

        Args:
            image: uint8 ``(size, size)``; left as it is.
            seed: whatever names the draw, such as (run's seed, epoch, sample).

        Returns:
            float32 ``(1, size, size)`` in [0, 1].
        """
        assert image.dtype == np.uint8, image.dtype
        assert image.shape == (self.size, self.size), image.shape
        if self.spec != NONE:
            pipeline: _Pipeline | None = getattr(self._local, "pipeline", None)
            if pipeline is None:
                pipeline = self._local.pipeline = _Pipeline(self.spec, self.size)
            image = pipeline(image, seed)
        return np.multiply(image, np.float32(1 / 255), dtype=np.float32)[np.newaxis]


def import_libraries() -> None:
    """Import what augmentation needs; before loader processes are forked, since W&B's import hook fails in them."""
    _compose(NONE, 32)


class _Pipeline:
    """An albumentations pipeline and the two generators that all its steps draw from."""

    def __init__(self, spec: AugmentSpec, size: int) -> None:
        self._compose = _compose(spec, size)
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


def _compose(spec: AugmentSpec, size: int) -> Any:
    """The albumentations pipeline for ``spec``; steps that are off are left out."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)  # parallel work is the loader's business
    steps: list[Any] = []
    if spec.horizontal_flip:
        steps.append(A.HorizontalFlip(p=spec.horizontal_flip))
    if spec.rotate_degrees or spec.shift or spec.scale != (1.0, 1.0):
        steps.append(
            A.Affine(
                rotate=(-spec.rotate_degrees, spec.rotate_degrees),
                translate_percent=(-spec.shift, spec.shift),
                scale=tuple(spec.scale),
                keep_ratio=True,
                # Black is air, and scanners fill what lies outside their field of view with it. Mirroring would put
                # anatomy (ribs, lesions) where there is none.
                border_mode=cv2.BORDER_CONSTANT,
                fill=0,
                p=1,
            )
        )
    if spec.blur:
        low, high = _BLUR_SIGMA
        steps.append(A.GaussianBlur(sigma_limit=(low * size, high * size), blur_limit=0, p=spec.blur))
    if spec.noise:
        steps.append(A.GaussNoise(std_range=(0, spec.noise), p=1))
    if spec.brightness or spec.contrast:
        steps.append(A.RandomBrightnessContrast(spec.brightness, spec.contrast, p=1))
    if spec.gamma != (1.0, 1.0):
        low, high = spec.gamma
        steps.append(A.RandomGamma((100 * low, 100 * high), p=1))
    if spec.erase:
        steps.append(
            A.CoarseDropout(
                num_holes_range=(1, 1), hole_height_range=_HOLE_SIDE, hole_width_range=_HOLE_SIDE, fill=0, p=spec.erase
            )
        )
    return A.Compose(steps)
