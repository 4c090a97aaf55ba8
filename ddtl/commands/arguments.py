"""How the words behind ``ddtl COMMAND`` are read: a command declares its settings once, as a pydantic model.

From that come the values with their bounds and choices, every mistake in one message with a did-you-mean, the page of
``--help`` and the words of the shell's completion. What is not a setting, as a run's folder, the command takes itself.

Example::

    class Settings(Section):
        images: Annotated[int, Field(ge=1, description="of the run's dataset, for the check")] = 200
        output: OutputFolder | None = Field(None, description="else RUN/export")

    COMMAND = Command("export", Settings, intro="Export a trained run.", …)

    def main(argv):
        words = COMMAND.read(argv)         # .settings is a Settings, .rest what is none of its keys
"""

from __future__ import annotations

import logging
import sys
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field

from ddtl.config.convert import convert
from ddtl.config.where import groups
from ddtl.schema.section import Section
from ddtl.utils.errors import UserError
from ddtl.utils.files import output_folder
from ddtl.utils.suggest import closest, did_you_mean

log = logging.getLogger(__name__)

S = TypeVar("S", bound=Section)

_WIDTH = 120  # of a help page
_HELP = ("--help", "-h")


def _existing_place(path: Path) -> Path:
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError("name a file in a folder that is there.")
    return path


def _path(value: Any) -> Any:
    if isinstance(value, str):
        if not value:
            raise ValueError("names nothing.")
        return Path(value).expanduser()
    return value


OutputFile = Annotated[Path, BeforeValidator(_path), AfterValidator(_existing_place)]
OutputFolder = Annotated[Path, BeforeValidator(lambda value: output_folder(value) if isinstance(value, str) else value)]
Folder = Annotated[Path, BeforeValidator(_path)]


class RunsFolder(Section):
    """The setting of commands that search the folder of runs."""

    runs_dir: Folder = Field(Path("runs"), alias="paths.runs_dir", description="the folder of runs")


# Where a run's images and the cache are; on another machine than the run's they are in other folders.
PATHS: Mapping[str, str] = {
    "paths.data_dir": "where the run's images are, as for train.py",
    "paths.cache_dir": "where the cache of decoded images is, as for train.py",
}


@dataclass(frozen=True)
class Words(Generic[S]):
    """What was typed behind a command.

    Attributes:
        settings: the values.
        rest: words that are not settings, in their order.
        passed: words for the configuration of train.py, such as ``paths.data_dir=…``.
    """

    settings: S
    rest: tuple[str, ...]
    passed: tuple[str, ...]


def name_something(command: str, help_page: str) -> NoReturn:
    """Answer a command behind which nothing is typed.

    Raises:
        UserError: always.
    """
    sys.stdout.write(f"{help_page}\n")
    raise UserError(f"ddtl {command}: nothing is named behind it. `ddtl {command} --help` prints the page above.")


@dataclass(frozen=True)
class Command(Generic[S]):
    """What can be typed behind ``ddtl NAME``.

    Attributes:
        name: the word, or words, of the command.
        schema: its settings; each field with a description, keys with dots by alias.
        intro: the first paragraph of its help.
        examples: (line, what it does).
        notes: paragraphs behind the settings.
        exit_codes: the last line of its help.
        passes: keys of train.py's configuration that it takes besides, with what they are for.
        flags: switches for a key, as ``--strict`` for ``strict=true``.
        configures: whether any setting of train.py may follow, whose reader says what is wrong with it.
    """

    name: str
    schema: type[S]
    intro: str
    examples: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    exit_codes: str = "0 done, 2 a mistake in the command"
    passes: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    configures: bool = False

    @property
    def keys(self) -> dict[str, Any]:
        """Each setting's key with its field."""
        return {about.alias or name: about for name, about in self.schema.model_fields.items()}

    def wants_help(self, argv: Sequence[str], *, without_words: bool = True) -> bool:
        """Print the help where it is requested; whether it was.

        Raises:
            UserError: nothing at all is typed: a shell's variable may be empty.
        """
        if {*_HELP} & set(argv):
            sys.stdout.write(self.help())
            return True
        if without_words and not argv:
            name_something(self.name, self.help())
        return False

    def read(
        self,
        argv: Sequence[str],
        *,
        is_word: Callable[[str], bool] = lambda word: False,
        problems: Callable[[S, tuple[str, ...]], Sequence[str]] = lambda settings, rest: (),
    ) -> Words[S]:
        """Read the words behind the command.

        Args:
            argv: them.
            is_word: whether a word that contains ``=``, or one that begins with ``-``, is not a mistyped setting, as a
                file's name.
            problems: further mistakes, once the settings are sound.

        Raises:
            UserError: with a line for each mistake.
        """
        keys, typed, rest, passed, faults, twice = self.keys, dict[str, str](), [], [], [], set[str]()
        for word in argv:
            key, equals, value = self.flags.get(word, word).partition("=")
            if equals and key in keys:
                twice |= {key} & typed.keys()
                typed[key] = value
            elif equals and key in self.passes:
                passed.append(word)
            elif (
                (self.configures and not self._is_mistyped(key))
                or (not equals and not word.startswith("-"))
                or Path(word).exists()
                or is_word(word)
            ):
                rest.append(word)
            else:
                known = [*keys, *self.passes, *self.flags]
                hint = did_you_mean(key, [*known, *_HELP[:1]])
                there = f" There are {', '.join(known)}." if known else ""
                faults.append(f"{word}: not a setting of `ddtl {self.name}`.{hint}{there}")
        tree = {key: _data(value, keys[key].annotation) for key, value in typed.items()}
        settings, lines = convert(tree, self.schema, typed)
        faults += (f"{line}{_of_none(keys.get(key))}" for key, line in lines.items())
        # The other checks are still worth their answer: examine the rest without the mistyped values.
        sound, _ = convert({key: value for key, value in tree.items() if key not in lines}, self.schema)
        if sound is not None:
            faults += problems(sound, tuple(rest))
        if faults:
            raise UserError("\n".join(dict.fromkeys(faults)))
        assert settings is not None
        for key in sorted(twice):
            log.warning("%s is given several times; the last one counts: %s", key, typed[key])
        return Words(settings, tuple(rest), tuple(passed))

    def _is_mistyped(self, key: str) -> bool:
        """Return whether a key is more like one of these settings than like one of train.py's."""
        from ddtl.schema.run import Config  # importing it takes a sixth of a second of a slow processor

        known = [*self.keys, *groups("train"), *Config.model_fields]
        return "." not in key and key not in known and closest(key, known) in self.keys

    def help(self) -> str:
        """Return the page of ``--help``."""
        parts = [_folded(self.intro)]
        if self.examples:
            parts.append(_columns([(f"ddtl {line}", about) for line, about in self.examples]))
        rows = [(f"{key}={_default(about)}", _meaning(about)) for key, about in self.keys.items()]
        rows += [(f"{key}=…", meaning) for key, meaning in self.passes.items()]
        rows += [(flag, f"the same as {word}") for flag, word in self.flags.items()]
        if rows:
            parts.append(_columns(rows))
        parts += [_folded(note) for note in self.notes]
        parts.append(_folded(f"Exit codes: {self.exit_codes}."))
        return "\n\n".join(parts) + "\n"

    def completions(self) -> list[str]:
        """Return the words that a shell may offer: keys with ``=``, and with each of their choices."""
        return [*_HELP[:1], *self.flags, *settings(self.schema), *(f"{key}=" for key in self.passes)]


