"""``ddtl completion bash|zsh|fish``: a script by which the shell completes ddtl's commands and their settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from ddtl.commands.arguments import PATHS, Command, settings
from ddtl.commands.data import CACHE, SHOW
from ddtl.config.where import groups, options
from ddtl.data.datasets.registry import ORIGINS
from ddtl.schema.run import EvaluationConfig
from ddtl.schema.section import Section
from ddtl.schema.sweep import SweepConfig, SweepSection
from ddtl.utils.errors import UserError
from ddtl.utils.suggest import did_you_mean

SHELLS = ("bash", "zsh", "fish")

COMMAND = Command(
    "completion",
    Section,
    intro="Print a script by which the shell completes ddtl's commands and their settings.",
    examples=(
        ("completion bash >> ~/.bashrc", ""),
        ("completion zsh > ~/.zfunc/_ddtl", "a folder of $fpath"),
        ("completion fish > ~/.config/fish/completions/ddtl.fish", ""),
    ),
    exit_codes="0 printed, 2 no such shell",
)
# What follows a command, and is not a setting.
_ACTIONS: Mapping[str, Sequence[str]] = {
    "data": ("list", "fetch", "verify", "show", "cache", "delete", *ORIGINS),
    "runs": ("list", "show", "note", "tag", "untag", "view", "clean"),
    "finetune": ("show",),
    "completion": SHELLS,
}
# Settings and flags of commands that have none declared, as those of Hydra's grammar.
_MORE: Mapping[str, Sequence[str]] = {
    "train": ("--cfg", "-m"),
    "sweep": ("--cfg", *settings(SweepConfig), *settings(SweepSection, "sweep.")),
    "evaluate": (
        *(word for word in settings(EvaluationConfig, "evaluation.") if not word.startswith("evaluation.test=")),
        *(f"{key}=" for key in ("paths.data_dir", "paths.cache_dir", "trainer.accelerator", "trainer.precision")),
    ),
    "audit": (*(f"{key}=" for key in PATHS), "paths.runs_dir="),
}
# Commands whose words are folders or files too; those of others are behind a =.
_FILES = ("evaluate", "compare", "predict", "explain", "export", "report", "runs")

_BASH = """\
# ddtl's completion for bash
_ddtl() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} line=${{COMP_LINE:0:COMP_POINT}} words files=
  COMPREPLY=()
  local typed=${{line##* }}
  [[ $word == *\\\\* || $word == [\\"\\']* ]] && typed=$word  # a blank may be in it
  if [ "$COMP_CWORD" -eq 1 ]; then words="{commands} --help --version"; else
    case ${{COMP_WORDS[1]}} in
{cases}
      *) words= ;;
    esac
    case ${{COMP_WORDS[1]}} in {files}) files=yes ;; esac
  fi
  local each found=()
  for each in $words; do [[ $each == "$typed"?* || $each == "$typed" && $each != *= ]] && found+=("$each"); done
  # What is before a = is a word of its own to bash, and not to be repeated.
  local before=; [[ $typed == *=* && $COMP_WORDBREAKS == *=* ]] && before=${{typed%"${{typed##*=}}"}}
  for each in "${{found[@]}}"; do COMPREPLY+=("${{each#"$before"}}"); done
  [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace
  # Where none of the words is meant, bash completes files itself.
  if [[ -n $files && ${{#COMPREPLY[@]}} -gt 0 && $typed != *=* && $typed != -* ]]; then
    while IFS= read -r each; do COMPREPLY+=("$each"); compopt -o filenames; done < <(compgen -f -- "$typed")
  fi
}}
complete -o default -F _ddtl ddtl
"""


def main(argv: Sequence[str]) -> int:
    """Run ``ddtl completion`` with the words that follow it; return the exit code.

    Raises:
        UserError: there is no such shell.
    """
    if COMMAND.wants_help(argv):
        return 0
    shells = COMMAND.read(argv).rest
    if len(shells) != 1 or shells[0] not in SHELLS:
        hint = did_you_mean(shells[0], SHELLS) if shells else ""
        raise UserError(f"ddtl completion {' '.join(shells)}: name one shell.{hint} There are {', '.join(SHELLS)}.")
    sys.stdout.write({"bash": _bash, "zsh": _zsh, "fish": _fish}[shells[0]](words()))
    return 0


def words() -> dict[str, list[str]]:
    """Return by command what may be typed after it: actions, settings, and groups of train.py with their options."""
    from ddtl.commands.cli import COMMANDS

    found = {}
    for name, (module, _) in COMMANDS.items():
        declared = getattr(import_module(module), "COMMAND", None)
        candidates = [*_ACTIONS.get(name, ()), *(declared.completions() if declared is not None else ["--help"])]
        if name in ("train", "sweep") or (declared is not None and declared.configures):
            chosen = [*groups("train"), *(groups("sweep") if name == "sweep" else ())]
        else:
            chosen = ["dataset"] if name in ("evaluate", "audit") else []
        candidates += [f"{group}={option}" for group in chosen for option in options(group)]
        candidates += _MORE.get(name, ())
        if name == "data":
            candidates += [*CACHE.completions(), *SHOW.completions()]
        found[name] = list(dict.fromkeys(candidates))
    return found


def _bash(candidates: Mapping[str, Sequence[str]]) -> str:
    cases = "\n".join(f'      {name}) words="{" ".join(each)}" ;;' for name, each in candidates.items())
    return _BASH.format(commands=" ".join(candidates), cases=cases, files="|".join(_FILES))


def _zsh(candidates: Mapping[str, Sequence[str]]) -> str:
    cases = "\n".join(f"      {name}) known=({' '.join(map(_quote, each))}) ;;" for name, each in candidates.items())
    return (
        "#compdef ddtl\n"
        "local -a known\n"
        f"if (( CURRENT == 2 )); then known=({' '.join(candidates)} --help --version); else\n"
        f"  case $words[2] in\n{cases}\n  esac\nfi\n"
        # Behind a = for which there are no choices: files.
        "local -a further=(${(M)known:#$PREFIX?*})\n"
        "if [[ $PREFIX == *=* ]] && (( ! $#further )); then\n"
        "  compset -P 1 '*='; _files; return\nfi\n"
        "compadd -S '' -- ${(M)known:#*=}\n"
        "compadd -- ${known:#*=}\n"
        "_files\n"
    )


def _fish(candidates: Mapping[str, Sequence[str]]) -> str:
    lines = [f"complete -c ddtl -n __fish_use_subcommand -f -a '{' '.join(candidates)}'"]
    for name, each in candidates.items():
        lines.append(f"complete -c ddtl -n '__fish_seen_subcommand_from {name}' -a '{' '.join(each)}'")
    return "# ddtl's completion for fish\n" + "\n".join(lines) + "\n"


def _quote(word: str) -> str:
    return f"'{word}'"
