"""Every command of README and docs, pasted into bash as it stands, means something to the program that it calls."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from ddtl.commands import cli, launch, multirun, train
from ddtl.config import command_line, load
from ddtl.config.where import OWN
from tests.support.doc_commands import PAGES, PROGRAMS, ROOT, Call, Line, furnish, lines, placed, typed

LINES = [line for page in PAGES for line in lines(page)]
# Whole commands that are quick and write nothing but what they are asked for; they are run.
RUN = ("finetune", "runs", "report", "schema", "--help", "--version")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("typed")
    furnish(folder)
    return folder


def test_the_pages_have_commands() -> None:
    assert len(LINES) > 90
    assert {line.page for line in LINES} >= {"README.md", "own_data.md", "slurm.md", "studies.md", "sweeps.md"}


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_command_works_as_typed(line: Line, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = typed(line, here)
    monkeypatch.chdir(here)
    for call in calls:
        for name, value in call.step.items():
            monkeypatch.setenv(name, value)
        if call.step:
            monkeypatch.setenv("SLURM_PROCID", "0")
        understood(call, here, monkeypatch)


def understood(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That ddtl, or what else is called, takes the words."""
    monkeypatch.setenv(OWN, "")
    words = launch._take_own_conf(placed(call.words, here))
    match call.program, words:
        case "python", ["train.py", *rest]:
            trains(rest)
        case "python", ["sweep.py", *rest]:
            sweeps(rest)
        case "ddtl", _:
            commands(words, monkeypatch)
        case _:
            ELSEWHERE[call.program](words)


def trains(words: Sequence[str]) -> None:
    command = command_line.parse(words)
    if command.help or command.show_config:
        assert train.main(words) == 0
    elif command.multirun:
        assert len(multirun.plan_jobs(command.overrides)) > 1
    else:
        load.check(command.overrides)


def sweeps(words: Sequence[str]) -> None:
    from ddtl.commands import sweep as command
    from ddtl.studies import settings as studies
    from ddtl.sweeps.plan import settings

    asked = command_line.parse(words)
    overrides = asked.overrides
    if asked.help:
        assert command.main(words) == 0
    elif studies.is_requested(overrides):
        assert studies.read(overrides).jobs
    elif any(word.startswith("preview=") for word in words):
        assert command.main(words) == 0
    else:
        settings.read(overrides)


