"""The one answer to where the configuration files lie."""

from pathlib import Path


def conf_dir() -> Path:
    """``conf/`` inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"