def settings(schema: type[Section], prefix: str = "") -> list[str]:
    """Return the words that a shell may offer for a section: keys with ``=``, and with each of their choices."""
    found = []
    for name, about in schema.model_fields.items():
        parts = _parts(about.annotation)
        if not any(isinstance(part, type) and issubclass(part, Section) for part in parts):
            key = prefix + (about.alias or name)
            found += [f"{key}={choice}" for choice in _choices(about.annotation)] or [f"{key}="]
    return found


def no_words(command: Command[S]) -> Callable[[S, tuple[str, ...]], list[str]]:
    """Return the check of a command that takes settings alone."""
    known = ", ".join(command.keys)

    def problems(settings: S, words: tuple[str, ...]) -> list[str]:
        return [
            f"{word}: not a setting of `ddtl {command.name}`.{did_you_mean(word, command.keys)} There are {known}."
            for word in words
        ]

    return problems


def _data(text: str, wanted: Any) -> Any:
    """Return text as the plain data that a field takes; as text where it is not such data, which the schema then
    refuses.
    """
    parts = _parts(wanted)
    if bool in parts and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if type(None) in parts and text == "null":
        return None
    for number in (int, float):
        if number in parts or int in parts:
            with suppress(ValueError):
                return number(text)
    return text


def _parts(wanted: Any) -> list[Any]:
    """Return the plain types of an annotation."""
    if get_origin(wanted) is Annotated:
        return _parts(get_args(wanted)[0])
    if get_origin(wanted) in (Union, types.UnionType):
        return [part for each in get_args(wanted) for part in _parts(each)]
    return [wanted]


def _choices(wanted: Any) -> list[str]:
    """Return the values of a field that has only some."""
    found = []
    for part in _parts(wanted):
        if get_origin(part) is Literal:
            found += [str(each) for each in get_args(part)]
        elif part is bool:
            found += ["true", "false"]
    return found


def _of_none(about: Any) -> str:
    """Return what a field means, where it may also be left empty."""
    return f" {about.description}." if about is not None and "" in _choices(about.annotation) else ""


def _default(about: Any) -> str:
    value = about.get_default(call_default_factory=True)
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or value == "":
        if Path not in _parts(about.annotation):
            return "…"
        return "FOLDER" if "folder" in (about.description or "") else "FILE"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _meaning(about: Any) -> str:
    """Return the description, with the choices where it does not name them itself."""
    choices = [choice for choice in _choices(about.annotation) if choice not in ("", "true", "false")]
    if len(choices) < 2:
        return str(about.description)
    return f"{about.description} ({', '.join(choices[:-1])} or {choices[-1]})"


def _folded(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _WIDTH, break_long_words=False, break_on_hyphens=False)


def _columns(rows: Sequence[tuple[str, str]]) -> str:
    """Return two columns, the second one folded; a long entry of the first has a line of its own."""
    width = min(max(len(one) for one, _ in rows), 44)
    lines = []
    for one, other in rows:
        folded = textwrap.wrap(other, _WIDTH - width - 6, break_long_words=False, break_on_hyphens=False) or [""]
        first = f"  {one:<{width}}    {folded[0]}".rstrip()
        if len(one) > width:
            lines.append(f"  {one}")
            first = f"  {'':<{width}}    {folded[0]}".rstrip()
            folded = folded if folded[0] else folded[1:]
        lines += [first, *(f"  {'':<{width}}    {more}" for more in folded[1:])] if first else []
    return "\n".join(lines)