def commands(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of ``ddtl``: run where that is quick, else read by what reads them."""
    name, *rest = words
    if name in RUN or (name == "data" and rest == ["list"]):
        assert cli.main(words) == 0
    elif name == "dashboard":
        served = []

        def serve(*requested: object) -> int:
            served.append(requested)
            return 0

        monkeypatch.setattr("ddtl.commands.dashboard.serve", serve)
        assert cli.main(words) == 0
        assert len(served) == 1
    elif name == "train":
        trains(rest)
    elif name == "sweep":
        sweeps(rest)
    else:
        READ[name](rest)


def evaluated(words: list[str]) -> None:
    from ddtl.records.run_folder import RunFolder
    from ddtl.training import rescore

    saved, _ = rescore.load_run(RunFolder(Path(words[0])))
    rescore.read_request(saved, words[1:])


def compared(words: list[str]) -> None:
    from ddtl.commands import compare
    from ddtl.reports.comparison import runs as found

    typed = compare.COMMAND.read(words, problems=compare._problems)
    found.read([Path(word) for word in typed.rest], typed.settings.split)


def data(words: list[str]) -> None:
    from ddtl.commands import data as commands

    if words[0] == "cache":
        commands.CACHE.read(words[1:], problems=commands._cache_problems)
        return
    if words[0] == "show":
        commands._read_show(words[1:])
        return
    origins, _, source = commands._read(words[0], words[1:])
    assert words[0] in ("fetch", "verify")
    assert origins
    assert source is None or source.exists()


def parsed(name: str) -> Callable[[list[str]], object]:
    """Of a command about one run: what is behind the run."""
    return lambda words: importlib.import_module(f"ddtl.commands.{name}").COMMAND.read(words[1:])


# How each of ddtl's own words is read without doing what it asks for.
READ: dict[str, Callable[[list[str]], object]] = {
    "evaluate": evaluated,
    "compare": compared,
    "data": data,
    "audit": lambda words: importlib.import_module("ddtl.commands.audit").parse(words),
    "predict": parsed("predict"),
    "explain": parsed("explain"),
    "export": parsed("export"),
    "lr-find": lambda words: importlib.import_module("ddtl.commands.lr_find").parse(words),
}


def tool(words: list[str]) -> None:
    """A benchmark, a script of tools or some tests: minutes of work, so only that they are there and know the words."""
    assert words[0] == "-m" or words[0].startswith("tools/"), words
    if words[:2] == ["-m", "pytest"]:
        _, _, tests, option, part = words
        assert option == "-k"
        assert re.search(rf"^def test_\w*{part}", (ROOT / tests).read_text(encoding="utf-8"), re.MULTILINE), words
        return
    path = ROOT / (f"{words[1].replace('.', '/')}.py" if words[0] == "-m" else words[0])
    assert path.is_file(), path
    text = path.read_text(encoding="utf-8")
    for flag in (word for word in words if word.startswith("--")):
        assert f'"{flag}"' in text, f"{path.name} knows no {flag}"


def target(words: list[str]) -> None:
    """Make would set up an environment or run all tests: only that there is such a target."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        is_target = re.search(rf"^{word}:", makefile, re.MULTILINE) is not None
        assert is_target or (ROOT / "tests" / word.removeprefix("test-")).is_dir(), word


def sync(words: list[str]) -> None:
    """W&B would send a run to its server: only that the folder is one, which the shell has found."""
    assert words[0] == "sync"
    assert all(Path(word).is_dir() for word in words[1:])


def requeue(words: list[str]) -> None:
    raise AssertionError("only a signal calls this")


# What is called besides ddtl, each with why it is not run.
def install(words: list[str]) -> None:
    """Packages would be fetched: only that each extra, each lock and the wheel's name is what this checkout has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wheel = f"{project['name']}-{project['version']}-py3-none-any.whl"
    assert words[0] in ("install", "download")
    for word in words[1:]:
        name, _, extras = word.removesuffix("]").partition("[")
        assert set(extras.split(",")) <= {"", *project["optional-dependencies"]}, word
        if name.endswith(".whl"):
            assert name == f"dist/{wheel}"
        elif name.endswith(".lock"):
            assert (ROOT / name).is_file(), name
        else:
            assert name in ("ddtl", "wheels") or name in INSTALL_FLAGS, word


INSTALL_FLAGS = ("-r", "-d", "--require-hashes", "--no-deps", "--no-index", "--find-links")


def build(words: list[str]) -> None:
    """A wheel, which tests/project/test_wheel.py builds and installs."""
    assert words == ["build", "--wheel", "--no-build-isolation", "--out-dir", "dist"]


def container(words: list[str]) -> None:
    """Minutes and a service that not every machine has: only that its build knows the arguments, and ddtl the words."""
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    action, *rest = words
    if action == "build":
        assert rest[-1] == "."
        for word in (after for flag, after in pairwise(rest) if flag == "--build-arg"):
            assert f"\nARG {word.partition('=')[0]}=" in recipe, word
        return
    assert action == "run"
    image = next(i for i, word in enumerate(rest) if word in ("ddtl", "ddtl-cpu"))
    assert all(word[0] == "-" or flag in ("-v", "--gpus") for flag, word in pairwise(["", *rest[:image]]))
    assert rest[image + 1] == "train"
    trains(rest[image + 2 :])


def served_store(words: list[str]) -> None:
    assert words[:2] == ["server", "--backend-store-uri"]
    assert words[2].startswith("sqlite:////")


ELSEWHERE: dict[str, Callable[[list[str]], None]] = {
    "python": tool,
    "make": target,
    "wandb": sync,
    "scontrol": requeue,
    "pip": install,
    "uv": build,
    "docker": container,
    "mlflow": served_store,
}


def test_the_shell_hands_over_what_is_typed(here: Path) -> None:
    """The test of this test: quotes, lists and line breaks arrive as bash makes them of the line."""
    (call,) = typed(Line("x", 1, "python train.py dataset.patient_regex='(P\\d+)_' \\\n  \"a=[b, c]\"  # why"), here)
    assert call == Call("python", ("train.py", r"dataset.patient_regex=(P\d+)_", "a=[b, c]"), {})
    with pytest.raises(AssertionError):
        typed(Line("x", 1, "python train.py (P)"), here)
    with pytest.raises(AssertionError, match="no program"):
        typed(Line("x", 1, "true"), here)


def test_a_command_that_does_not_work_is_found(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    for text in (
        "python train.py optimiser.lr=1",
        "ddtl evaluate NOWHERE",
        "make nothing",
        "python -m benchmarks.none",
    ):
        (call,) = typed(Line("x", 1, text), here)
        with pytest.raises((AssertionError, ValueError)):
            understood(call, here, monkeypatch)


_INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )*(?:\.venv/bin/|python |ddtl |make |torchrun )[^`\n]+)`")


def inline(path: Path) -> Iterator[Line]:
    """The commands that stand within a page's sentences."""
    text = path.read_text(encoding="utf-8")
    for match in _INLINE.finditer(text):
        yield Line(path.name, text[: match.start()].count("\n") + 1, match[1])


INLINE = [line for page in PAGES for line in inline(page)]
# With a "…", or a capital word that stands for a value of any kind, a line is the shape of a command and none itself.
SHAPES = re.compile(r"…|COMMAND|POOLED_RUN|sweeps/NAME|(fetch|verify) NAME|finetune=mine|pre-commit")


@pytest.mark.parametrize("line", [line for line in INLINE if not SHAPES.search(line.text)], ids=str)
def test_a_command_within_a_sentence_works(line: Line, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = line.text in {f"ddtl {name}" for name in cli.COMMANDS} | {"ddtl runs clean", "ddtl data fetch"}
    if bare or line.text == "ddtl data verify":
        return  # the name of a command
    test_a_command_works_as_typed(line, here, monkeypatch)


def test_programs_are_known() -> None:
    assert set(ELSEWHERE) <= set(PROGRAMS)
    assert importlib.util.find_spec("benchmarks") is not None or ROOT in map(Path, sys.path)


def test_the_sampler_of_the_guide_can_be_made_here() -> None:
    """What CONTRIBUTING offers to paste works with what `make env` installs."""
    from ddtl.sweeps.plan import settings

    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"`python sweep\.py (\S+ sampler\.name=[^`]+)`", text)
    assert settings.read(shlex.split(found)).settings.sampler.name in found


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_link_within_the_docs_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, heading = link.partition("#")
        if ":" in name or name.startswith("generated/"):  # made by `make docs`, which fails where a link leads nowhere
            continue
        leads_to = page.parent / name if name else page
        assert leads_to.exists(), link
        if heading:
            assert heading in {_anchor(found) for found in re.findall(r"^#+ (.+)$", leads_to.read_text(), re.M)}, link


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
