"""Draw the images of the docs: what an image shows is trained in build/screenshots, and its page drawn with Chromium.

python -m tools.screenshot                 # all
python -m tools.screenshot report.png      # one

The public images are read from DDTL_DATA, and ImageNet's weights of SqueezeNet from DDTL_TEST_WEIGHTS.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from tests.support import browser

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "screenshots"  # what was trained is kept there
IMAGES = ROOT / "docs" / "images"
Command = tuple[str, ...]

_TRAIN = ("train.py", "logger=none")
_WEIGHTS = f"{os.environ.get('DDTL_TEST_WEIGHTS', '')}/squeezenet1_1-imagenet.safetensors"
_REAL = ("dataset=covid19ct", "model=squeezenet1_1", f"model.weights={_WEIGHTS}")
_ACCURATE = (
    *_TRAIN, *_REAL, "finetune=linear_probe", "evaluation.threshold=sensitivity", "evaluation.target=0.9",
    "run.name=squeezenet1_1-linear_probe-s0",
)  # fmt: skip
_SMALL = (*_TRAIN, "model=squeezenet1_1", "model.weights=none", "trainer.max_epochs=8")
_PAIR = tuple((*_SMALL, f"optimizer.lr={rate}", f"run.name=squeezenet1_1-lr{rate}") for rate in ("3e-4", "1e-3"))
_RUNS = "runs/phantom/"


@dataclass(frozen=True)
class Recipe:
    """How an image is made.

    Attributes:
        commands: what is run first: a script of the repository, or the words of ``ddtl``. A run that is there already
            is not trained again.
        page: the page below ``build/screenshots``, or the address of the dashboard's view behind #.
        width, height: of the window, in pixels.
        dark: whether in the dark scheme.
        at: the elements to which the page is scrolled, side by side in the image; empty for the top.
    """

    commands: tuple[Command, ...]
    page: str
    width: int = 1280
    height: int = 1000
    dark: bool = False
    at: tuple[str, ...] = ("",)


RECIPES = {
    "report_top.png": Recipe(((*_TRAIN, "run.name=quickstart"),), f"{_RUNS}quickstart/report.html"),
    "report.png": Recipe((_ACCURATE,), "runs/covid19ct/squeezenet1_1-linear_probe-s0/report.html", 1180, 1960),
    "report_phone.png": Recipe(
        (_PAIR[0], ("explain", f"{_RUNS}squeezenet1_1-lr3e-4")), f"{_RUNS}squeezenet1_1-lr3e-4/report.html", 390, 840,
        at=("", "#patients", "#cases"),
    ),
    "explain.webp": Recipe(
        (_PAIR[0], ("explain", f"{_RUNS}squeezenet1_1-lr3e-4")), f"{_RUNS}squeezenet1_1-lr3e-4/report.html", 1200, 1000,
        dark=True, at=("#cases",),
    ),
    "lr_find.png": Recipe((("lr-find", *_REAL, "finetune=full", "output=lr"),), "lr/lr_find.html", 820, 986),
    "comparison.png": Recipe(
        (*_PAIR, ("compare", *(f"{_RUNS}squeezenet1_1-lr{rate}" for rate in ("3e-4", "1e-3")), "html=compared.html")),
        "compared.html", 960, 1248,
    ),
    "dashboard.png": Recipe(
        (*_PAIR, ("runs", "tag", f"{_RUNS}squeezenet1_1-lr1e-3", "baseline")),
        "#run=phantom%2Fsqueezenet1_1-lr3e-4&run=phantom%2Fsqueezenet1_1-lr1e-3&show=curves", 1280, 820,
    ),
}  # fmt: skip
# Drawn without a browser: a script that takes the file.
SCRIPTS = {"phantom.png": "tools/phantom_contact_sheet.py"}


def draw(name: str) -> None:
    """Write an image of the docs.

    Raises:
        CalledProcessError: one of its commands failed.
    """
    if name in SCRIPTS:
        subprocess.run([sys.executable, str(ROOT / SCRIPTS[name])], check=True, cwd=ROOT)
        return
    recipe = RECIPES[name]
    FOLDER.mkdir(parents=True, exist_ok=True)
    for words in recipe.commands:
        program = [str(ROOT / words[0])] if words[0].endswith(".py") else ["-m", "ddtl", words[0]]
        subprocess.run([sys.executable, *program, *words[1:]], check=True, cwd=FOLDER, env=_environment())
    served = _dashboard() if recipe.page.startswith("#") else nullcontext((FOLDER / recipe.page).as_uri())
    with (
        served as address,
        TemporaryDirectory(ignore_cleanup_errors=True) as place,
        browser.opened(Path(place) / "profile") as tab,
    ):
        shots = []
        for number, where in enumerate(recipe.at):
            tab.go("about:blank", width=recipe.width)
            tab.go(
                f"{address}{recipe.page}" if recipe.page.startswith("#") else address,
                width=recipe.width, height=recipe.height, dark=recipe.dark,
            )  # fmt: skip
            tab.run("new Promise(done => setTimeout(done, 4000))")
            if where:
                tab.run(f"document.querySelector({where!r}).scrollIntoView(); 0")
                tab.run("new Promise(done => setTimeout(done, 1000))")
            tab.picture(Path(place) / f"{number}.png")
            with Image.open(Path(place) / f"{number}.png") as shot:
                shots.append(shot.convert("RGB"))
        write(shots, IMAGES / name)


def write(shots: list[Image.Image], to: Path) -> None:
    """Write screenshots side by side: PNG in 256 colours, or WebP."""
    gap = 20
    width = sum(shot.width for shot in shots) + gap * (len(shots) - 1)
    whole = Image.new("RGB", (width, shots[0].height), "white")
    left = 0
    for shot in shots:
        whole.paste(shot, (left, 0))
        left += shot.width + gap
    if to.suffix == ".webp":
        whole.save(to, quality=85, method=6)
    else:
        whole.quantize(256).save(to, optimize=True)


def _environment() -> dict[str, str]:
    own = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": own}


@contextmanager
def _dashboard() -> Iterator[str]:
    """Serve the dashboard, and yield its address."""
    command = [sys.executable, "-m", "ddtl", "dashboard", "port=0"]
    process = subprocess.Popen(
        command, cwd=FOLDER, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"http://\S+:\d+/?", line):
                yield found[0].rstrip("/") + "/"
                return
        raise SystemExit("error: the dashboard did not start.")
    finally:
        process.terminate()
        process.wait(timeout=20)


def main() -> None:
    """Draw the images that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="image", help=", ".join([*RECIPES, *SCRIPTS]))
    names = parser.parse_args().names
    for name in names:
        if name not in (*RECIPES, *SCRIPTS):
            parser.error(f"{name}: there are {', '.join([*RECIPES, *SCRIPTS])}")
    for name in names or [*RECIPES, *SCRIPTS]:
        draw(name)


if __name__ == "__main__":
    main()
