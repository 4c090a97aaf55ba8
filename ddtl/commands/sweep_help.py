"""``sweep.py --help``: the settings of a sweep, read from ``conf/sweep.yaml`` and its groups."""

from __future__ import annotations

from ddtl.config.help_page import file_comments, group_rows, row
from ddtl.config.where import conf_dir, option_file, options

_GROUPS = ("engine", "study")  # whose keys are listed

_HEAD = """\
Search for the settings that train the best model, on validation; then score the best ones on the test set, once.
The same command resumes a search that was stopped.

  python sweep.py search=lr_unfreeze dataset=covid19ct n_trials=60      search a space of conf/search/
  python sweep.py search=lr_unfreeze dataset=covid19ct preview=10       show ten of its trials, and stop
  python sweep.py search=lr 'search.space.optimizer.lr={float: [1e-4, 1e-3], log: true}'
                                                                        with other bounds; null takes a parameter out
  python sweep.py optimizer.lr=1e-4,1e-3 finetune=full,lp_ft            a grid: each combination of the values
  python sweep.py dataset=covid19ct dataset.protocol=kfold 'dataset.fold=range(5)'
  python sweep.py study=cross_dataset 'study.datasets=[covid19ct,sarscov2ct]' study.seeds=5
                                                                        train on each, test on all, with intervals

Words that are not listed here are settings of train.py, the same for all trials: see `python train.py --help`.

Flags
  --help, -h        this page
  --cfg job         print every setting as it would be used, and stop

Groups: take another option with group=option; * marks the one taken if none is named
"""

_MIDDLE = """
Values: change one with key=value
"""

_FOOT = """
A space is a file of conf/search/: KEY: {float: [low, high], log: true}, {int: [low, high]} or {choice: [a, b]}, and
below an option of a choice the parameters that it brings. A key is any setting or group of train.py.
Exit codes: 0 done, 1 failed in the middle (the same command resumes), 2 a mistake in the command, 129/130/143 stopped.
"""


def render() -> str:
    """Return the page as text."""
    folder = conf_dir()
    comments = file_comments(folder / "sweep.yaml", "")
    for group in _GROUPS:
        for option in options(group):
            comments = {**file_comments(option_file(group, option), f"{group}."), **comments}
    kinds = tuple(f"{group}.kind" for group in _GROUPS)
    own = (key for key in comments if not key.startswith(("- ", "defaults", *kinds)))
    keys = [row(f"  {key}", comments[key]) for key in sorted(own, key=_order) if comments[key]]
    return "\n".join([_HEAD, *group_rows("sweep"), _MIDDLE, *keys, _FOOT])


def _order(key: str) -> tuple[int, bool]:
    """Return the sweep's own keys before those of a group, the short ones first."""
    return next((1 + i for i, group in enumerate(_GROUPS) if key.startswith(f"{group}.")), 0), "." in key
