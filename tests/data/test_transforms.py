"""Augmentation: a pure function of (image, seed), and each step does what its name says."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from ddtl.config.load import ConfigError, load
from ddtl.data.loading.transforms import Augmenter
from ddtl.schema.augment import NONE, AugmentConfig

SIZE = 32
SEEDS = [(7, epoch, sample) for epoch in range(3) for sample in range(20)]
# What users get: the values of conf/augment/.
STANDARD, STRONG = (load([f"augment={name}"]).augment for name in ("standard", "strong"))
PRESETS = {"standard": STANDARD, "strong": STRONG}


def only(**changes: Any) -> AugmentConfig:
    """Some steps and no others."""
    return NONE.model_copy(update=changes)


def noise(size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)


def smooth(size: int = 64) -> np.ndarray:
    """An image with structure and a dark margin, no two parts alike."""
    y, x = np.mgrid[:size, :size] / size
    bumps = 120 * np.exp(-((x - 0.35) ** 2 + (y - 0.4) ** 2) / 0.02) + 90 * np.exp(
        -((x - 0.6) ** 2 + (y - 0.65) ** 2) / 0.01
    )
    return np.clip(bumps, 0, 255).astype(np.uint8)


def levels(output: np.ndarray) -> np.ndarray:
    return np.rint(output[0] * 255).astype(int)


def augment_all(augmenter: Augmenter, image: np.ndarray, seeds: list[tuple[int, ...]]) -> dict[tuple[int, ...], bytes]:
    return {seed: augmenter(image, seed).tobytes() for seed in seeds}


# -- exactness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", PRESETS.values(), ids=PRESETS)
def test_output_depends_on_image_and_seed_alone(spec: AugmentConfig) -> None:
    image = noise()
    expected = augment_all(Augmenter(spec, SIZE), image, SEEDS)
    used = Augmenter(spec, SIZE)
    for i in range(10):
        used(noise(seed=i), (i, 99))
    assert augment_all(used, image, SEEDS[::-1]) == expected
    fresh_each_time = {seed: Augmenter(spec, SIZE)(image, seed).tobytes() for seed in SEEDS[:5]}
    assert fresh_each_time.items() <= expected.items()
    assert len(set(expected.values())) == len(SEEDS)


@pytest.mark.slow
def test_output_is_the_same_in_a_spawned_process() -> None:
    augmenter, image = Augmenter(STRONG, SIZE), noise()
    expected = augment_all(augmenter, image, SEEDS)  # also: an augmenter that was used can be pickled
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(augment_all, (augmenter, image, SEEDS)) == expected


def test_threads_may_share_an_augmenter() -> None:
    augmenter, image = Augmenter(STRONG, SIZE), noise()
    expected = augment_all(augmenter, image, SEEDS)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: augmenter(image, seed).tobytes(), SEEDS * 5))
    assert found == [expected[seed] for seed in SEEDS * 5]


def test_global_random_state_is_neither_read_nor_touched() -> None:
    import random

    augmenter, image = Augmenter(STRONG, SIZE), noise()
    expected = augmenter(image, (1,))
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), pickle.dumps(np.random.get_state())
    np.testing.assert_array_equal(augmenter(image, (1,)), expected)
    assert (random.getstate(), pickle.dumps(np.random.get_state())) == before


@given(st.lists(st.lists(st.integers(-(2**70), 2**70), max_size=4).map(tuple), min_size=2, max_size=2, unique=True))
@settings(deadline=None, max_examples=50)
def test_different_seeds_give_different_images(seeds: list[tuple[int, ...]]) -> None:
    augmenter, image = Augmenter(only(noise=0.1), SIZE), noise()
    first, second = (augmenter(image, seed) for seed in seeds)
    assert not np.array_equal(first, second)


def test_zeros_at_the_end_of_a_seed_count_and_numpy_integers_do_not() -> None:
    augmenter, image = Augmenter(STANDARD, SIZE), noise()
    assert not np.array_equal(augmenter(image, (1, 2)), augmenter(image, (1, 2, 0)))
    assert not np.array_equal(augmenter(image, (2**32,)), augmenter(image, (0, 1)))
    np.testing.assert_array_equal(augmenter(image, (1, 2)), augmenter(image, (np.int64(1), np.uint8(2))))


def test_steps_draw_independently() -> None:
    """With `Compose.set_random_seed` each step has the same stream: every flipped image would have a hole."""
    augmenter = Augmenter(only(horizontal_flip=0.5, erase=0.5), SIZE)
    image = np.full((SIZE, SIZE), 100, np.uint8)
    image[:, : SIZE // 2] = 200
    flips, holes = [], []
    for i in range(400):
        output = levels(augmenter(image, (i,)))
        flips.append(np.median(output[:, 0]) == 100)
        holes.append((output == 0).any())
    assert 0.4 < np.mean(flips) < 0.6
    assert 0.4 < np.mean(holes) < 0.6
    assert 0.4 < np.mean(np.equal(flips, holes)) < 0.6


# -- what comes out ----------------------------------------------------------------------------------------------------


@given(hnp.arrays(np.uint8, (SIZE, SIZE)), st.integers(0, 2**40), st.sampled_from([NONE, STANDARD, STRONG]))
@settings(deadline=None, max_examples=60)
def test_shape_type_and_range(image: np.ndarray, seed: int, spec: AugmentConfig) -> None:
    before = image.copy()
    output = Augmenter(spec, SIZE)(image, (seed,))
    assert type(output) is np.ndarray
    assert output.shape == (1, SIZE, SIZE)
    assert output.dtype == np.float32
    assert output.flags.c_contiguous
    assert output.flags.writeable
    assert 0 <= output.min() <= output.max() <= 1
    np.testing.assert_array_equal(image, before)
    if spec == NONE:
        np.testing.assert_array_equal(levels(output), image)


def test_read_only_images_are_fine() -> None:
    image = noise()
    image.flags.writeable = False
    for spec in (NONE, STANDARD, STRONG, only(erase=1.0), only(gamma=(0.5, 0.6))):
        Augmenter(spec, SIZE)(image, (1,))


def test_flip() -> None:
    image = noise()
    np.testing.assert_array_equal(levels(Augmenter(only(horizontal_flip=1.0), SIZE)(image, (1,))), image[:, ::-1])


def test_shift_moves_whole_pixels_and_fills_with_black() -> None:
    image = noise() | 1  # no black of its own
    augmenter = Augmenter(only(shift=0.2), SIZE)
    found = set()
    for i in range(60):
        output = levels(augmenter(image, (i,)))
        kept = np.argwhere(output)
        top, left = kept.min(axis=0)
        bottom, right = kept.max(axis=0) + 1
        dy, dx = int(top - (SIZE - bottom)), int(left - (SIZE - right))
        expected = image[max(0, -dy) : SIZE - max(0, dy), max(0, -dx) : SIZE - max(0, dx)]
        np.testing.assert_array_equal(output[top:bottom, left:right], expected)
        found.add((dy, dx))
    assert max(abs(n) for shift in found for n in shift) == 6  # 0.2 * 32 = 6.4
    assert len(found) > 40


def test_zoom_and_rotation_agree_with_scipy() -> None:
    image = smooth()
    centre = (np.array(image.shape) - 1) / 2
    zoomed = levels(Augmenter(only(scale=(1.5, 1.5)), 64)(image, (1,)))
    reference = ndimage.affine_transform(image.astype(float), np.eye(2) / 1.5, centre - centre / 1.5, order=1)
    assert np.abs(zoomed - reference).max() <= 4

    def rotated(degrees: float) -> np.ndarray:
        return ndimage.rotate(image.astype(float), degrees, reshape=False, order=1)

    angles = []
    augmenter = Augmenter(only(rotate_degrees=20), 64)
    for i in range(12):
        output = levels(augmenter(image, (i,)))
        candidates = np.arange(-22, 22.5, 0.5)
        errors = [np.abs(rotated(angle) - output).mean() for angle in candidates]
        angles.append(candidates[np.argmin(errors)])
        assert min(errors) < 0.6
    assert -20.5 <= min(angles) < -5
    assert 5 < max(angles) <= 20.5


def test_brightness_and_contrast_move_level_and_width() -> None:
    ramp = np.tile(np.arange(100, 132, dtype=np.uint8), (SIZE, 1))
    bright = Augmenter(only(brightness=0.1), SIZE)
    offsets = [levels(bright(ramp, (i,))) - ramp for i in range(60)]
    assert all(np.ptp(offset) == 0 for offset in offsets)
    assert -26 <= min(o.min() for o in offsets) < -15
    assert 15 < max(o.max() for o in offsets) <= 26
    contrast = Augmenter(only(contrast=0.2), SIZE)
    factors = [np.median(levels(contrast(ramp, (i,))) / ramp) for i in range(60)]
    assert 0.79 < min(factors) < 0.88
    assert 1.12 < max(factors) < 1.21


def test_gamma() -> None:
    image = noise()
    output = levels(Augmenter(only(gamma=(2.0, 2.0)), SIZE)(image, (1,)))
    assert np.abs(output - 255 * (image / 255) ** 2).max() <= 1


def test_noise_has_its_standard_deviation() -> None:
    gray = np.full((64, 64), 128, np.uint8)
    augmenter = Augmenter(only(noise=0.05), 64)
    outputs = [levels(augmenter(gray, (i,))) for i in range(60)]
    deviations = [output.std() / 255 for output in outputs]
    assert abs(np.mean(outputs) - 128) < 1
    assert min(deviations) < 0.01
    assert 0.045 < max(deviations) < 0.053


def test_blur_looks_the_same_at_every_size() -> None:
    edge = np.zeros((224, 224), np.uint8)
    edge[:, 112:] = 200
    augmenter = Augmenter(only(blur=1.0), 224)
    widths = [
        np.count_nonzero((row > 20) & (row < 180)) for row in (levels(augmenter(edge, (i,)))[50] for i in range(30))
    ]
    assert 0 <= min(widths) <= 2
    assert 3 <= max(widths) <= 5
    output = levels(augmenter(edge, (1,)))
    candidates = np.arange(0.5, 1.51, 0.01)
    errors = [np.abs(ndimage.gaussian_filter(edge.astype(float), s) - output).max() for s in candidates]
    assert min(errors) <= 3
    small = Augmenter(only(blur=1.0), SIZE)(noise(), (1,))
    np.testing.assert_array_equal(levels(small), noise())  # under a third of a pixel is nothing


def test_erase_blackens_one_rectangle() -> None:
    image = noise(64) | 1
    augmenter = Augmenter(only(erase=1.0), 64)
    for i in range(40):
        output = levels(augmenter(image, (i,)))
        holes = np.argwhere(output == 0)
        (top, left), (bottom, right) = holes.min(axis=0), holes.max(axis=0) + 1
        assert len(holes) == (bottom - top) * (right - left)
        assert 6 <= bottom - top <= 16
        assert 6 <= right - left <= 16
        np.testing.assert_array_equal(output[output > 0], image[output > 0])


@pytest.mark.parametrize("spec", PRESETS.values(), ids=PRESETS)
def test_presets_keep_the_image_recognisable(spec: AugmentConfig) -> None:
    image = smooth()
    augmenter = Augmenter(spec.model_copy(update={"horizontal_flip": 0.0}), 64)
    likeness = [np.corrcoef(augmenter(image, (i,)).ravel(), image.ravel())[0, 1] for i in range(100)]
    assert np.median(likeness) > 0.6


# -- mistakes and costs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("augment.horizontal_flip=1.5", "must be at most 1"),
        ("augment.noise=-0.1", "must be at least 0"),
        ("augment.rotate_degrees=200", "must be at most 180"),
        ("augment.shift=0.6", "must be at most 0.5"),
        ("augment.scale=[1.2,0.8]", "must be a range of positive factors, the smaller one first"),
        ("augment.gamma=[0,1]", "0 must be at least 0.1"),
        ("augment.scale=[1,20]", "20 must be at most 10"),
        ("augment.scale=[1]", "takes two values"),
    ],
)
def test_impossible_values_name_their_key(word: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load([word])
    assert str(refused.value).startswith(word.partition("=")[0])
    assert says in str(refused.value)


def test_what_is_off_is_off_under_any_name() -> None:
    words = [f"augment.{key}=0" for key, value in STRONG if value not in ("strong",) and not isinstance(value, tuple)]
    off = load(["augment=strong", *words, "augment.scale=[1,1]", "augment.gamma=[1,1]"]).augment
    assert off.steps(SIZE) == NONE.steps(SIZE) == []
    assert off == only(name="strong")


def test_importing_costs_nothing_until_something_is_augmented() -> None:
    code = (
        "import sys, numpy as np\n"
        "from ddtl.data.loading.transforms import NONE, Augmenter\n"
        "Augmenter(NONE, 4)(np.zeros((4, 4), np.uint8), (1,))\n"
        "Augmenter(NONE.model_copy(update={'blur': 1.0}), 4)\n"
        "sys.exit(bool({'albumentations', 'cv2', 'torch'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
