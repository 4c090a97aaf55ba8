"""Images of a batch mixed in pairs: MixUp (Zhang et al. 2018, ICLR) and CutMix (Yun et al. 2019, ICCV).

What is drawn is a function of the run's seed, the step and the rank, so a resumed run mixes as an uninterrupted one.
With both, each batch takes one of them, drawn with equal chances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_STREAM = 0x6D6978  # of the draws here, apart from those of dropout


@dataclass(frozen=True)
class Mixture:
    """How the images of a batch were mixed.

    Attributes:
        images: (N, C, H, W).
        partner: (N,) place in the batch of the image that each was mixed with.
        share: of the image itself, the same for all.
    """

    images: Tensor
    partner: Tensor
    share: float

    def loss(self, of: Callable[[Tensor], Tensor], labels: Tensor) -> Tensor:
        """The loss of the mixed images: that of their own labels and of their partners', by their shares.

        Args:
            of: labels (N,) to the loss of the mixed images.
            labels: of the images before they were mixed.
        """
        return self.share * of(labels) + (1 - self.share) * of(labels[self.partner])


def mix(images: Tensor, mixup: float, cutmix: float, seed: tuple[int, ...]) -> Mixture:
    """Mix the images of a batch.

    Args:
        images: (N, C, H, W).
        mixup, cutmix: parameters of the Beta distributions, at least one of them above 0.
        seed: whatever names the draw.
    """
    draws = np.random.default_rng(np.random.SeedSequence([_STREAM, *seed]))
    partner = torch.from_numpy(draws.permutation(len(images))).to(images.device)
    is_cut = cutmix > 0 and (mixup == 0 or draws.random() < 0.5)
    alpha = cutmix if is_cut else mixup
    share = float(draws.beta(alpha, alpha))
    if not is_cut:
        return Mixture(share * images + (1 - share) * images[partner], partner, share)
    height, width = images.shape[2:]
    side = (1 - share) ** 0.5
    y, x = draws.integers(height), draws.integers(width)
    top, bottom = (int(np.clip(y + sign * height * side / 2, 0, height)) for sign in (-1, 1))
    left, right = (int(np.clip(x + sign * width * side / 2, 0, width)) for sign in (-1, 1))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    return Mixture(mixed, partner, 1 - (bottom - top) * (right - left) / (height * width))
