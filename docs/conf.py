"""How Sphinx builds the pages: ``make docs``. Nothing is fetched, and the pages fetch nothing."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
sys.path.insert(0, str(ROOT))
os.environ["WANDB_MODE"] = "disabled"

import plotly
import plotly.io
from plotly.io.base_renderers import MimetypeRenderer
from sphinx.application import Sphinx

import ddtl
from tools import reference

# The settings and commands of this version.
reference.write()

# Examples run where their runs folder is in nobody's way.
EXAMPLES = BUILD / "gallery"
shutil.rmtree(EXAMPLES, ignore_errors=True)
shutil.copytree(ROOT / "docs" / "gallery", EXAMPLES)

project = "ddtl"
author = "the authors of ddtl"
release = version = ddtl.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_gallery.gen_gallery"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["gallery", "generated/gallery/*.ipynb", "generated/gallery/*.py"]
highlight_language = "bash"
suppress_warnings = ["config.cache"]  # of sphinx-gallery's functions, which cannot be stored

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_use_ivar = True

html_theme = "furo"
html_title = "ddtl"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_copyright = False


def empty_runs(_: dict[str, Any], __: str) -> None:
    """Let each example begin without runs, and without the logging that a part of the theme sets up."""
    logging.getLogger().handlers.clear()
    shutil.rmtree(EXAMPLES / "runs", ignore_errors=True)


class PngFiles:
    """What shows the PNG and WebP files that an example puts into its variable ``shown``, each once."""

    def __repr__(self) -> str:
        return "PngFiles()"

    def __call__(self, block: Any, variables: dict[str, Any], conf: dict[str, Any]) -> str:
        from PIL import Image
        from sphinx_gallery.scrapers import figure_rst

        paths = []
        for image in variables["example_globals"].pop("shown", []):
            paths.append(next(variables["image_path_iterator"]))
            Image.open(image).convert("RGB").save(paths[-1])
        return str(figure_rst(paths, conf["src_dir"]))


class Charts(MimetypeRenderer):  # type: ignore[misc]
    """What shows a Plotly figure with the library that its page loads from these pages themselves."""

    def to_mimebundle(self, figure: dict[str, Any]) -> dict[str, str]:
        library = "../../_static/plotly.min.js"  # from the pages of the gallery
        return {"text/html": plotly.io.to_html(figure, {"responsive": True}, include_plotlyjs=library, full_html=False)}


plotly.io.renderers["docs"] = Charts()
plotly.io.renderers.default = "docs"

sphinx_gallery_conf = {
    "examples_dirs": [str(EXAMPLES)],
    "gallery_dirs": ["generated/gallery"],
    "filename_pattern": r"\.py$",
    "image_scrapers": (PngFiles(),),
    "reset_modules": (empty_runs,),
    "reset_modules_order": "before",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "remove_config_comments": True,
    "within_subsection_order": "FileNameSortKey",
    "default_thumb_file": str(ROOT / "docs" / "images" / "report_top.png"),
}


def read_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Let links to the Markdown files of the repository's root lead to their pages; CSV has no colours."""
    source[0] = source[0].replace("```csv", "```text")
    source[0] = re.sub(r"\]\(\.\./([A-Z]+)\.md", lambda match: f"](generated/{match[1].lower()}.md", source[0])


def hide_colon(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Have the first words of a property's docstring not taken for its type, where a colon follows them."""
    if what == "property" and lines:
        lines[0] = lines[0].replace(":", _COLON)


def show_colon(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Undo that, behind Napoleon."""
    lines[:] = [line.replace(_COLON, ":") for line in lines]


_COLON = "\ue000"


def setup(app: Sphinx) -> None:
    """Connect the above."""
    static = BUILD / "static"
    static.mkdir(parents=True, exist_ok=True)
    library = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    shutil.copy2(library, static / "plotly.min.js")
    app.config.html_static_path.append(str(static))
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", hide_colon, priority=100)
    app.connect("autodoc-process-docstring", show_colon, priority=900)
