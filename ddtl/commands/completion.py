"""``ddtl completion bash|zsh|fish``: a script by which the shell completes ddtl's commands and their settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from ddtl.commands.arguments import Command
from ddtl.config.where import groups, options
from ddtl.schema.run import Section
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
# What follows a command at once, and is not a setting.
_ACTIONS: Mapping[str, Sequence[str]] = {
    "data": ("list", "fetch", "verify", "cache"),
    "runs": ("list", "show", "clean"),
    "finetune": ("show",),
    "completion": SHELLS,
}

_BASH = """\
# ddtl's completion for bash
_ddtl() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} line=${{COMP_LINE:0:COMP_POINT}} words
  COMPREPLY=()
  [ "$word" = "=" ] && word=
  local typed=${{line##* }}
  if [ "$COMP_CWORD" -eq 1 ]; then words="{commands} --help --version"; else
    case ${{COMP_WORDS[1]}} in
{cases}
      *) words= ;;
    esac
  fi
  local each found=()
  for each in $words; do [[ $each == "$typed"* ]] && found+=("$each"); done
  # What is before a = is a word of its own to bash, and not to be repeated.
  local before=; [[ $typed == *=* && $COMP_WORDBREAKS == *=* ]] && before=${{typed%"${{typed##*=}}"}}
  for each in "${{found[@]}}"; do COMPREPLY+=("${{each#"$before"}}"); done
  if [ ${{#COMPREPLY[@]}} -eq 0 ]; then COMPREPLY=($(compgen -f -- "$word")); fi
  [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace
}}
complete -o filenames -F _ddtl ddtl
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
        if declared is None or declared.configures:
            config = "sweep" if name == "sweep" else "train"
            candidates += [f"{group}={option}" for group in groups(config) for option in options(group)]
        if name in ("sweep", "evaluate", "audit"):
            chosen = groups("train") if name == "sweep" else ("dataset",)
            candidates += [f"{group}={option}" for group in chosen for option in options(group)]
        found[name] = list(dict.fromkeys(candidates))
    return found


def _bash(candidates: Mapping[str, Sequence[str]]) -> str:
    cases = "\n".join(f'      {name}) words="{" ".join(each)}" ;;' for name, each in candidates.items())
    return _BASH.format(commands=" ".join(candidates), cases=cases)


def _zsh(candidates: Mapping[str, Sequence[str]]) -> str:
    cases = "\n".join(f"      {name}) known=({' '.join(map(_quote, each))}) ;;" for name, each in candidates.items())
    return (
        "#compdef ddtl\n"
        "local -a known\n"
        f"if (( CURRENT == 2 )); then known=({' '.join(candidates)} --help --version); else\n"
        f"  case $words[2] in\n{cases}\n  esac\nfi\n"
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
