"""Which folder a word of the command line means: the folder itself, or the one run with that in its name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from ddtl.utils.errors import UserError
from ddtl.utils.suggest import did_you_mean

_KINDS = ("run", "sweep", "study", "audit")


def run_folder(name: str, argv: Sequence[str]) -> Path:
    """Return the folder of the run that the first word behind ``ddtl NAME`` means.

    Raises:
        UserError: it is a mistyped option, such as ``--hep``, or a part of the names of several runs.
    """
    word = argv[0]
    if word.startswith("-") and not Path(word).exists():
        raise UserError(
            f"{word}: no such option of `ddtl {name}`.{did_you_mean(word, ('--help',))} The folder of a run is its "
            f"first word: ddtl {name} RUN."
        )
    return named_folder(word, ("run",))


def named_folder(word: str, kinds: Collection[str] = _KINDS) -> Path:
    """Return the folder that a word names: a path, or else a part of just one name in the runs folder.

    Args:
        word: as it was typed.
        kinds: what it may be: ``run``, ``sweep``, ``study`` or ``audit``.

    Returns:
        The path as given where there is neither such a folder nor such a name.

    Raises:
        UserError: several are called so.
    """
    path = Path(word).expanduser()
    if path.exists() or not word.strip():
        return path
    from ddtl.config.load import load
    from ddtl.dashboard.index import Index

    root = Path(load([], writes=False).paths.runs_dir)
    if not root.is_dir():
        return path
    found = [row.path for row in Index(root).rows() if row.kind in kinds and word in row.path]
    if len(found) > 1:
        some = ", ".join(sorted(found)[:3])
        raise UserError(f"{word}: {len(found)} folders in {root} are called so, as {some}. Give more of the name.")
    return root / found[0] if found else path
