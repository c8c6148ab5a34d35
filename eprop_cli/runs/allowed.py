"""Modules of users' own that a directory may name, since they were allowed in this project.

They are kept in the user's own folder of settings, not in the project: what comes with a project does not allow itself.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from eprop_cli.errors import UserError
from eprop_cli.runs.files import write_text

OPTION = "--allow-module"


def take_allowed(arguments: Sequence[str]) -> tuple[list[str], frozenset[str]]:
    """Arguments without --allow-module, and all modules that are allowed here; those that it gives are remembered."""
    kept: list[str] = []
    given: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == OPTION:
            given.append(_module(next(rest, "")))
        elif argument.startswith(f"{OPTION}="):
            given.append(_module(argument.partition("=")[2]))
        else:
            kept.append(argument)
    return kept, allow(given)


def allow(modules: Sequence[str]) -> frozenset[str]:
    """Remember modules as allowed in this project, the working directory; returns all that are."""
    known, here = _read(), str(Path.cwd())
    allowed = frozenset([*known.get(here, []), *modules])
    if not allowed <= set(known.get(here, [])):
        write_text(_path(), json.dumps(known | {here: sorted(allowed)}, indent=2) + "\n")
    return allowed


def _module(name: str) -> str:
    module = name.partition(":")[0]
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", module):
        raise UserError(f"{OPTION} {name}: must be the name of a module, e.g. my_task")
    return module


def _path() -> Path:
    place = os.environ.get("XDG_CONFIG_HOME")
    return Path(place if place else Path.home() / ".config") / "eprop-cli" / "allowed_modules.json"


def _read() -> dict[str, list[str]]:
    """What was allowed so far, by project; nothing if the file is gone."""
    path = _path()
    try:
        read = json.loads(path.read_text())
        return {str(project): [str(name) for name in modules] for project, modules in read.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read; remove it, and allow modules again") from error
