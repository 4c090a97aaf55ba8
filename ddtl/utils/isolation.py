"""No command runs what happens to be in the folder where it was typed: a ``random.py`` there may be a stranger's.

Python itself puts that folder on the path of modules for ``-m`` and ``-c``, with which child processes are started, and
for an empty entry of PYTHONPATH. A script's own folder stays: that of ``train.py`` is the checkout.

Only what Python has loaded before any program is imported here: this must come first.
"""

import os
import sys

NEUTRAL_FOLDER = sys.prefix  # a folder without modules or settings, for what a library would read from the current one
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # the folder that contains ddtl


def isolate() -> None:
    """Take the current folder off this process's path of modules, and off that of all processes that it starts.

    To be called before anything else is imported. Does nothing to the folder that this package was imported from.

    Raises:
        SystemExit: on Windows, whose lack of signals would end the imports that follow in a traceback.
    """
    if os.name == "nt":
        sys.stderr.write("error: ddtl needs Linux or another POSIX system. Install it in WSL 2: wsl --install\n")
        sys.exit(2)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    relative = {os.path.abspath(entry) for entry in given if not os.path.isabs(entry)} if has_folder() else set()
    by_module = getattr(sys.modules["__main__"], "__spec__", None) is not None and not sys.flags.safe_path
    first = sys.path[:1] if by_module else []  # put there for -m
    unwanted = {"", *relative, *first} - {_PACKAGE}
    sys.path[:] = [entry for entry in sys.path if entry not in unwanted]
    isolate_children()
    skip_matplotlibrc()


def isolate_children() -> None:
    """Have processes that this one starts import nothing from their current folder, and this package all the same."""
    entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(entry)]
    is_installed = os.path.basename(_PACKAGE) in ("site-packages", "dist-packages")
    if not is_installed and _PACKAGE not in entries and os.pathsep not in _PACKAGE:
        entries.insert(0, _PACKAGE)  # a checkout need not be installed
    if entries:
        os.environ["PYTHONPATH"] = os.pathsep.join(entries)
    else:
        os.environ.pop("PYTHONPATH", None)
    os.environ["PYTHONSAFEPATH"] = "1"


def skip_matplotlibrc() -> None:
    """Have Matplotlib, which torchmetrics imports, not read ``matplotlibrc`` in the current folder: a pipe?"""
    if not has_folder() or not os.path.lexists("matplotlibrc"):
        return
    here = os.getcwd()
    os.chdir(NEUTRAL_FOLDER)
    try:
        __import__("matplotlib")
    finally:
        os.chdir(here)


def is_checkout() -> bool:
    """Return whether the current folder is the checkout that this package was imported from."""
    return has_folder() and os.path.realpath(os.curdir) == os.path.realpath(_PACKAGE)


def has_folder() -> bool:
    """Return whether the current folder still exists."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True
