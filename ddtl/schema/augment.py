"""How training images are varied: the keys of ``conf/augment/``, their bounds, and the step that each one is.

A new augmentation gets its field and its step here, and its key in ``conf/augment/none.yaml``; with a default that
switches it off, runs keep their names. What draws the steps is :mod:`ddtl.data.loading.transforms`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from ddtl.schema.section import Fraction, Section

Step = tuple[str, dict[str, Any]]

_BLUR_SIGMA = (0.5 / 224, 1.5 / 224)  # fractions of the side, so that a blur looks the same at every size
_HOLE_SIDE = (0.1, 0.25)  # fractions of the side
_CONSTANT = 0  # OpenCV's BORDER_CONSTANT


def _ordered(factors: tuple[float, float]) -> tuple[float, float]:
    if factors[0] > factors[1]:
        raise ValueError("must be a range of positive factors, the smaller one first")
    return factors


_Factor = Annotated[float, Field(ge=0.1, le=10, allow_inf_nan=False)]
Factors = Annotated[tuple[_Factor, _Factor], Field(strict=False), AfterValidator(_ordered)]


class AugmentConfig(Section):
    """What is drawn for each training image; 0, or a range of 1 to 1, switches a step off.

    Attributes:
        name: a label for tables.
        horizontal_flip: probability.
        rotate_degrees: rotation, uniform in ± this many degrees.
        shift: shift along each axis, uniform in ± this fraction of the side (whole pixels).
        scale: zoom, uniform in this range; above 1 enlarges.
        brightness: added to every pixel (the window's level), uniform in ± this fraction of white.
        contrast: factor of every pixel (the window's width), uniform in 1 ± this.
        gamma: exponent, uniform in this range; above 1 darkens.
        noise: Gaussian noise, its standard deviation uniform between 0 and this fraction of white.
        blur: probability of a Gaussian blur, sigma 0.5 to 1.5 pixels at a side of 224.
        erase: probability that one rectangle, with sides of 10 to 25 % of the image's, turns black.
        mixup: images of a batch are mixed in pairs, the share drawn from Beta(mixup, mixup) for each batch.
        cutmix: a rectangle of an image is another one's, the share of its area from Beta(cutmix, cutmix).
    """

    name: str
    horizontal_flip: Fraction
    rotate_degrees: Annotated[float, Field(ge=0, le=180)]
    shift: Annotated[float, Field(ge=0, le=0.5)]
    scale: Factors
    brightness: Fraction
    contrast: Fraction
    gamma: Factors
    noise: Fraction
    blur: Fraction
    erase: Fraction
    mixup: Annotated[float, Field(ge=0, le=100)] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=100)] = 0.0

    def steps(self, size: int) -> list[Step]:
        """Return the steps that are on, in order: the name of a class of albumentations, and its arguments.

        Args:
            size: side of the images, in pixels.
        """
        steps: list[Step] = []
        if self.horizontal_flip:
            steps.append(("HorizontalFlip", {"p": self.horizontal_flip}))
        if self.rotate_degrees or self.shift or self.scale != (1, 1):
            affine = {
                "rotate": (-self.rotate_degrees, self.rotate_degrees),
                "translate_percent": (-self.shift, self.shift),
                "scale": self.scale,
                "keep_ratio": True,
                # Black is air, and scanners fill what is outside their field of view with it. Mirroring would put
                # anatomy (ribs, lesions) where there is none.
                "border_mode": _CONSTANT,
                "fill": 0,
            }
            steps.append(("Affine", {**affine, "p": 1}))
        if self.blur:
            low, high = _BLUR_SIGMA
            blur = {"sigma_limit": (low * size, high * size), "blur_limit": 0}
            steps.append(("GaussianBlur", {**blur, "p": self.blur}))
        if self.noise:
            steps.append(("GaussNoise", {"std_range": (0, self.noise), "p": 1}))
        if self.brightness or self.contrast:
            limits = {"brightness_limit": self.brightness, "contrast_limit": self.contrast}
            steps.append(("RandomBrightnessContrast", {**limits, "p": 1}))
        if self.gamma != (1, 1):
            low, high = self.gamma
            steps.append(("RandomGamma", {"gamma_limit": (100 * low, 100 * high), "p": 1}))
        if self.erase:
            hole = {"num_holes_range": (1, 1), "hole_height_range": _HOLE_SIDE, "hole_width_range": _HOLE_SIDE}
            steps.append(("CoarseDropout", {**hole, "fill": 0, "p": self.erase}))
        return steps


NONE = AugmentConfig(
    name="none",
    horizontal_flip=0.0,
    rotate_degrees=0.0,
    shift=0.0,
    scale=(1.0, 1.0),
    brightness=0.0,
    contrast=0.0,
    gamma=(1.0, 1.0),
    noise=0.0,
    blur=0.0,
    erase=0.0,
)
