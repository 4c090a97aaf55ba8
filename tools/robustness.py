"""Write ``docs/robustness.md`` from the inputs of the tests: ``python -m tools.robustness``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.project import test_robust_data, test_robust_dicom, test_robust_machine

PAGE = Path(__file__).resolve().parents[1] / "docs" / "robustness.md"

Row = tuple[str, str]

HEAD = """\
# Right, or refused

What people's files, folders and machines are like, and what ddtl does with them: each input below is made by a script
and run by a test (`tests/project/test_robust_data.py`, `test_robust_dicom.py`, `test_robust_machine.py`);
`python -m tools.robustness` writes this page from them.

Refused means: exit code 2, one message that names the fix, before anything slow, and nothing is left behind. Warned
means: once in the log, in `results.json` (`warnings`, and the files or patients in `warning_names`) and on the page,
which names none of them. A file of many that `ddtl predict` cannot use is
excluded by name, and the exit code is 1.
"""

# What whole tests check that are not single inputs.
MORE: tuple[tuple[str, tuple[Row, ...]], ...] = (
    (
        "Images in any form",
        (
            (
                "one image as TIFF: 8 or 16 bits, gray, RGB, with transparency, either byte order, WhiteIsZero, "
                "strips or tiles, planes, six compressions, predictor, BigTIFF",
                "the same grey levels (property test)",
            ),
            ("as gray PNG of 1, 2, 4, 8 and 16 bits, interlaced", "the same grey levels (property test)"),
            ("as L, RGB, RGBA, LA, P, CMYK and 1 in PNG, BMP and TIFF", "the same grey levels (property test)"),
            ("any further chunk of a PNG, any application segment of a JPEG", "changes no pixel (property test)"),
            ("JPEG: gray, colour, progressive, subsampled, CMYK", "within 3 of 256 levels of another decoder"),
            ("TIFF of 10, 12 and 14 packed bits", "scaled so that the largest value is white"),
            ("a deep TIFF cut off anywhere", "refused"),
        ),
    ),
    (
        "CT series to train on (`tests/data/test_dicom_dataset.py`, `test_nifti.py`)",
        (
            ("three windows where there are no Hounsfield units, or of another number than the run's", "refused"),
            (
                "localizers, dose reports, screenshots, maps, reformats, MR among the slices",
                "counted by kind, not used",
            ),
            ("a series with a gap, two orientations or acquisitions, two slices in one place", "used, named"),
            ("a slice twice", "used once, counted"),
            ("text burned into the pixels", "used, counted"),
            ("names in every text element of the headers", "in no record, log, page or cache"),
            ("a table of labels with two answers, an empty id, another split", "refused by line, without its content"),
            ("a NIfTI volume with axes in any of 48 orders and directions", "the same slices to the bit"),
            ("a gzip bomb behind a volume; a header that claims more than 2 GiB", "not unpacked; refused"),
            ("a volume without an affine, oblique by 45°, of several time points, with NaN", "refused"),
        ),
    ),
    (
        "Scores and records",
        (
            (
                "a test set on which a run is worse than chance, its interval below 0.5",
                "warned of as a possible inversion",
            ),
            (
                "`ddtl evaluate` of a run on own classes in any order",
                "matched by name; what has another name is warned of",
            ),
            ("own classes that the names do not match", "refused, with the two `dataset.class_map` to choose from"),
            ("16-bit files for a run that was trained through a window", "predicted through the same window"),
            ("16-bit files for a run that was not", "excluded: their meaning is not known"),
        ),
    ),
    (
        "From Python",
        (
            (
                "an array of floats, of 4 dimensions, empty, masked",
                "refused: its number, type and shape",
            ),
            ("files and arrays at once; `patients=folder` with arrays", "refused in one line"),
            (
                "a table without `path`, a file twice or of two patients",
                "refused: column, row or file",
            ),
            ("patients' numbers with gaps among them", "`7.0` is patient `7`; a missing one is unknown"),
            ("`compare()` of one run, `load(None)`, `runs` of a folder that is not there", "a `UserError` in one line"),
            ("NumPy's numbers in settings", "the numbers that they are"),
            ("Ctrl-C or a notebook's stop button", "`KeyboardInterrupt`; the same call resumes to the same bit"),
        ),
    ),
    (
        "Plugins and options of one's own",
        (
            ("a plugin that cannot be imported, or ends the process", "refused: its name and the error"),
            ("a loss, network, dataset or sampler with a name that is taken", "refused"),
            ("a network that does not fit its specification", "refused: it is tried with an image"),
            ("a run whose plugin is absent or changed", "refused by commands that need it, with its name and hash"),
            ("a module in the current folder", "not imported"),
            ("a file with the name of an option of ddtl's, in no group's folder, or twice", "refused: the file"),
        ),
    ),
    (
        "Failures of a run and of a plugin",
        (
            (
                "a kill -9, Ctrl-C or a full disk while images are decoded, again and again; any byte of what that "
                "left changed or cut off",
                "the next command decodes the rest; the cache is the same to the byte (property test)",
            ),
            (
                "a loss that becomes infinite or no number",
                "exit 1; `ddtl runs` and the dashboard show `failed` with the reason",
            ),
            (
                "code of a plugin that raises",
                "exit 1, a line with the plugin, the file and the line; the traceback is in `log.txt`",
            ),
            ("`ddtl compare` of other images with the same names", "refused, by the hashes of the images' contents"),
        ),
    ),
    (
        "Notes, tags and logs of a run",
        (
            (
                "a note of over 2,000 characters, control characters, tags with blanks or markup",
                "refused",
            ),
            (
                "`notes.json` that is damaged, huge, a pipe or a link",
                "costs its cells; the row shows the reason",
            ),
            ("markup in a note", "shown as text"),
            (
                "`views.json` that is damaged or a link; an address that is not a view",
                "the dashboard shows why; commands refuse and leave the file; refused",
            ),
            ("`log.txt` that is a link", "not followed; the training continues"),
            (
                "MLflow's store: a link, a dead server, a password in its URL",
                "a warning; a password is refused",
            ),
        ),
    ),
)


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for heading, rows in sections():
        parts.append(f"## {heading}\n\n| input | what ddtl does |\n|---|---|\n")
        parts[-1] += "".join(f"| {cell(given)} | {cell(does)} |\n" for given, does in rows)
    return "\n".join(parts)


def sections() -> Iterator[tuple[str, Sequence[Row]]]:
    """Headings with their rows."""
    cases = test_robust_data.CASES
    for kind in dict.fromkeys(case.kind for case in cases):
        yield kind, [(case.given, case.does) for case in cases if case.kind == kind]
    yield from MORE
    with TemporaryDirectory() as folder:
        yield "DICOM files for `ddtl predict`", test_robust_dicom.rows(Path(folder))
    yield (
        "Machines, schedulers and shells",
        [_of_machine(case) for case in (*test_robust_machine.ENVIRONMENTS, *test_robust_machine.SETTINGS)],
    )


def _of_machine(case: test_robust_machine.Case) -> Row:
    typed = " ".join([*(f"{name}={shlex.quote(value)}" for name, value in case.environment.items()), *case.words])
    short = typed if len(typed) <= 80 else f"{typed[:77]}…"
    says = ", ".join(f"“{text}”" for text in case.says if len(text) < 60)
    return f"{case.name}: `{short}`", f"refused; the message says {says}" if case.code else "trains"


def cell(text: str) -> str:
    """Return text as a cell of a table."""
    return " ".join(text.replace("|", "\\|").split())


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
