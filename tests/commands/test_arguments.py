"""The words behind a command: values, mistakes, help and completion, all from one declaration."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import subprocess
import time
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from ddtl.commands import cli, completion
from ddtl.commands.arguments import PATHS, Command, OutputFile, OutputFolder
from ddtl.schema.section import Section
from ddtl.utils.errors import UserError


class Settings(Section):
    kind: Literal["one", "two"] = Field("one", description="which")
    images: int = Field(200, ge=1, description="how many")
    share: Annotated[float, Field(gt=0, lt=1, description="of them")] = 0.05
    most: int | None = Field(None, ge=1, description="at once; else as before")
    yes: bool = Field(False, description="true does not ask")
    from_: str | None = Field(None, alias="from", description="a file to take them from")
    output: OutputFolder | None = Field(None, description="a folder")
    json_: OutputFile | None = Field(None, alias="json", description="a file")


COMMAND = Command(
    "toy",
    Settings,
    intro="Do a thing.",
    examples=(("toy RUN", "does it"),),
    passes=PATHS,
    flags={"--yes": "yes=true"},
)


def test_values_are_of_their_types(tmp_path: Path) -> None:
    typed = COMMAND.read(
        ["RUN", "kind=two", "images=3", "share=1e-2", "--yes", "from=a=b", f"output={tmp_path}", "paths.data_dir=/x"]
    )
    found = typed.settings
    assert (found.kind, found.images, found.share, found.yes, found.from_) == ("two", 3, 0.01, True, "a=b")
    assert found.output == tmp_path
    assert found.most is None
    assert (typed.rest, typed.passed) == (("RUN",), ("paths.data_dir=/x",))
    assert COMMAND.read([]).settings == Settings()
    assert COMMAND.read(["most=null", "share=0.5"]).settings.share == 0.5


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("images=0", "images=0: must be at least 1."),
        ("images=1.5", "images=1.5: must be a whole number."),
        ("images=many", "images=many: must be a whole number."),
        ("share=1", "share=1: must be less than 1."),
        ("share=nan", "share=nan: must be less than 1."),
        ("yes=1", "yes=1: must be true or false."),
        ("kind=tow", "kind=tow: must be one of one, two. Did you mean two?"),
        ("most=0", "most=0: must be at least 1, or null."),
        ("output=", "output=: name a folder; it is made where there is none."),
        ("json=/", "json=/: name a file in a folder that is there."),
        ("json=", "json=: names nothing."),
        ("imgaes=3", "imgaes=3: not a setting of `ddtl toy`. Did you mean images?"),
        ("--yess", "--yess: not a setting of `ddtl toy`. Did you mean --yes?"),
        ("paths.data_dri=/x", "Did you mean paths.data_dir?"),
    ],
)
def test_a_mistake_is_one_line(word: str, says: str) -> None:
    with pytest.raises(UserError) as raised:
        COMMAND.read(["RUN", word])
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(UserError) as raised:
        COMMAND.read(["images=0", "share=2", "nonsense=1"])
    lines = str(raised.value).splitlines()
    assert [line.partition("=")[0] for line in lines] == ["nonsense", "images", "share"]


def test_a_file_whose_name_has_an_equals_sign_is_no_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.png").touch()
    assert COMMAND.read(["a=b.png"]).rest == ("a=b.png",)
    with pytest.raises(UserError, match="not a setting"):
        COMMAND.read(["c=d.png"])


def test_the_help_names_every_setting_with_its_default_and_choices() -> None:
    page = COMMAND.help()
    assert page.startswith("Do a thing.\n\n  ddtl toy RUN    does it\n\n")
    for words in ("kind=one", "(one or two)", "images=200", "share=0.05", "most=…", "yes=false", "from=…",
                  "output=FOLDER", "json=FILE", "paths.cache_dir=…", "--yes"):  # fmt: skip
        assert words in page
    assert max(map(len, page.splitlines())) <= 120


DECLARED = {
    name: found
    for name, (module, _) in cli.COMMANDS.items()
    if (found := getattr(import_module(module), "COMMAND", None)) is not None
}


@pytest.mark.parametrize("name", DECLARED)
def test_every_command_explains_all_that_it_takes(name: str) -> None:
    command = DECLARED[name]
    page = command.help()
    assert command.name.partition(" ")[0] == name
    assert all(f"  {key}=" in page for key in (*command.keys, *command.passes))
    assert all(about.description for about in command.keys.values())
    assert max(map(len, page.splitlines())) <= 120
    assert command.read([]).settings == command.schema(), "its defaults are sound"


@pytest.mark.parametrize("name", ["evaluate", "predict", "explain", "export"])
def test_a_mistyped_option_is_no_folder(name: str) -> None:
    with pytest.raises(UserError, match=rf"^--hep: no such option of `ddtl {name}`\. Did you mean --help\?"):
        cli.main([name, "--hep"])


def test_a_setting_that_may_be_empty_says_what_that_means() -> None:
    with pytest.raises(UserError) as error:
        DECLARED["predict"].read(["patients=x"])
    assert str(error.value).startswith("patients=x: must be folder, or empty (patients=). folder: the images of a ")
    assert "else the patient in the DICOM headers" in str(error.value)


# --- completion ------------------------------------------------------------------------------------------------------

_ASK = """
source {script}
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
COMP_LINE={line}; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_ddtl 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "ddtl.bash"
    path.write_text(completion._bash(completion.words()))
    return path


