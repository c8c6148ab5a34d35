"""eprop-run --keys WORD: the keys that a word is about."""

import shutil
import textwrap
from collections.abc import Sequence

from eprop_cli.config.words import found
from eprop_cli.errors import UserError

OPTION = "--keys"
LEAST_MEANING = 30  # characters of a line; below that, meanings stand under their keys


def show_keys(arguments: Sequence[str]) -> None:
    """Print the keys that have a word in their names, meanings or units: all of them without a word.

    arguments: those of eprop-run. Raises UserError for other arguments besides, and where nothing is found.
    """
    words = [argument.removeprefix(f"{OPTION}=") for argument in arguments if argument != OPTION]
    if len(words) > 1:
        raise UserError(f"{' '.join(arguments)}: takes one word, as in eprop-run --keys tau")
    keys = found(words[0] if words else "")
    if not keys:
        raise UserError(f"--keys {words[0]}: no key has that in its name or meaning; all of them: eprop-run --keys")
    width = shutil.get_terminal_size().columns
    names = [f"{key}={each.value}" for key, each in keys.items()]
    column = min(max(map(len, names)), 48) + 2
    for name, each in zip(names, keys.values(), strict=True):
        beside = len(name) < column and width - column >= LEAST_MEANING
        indent = column if width - column >= LEAST_MEANING else 4
        lines = textwrap.wrap(each.meaning, width - indent) or [""]
        first = [name.ljust(column) + lines.pop(0)] if beside else [name]
        print("\n".join(line.rstrip() for line in [*first, *(" " * indent + line for line in lines if line)]))
