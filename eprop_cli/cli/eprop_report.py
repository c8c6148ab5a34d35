"""eprop-report: a run or a sweep as one HTML page."""

import argparse
from pathlib import Path
from typing import NoReturn

from eprop_cli.errors import UserError
from eprop_cli.terminal import Parser, complain, leave

REPORT_HELP = """\
examples:
  eprop-report outputs/2026-01-31/12-00-00-000000  a run
  eprop-report sweeps/eta                          a sweep, or any folder
  eprop-run report=true                            write it at the end

report.html in the directory shows how it ended, the figures, the keys that
differ from the defaults, a table to sort and filter, where it comes from and
the commands that do it again. It needs no other file and asks nothing of any
server. A report of before is replaced. Exit status: 0, or 2 if something was
wrong with the input.
"""


def report() -> NoReturn:
    """Entry point of eprop-report."""
    parser = Parser("eprop-report", "Write a page about a run or a sweep.", REPORT_HELP)
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="run directory or folder of runs")
    leave(parser.prog, lambda: _report(parser.parse_args()))


def _report(options: argparse.Namespace) -> int:
    from eprop_cli.reports.page import write_page

    status = 0
    for directory in options.directories:
        try:
            print(write_page(directory))
        except UserError as error:
            status = complain("eprop-report", error)
    return status