@pytest.mark.parametrize(
    ("line", "words", "found"),
    [
        ("ddtl pre", ["ddtl", "pre"], ["predict"]),
        ("ddtl train dataset=cov", ["ddtl", "train", "dataset", "=", "cov"], ["covid19ct"]),
        ("ddtl export RUN form", ["ddtl", "export", "RUN", "form"], ["format=onnx", "format=safetensors"]),
        ("ddtl export RUN format=", ["ddtl", "export", "RUN", "format", "="], ["onnx", "safetensors"]),
        ("ddtl runs cl", ["ddtl", "runs", "cl"], ["clean"]),
        ("ddtl sweep search=lr_u", ["ddtl", "sweep", "search", "=", "lr_u"], ["lr_unfreeze"]),
        ("ddtl ru", ["ddtl", "ru"], ["runs"]),
        ("ddtl sweep n_", ["ddtl", "sweep", "n_"], ["n_trials="]),
        ("ddtl sweep prev", ["ddtl", "sweep", "prev"], ["preview="]),
        ("ddtl train -", ["ddtl", "train", "-"], ["--help", "--cfg", "-m"]),
        ("ddtl data fetch cov", ["ddtl", "data", "fetch", "cov"], ["covid19ct"]),
        ("ddtl data cache d", ["ddtl", "data", "cache", "d"], ["delete"]),
        ("ddtl evaluate RUN evaluation.des", ["ddtl", "evaluate", "RUN", "evaluation.des"],
         ["evaluation.design=case_control", "evaluation.design=cohort"]),
        ("ddtl evaluate RUN mod", ["ddtl", "evaluate", "RUN", "mod"], []),
        # A file as well as a setting may be meant, and a file's name is one word, blanks and all.
        ("ddtl report s", ["ddtl", "report", "s"], ["share=true", "share=false", "sc an.png", "scans"]),
        # Nothing: bash completes the file itself, and so escapes its blanks.
        ("ddtl report sc", ["ddtl", "report", "sc"], []),
        ("ddtl predict RUN output=", ["ddtl", "predict", "RUN", "output", "="], []),
        ("ddtl predict RUN output=s", ["ddtl", "predict", "RUN", "output", "=", "s"], []),
    ],
)  # fmt: skip
def test_bash_completes(script: Path, tmp_path: Path, line: str, words: list[str], found: list[str]) -> None:
    for name in ("runs", "scans"):
        (tmp_path / name).mkdir()
    (tmp_path / "sc an.png").touch()
    asked = _ASK.format(script=shlex.quote(str(script)), line=shlex.quote(line), words=shlex.join(words))
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True, cwd=tmp_path)
    offered = [each for each in done.stdout.splitlines() if each]
    assert sorted(offered) == sorted(found)


