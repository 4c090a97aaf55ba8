"""Draw a page as a PNG file, with Chromium.

python -m tools.screenshot runs/phantom/NAME/report.html docs/images/report_top.png
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image


def draw(page: Path, out: Path, width: int, height: int) -> None:
    """Write the top of a page, of ``width`` × ``height`` pixels, in 256 colours.

    Raises:
        SystemExit: there is no Chromium.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("error: Chromium is needed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "page.png"
        command = (
            chromium, "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", "--virtual-time-budget=8000",
            f"--user-data-dir={folder}/profile", f"--window-size={width},{height}", f"--screenshot={drawn}",
            page.resolve().as_uri(),
        )  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(drawn) as image:
            image.convert("RGB").quantize(256).save(out, optimize=True)


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="the HTML file")
    parser.add_argument("out", type=Path, help="the PNG file to write")
    parser.add_argument("--width", type=int, default=1280, help="pixels (default: %(default)s)")
    parser.add_argument("--height", type=int, default=1000, help="pixels (default: %(default)s)")
    words = parser.parse_args()
    draw(words.page, words.out, words.width, words.height)


if __name__ == "__main__":
    main()
