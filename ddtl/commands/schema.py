"""``ddtl schema``: the configuration files' JSON Schema, by which an editor completes and checks them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from ddtl.commands.arguments import Command
from ddtl.config.json_schema import schema
from ddtl.schema.section import Section
from ddtl.utils.errors import UserError

COMMAND = Command(
    "schema",
    Section,
    intro="Print the JSON Schema of configuration files, by which an editor completes and checks them.",
    examples=(
        ("schema > ddtl.schema.json", "of files with keys of the whole: experiments, datasets"),
        ("schema finetune > finetune.schema.json", "of the files of one group: finetune, optimizer, search, …"),
    ),
    notes=(
        "In the first line of a YAML file: # yaml-language-server: $schema=ddtl.schema.json. What depends on several "
        "keys at once is checked by the commands alone. See docs/editor.md.",
    ),
    exit_codes="0 printed, 2 no such kind of file",
)


def main(argv: Sequence[str]) -> int:
    """Run ``ddtl schema`` with the words that follow it; return the exit code.

    Raises:
        UserError: there is no such kind of file.
    """
    if {"--help", "-h"} & set(argv):
        COMMAND.wants_help(argv)
        return 0
    words = COMMAND.read(argv).rest
    if len(words) > 1:
        raise UserError(f"ddtl schema {' '.join(words)}: name one kind of file.")
    sys.stdout.write(json.dumps(schema(*words), indent=1, ensure_ascii=False) + "\n")
    return 0
