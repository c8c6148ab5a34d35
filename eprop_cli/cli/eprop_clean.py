"""eprop-clean: remove what finished runs no longer need."""

import argparse
import shutil
from pathlib import Path
from typing import NoReturn

from eprop_cli.cli.eprop_plot import size
from eprop_cli.errors import UserError
from eprop_cli.terminal import Parser, complain, leave

CLEAN_HELP = """\
examples:
  eprop-clean sweeps/eta             list what could go; nothing is removed
  eprop-clean sweeps/eta --delete    remove it

Of runs that are COMPLETED: checkpoint.npz, by which one could train longer, and
what a sweep moved aside before it began a run again (NAME.old-1). Metrics,
weights, recordings and figures stay, and so does all of a run that is not
COMPLETED. Exit status: 0, or 2 if something was wrong with the input.
"""


def clean() -> NoReturn:
    """Entry point of eprop-clean."""
    parser = Parser("eprop-clean", "List or remove what finished runs no longer need.", CLEAN_HELP)
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="sweep, folder of runs, or run")
    parser.add_argument("--delete", action="store_true", help="remove what is listed")
    leave(parser.prog, lambda: _clean(parser.parse_args()))


def _clean(options: argparse.Namespace) -> int:
    from eprop_cli.runs.leftovers import leftovers

    status, found = 0, []
    for directory in options.directories:
        if not directory.is_dir():
            status = complain("eprop-clean", f"{directory}: is no directory")
            continue
        try:
            found += leftovers(directory)
        except UserError as error:
            status = complain("eprop-clean", error)
    for each in found:
        if options.delete:
            shutil.rmtree(each.path) if each.path.is_dir() else each.path.unlink()
        print(f"{size(each.size):>10}  {each.path}  ({each.why})")
    total = size(sum(each.size for each in found))
    print(f"{total} removed" if options.delete else f"{total} could be removed{'; add --delete' if found else ''}")
    return status