def test_bash_takes_no_word_for_the_name_of_a_file(script: Path) -> None:
    asked = f"source {shlex.quote(str(script))}; complete -p ddtl"
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "complete -o default -F _ddtl ddtl\n", "else = is escaped, and a folder's / put behind a word"


def test_evaluate_is_offered_nothing_that_it_refuses() -> None:
    from ddtl.training.rescore import _KEYS, _SECTIONS

    offered = [word.partition("=")[0] for word in completion.words()["evaluate"] if "=" in word]
    assert all(key in _KEYS or key.split(".")[0] in _SECTIONS for key in offered)
    assert "evaluation.threshold" in offered
    assert "evaluation.test" not in offered


def test_every_shell_has_a_script_with_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in completion.SHELLS:
        assert cli.main(["completion", shell]) == 0
        printed = capsys.readouterr().out
        assert all(name in printed for name in cli.COMMANDS)
        assert "dataset=covid19ct" in printed
    with pytest.raises(UserError, match="Did you mean fish"):
        cli.main(["completion", "fsh"])


def _shell(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name} here")
    return path


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ddtl pre", ["predict"]),
        ("ddtl train dataset=cov", ["dataset=covid19ct"]),
        ("ddtl sweep search=lr_u", ["search=lr_unfreeze"]),
        ("ddtl data fe", ["fetch"]),
        ("ddtl predict RUN output=sc", ["output=scans/"]),
        ("ddtl report sc", ["scans/"]),
    ],
)
def test_fish_completes(tmp_path: Path, line: str, found: list[str]) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "ddtl.fish").write_text(completion._fish(completion.words()))
    asked = f"source ddtl.fish; complete -C {shlex.quote(line)}"
    command = [_shell("fish"), "--no-config", "-c", asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert [each.partition("\t")[0] for each in done.stdout.splitlines()] == found


# The line as it is after Tab goes into a file when Ctrl-X is typed; ready is where keys are read one by one.
_ZSH = """
fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D
shown() { print -r -- "$BUFFER" >> shown; BUFFER= }; zle -N shown; bindkey '^X' shown
zle-line-init() { print -r -- ready > ready }; zle -N zle-line-init
"""


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ddtl pre", "ddtl predict "),
        ("ddtl train dataset=cov", "ddtl train dataset=covid19ct "),
        ("ddtl sweep search=lr_u", "ddtl sweep search=lr_unfreeze "),
        ("ddtl sweep n_", "ddtl sweep n_trials="),
        ("ddtl data fe", "ddtl data fetch "),
        ("ddtl predict RUN output=sc", "ddtl predict RUN output=scans/"),
        ("ddtl compare sca", "ddtl compare scans/"),
    ],
)
def test_zsh_completes(tmp_path: Path, line: str, found: str) -> None:
    zsh = _shell("zsh")
    (tmp_path / "scans").mkdir()
    (tmp_path / "_ddtl").write_text(completion._zsh(completion.words()))
    (tmp_path / "begin").write_text(_ZSH)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [zsh, "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, start_new_session=True,
        env={**os.environ, "TERM": "dumb"},
    ) as process:  # fmt: skip
        try:
            os.close(theirs)
            os.write(ours, b"source ./begin\n")
            for name, keys in (("ready", f"{line}\t\x18"), ("shown", "")):
                end = time.monotonic() + 240
                while not (tmp_path / name).exists() or not (tmp_path / name).read_text().endswith("\n"):
                    assert time.monotonic() < end, f"zsh does not write {name}"
                    if select.select([ours], [], [], 0.05)[0]:
                        os.read(ours, 65536)  # else it waits for its screen to be read
                os.write(ours, keys.encode())
        finally:
            process.kill()
            os.close(ours)
    assert (tmp_path / "shown").read_text().splitlines()[0] == found
