"""eprop-compare: put runs side by side."""

import argparse
import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from eprop_cli.errors import UserError
from eprop_cli.reports.table import show, write_csv
from eprop_cli.runs.files import natural
from eprop_cli.runs.reader import Run, find_runs
from eprop_cli.terminal import Parser, complain, leave, name_list, positive

TABLE, FIGURE = "compare.csv", "compare"
COMPARE_HELP = """\
examples:
  eprop-compare outputs/2026-01-31         all runs in a folder, at any depth
  eprop-compare 'outputs/*/*-multirun'     the runs of all sweeps
  eprop-compare RUN_DIR RUN_DIR --output results
                                           results/compare.csv and compare.png

The table has a line per run: its directory, the config keys in which the runs
differ (except resume, objective and plots), status, training iterations, the
loss of the last and of the best training iteration, accuracy of the last one,
mean recall error of the test (of regressions nrmse and test_nrmse: the RMSE
over the target's standard deviation, which compares across tasks), seconds,
error. The figure has a line per run. Runs that differ only in their seed are
one line, their mean, in a band from the lowest to the highest. Of runs with
the same config only the latest is drawn. Losses of different tasks have
panels of their own.

compare.csv and the figure go to the current directory, or to --output. They
replace those of an earlier comparison, but no other file unless --force is
given. Exit status: 0, or 2 if something was wrong with the input; what could
be read has been compared nevertheless.
"""


def compare() -> NoReturn:
    """Entry point of eprop-compare."""
    parser = Parser("eprop-compare", "Compare runs in a table and a figure.", COMPARE_HELP)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN_DIR", help="run directory, folder of runs, or pattern in quotes"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path(), help="where to (default: here)")
    parser.add_argument(
        "--formats", type=name_list, metavar="NAME,...", default=["png"], help="png, pdf, svg (default: png)"
    )
    parser.add_argument("--dpi", type=positive, metavar="N", default=150, help="resolution of png (default: 150)")
    parser.add_argument("--force", action="store_true", help="replace files that no comparison wrote")
    leave(parser.prog, lambda: _compare(parser.parse_args()))


def _compare(options: argparse.Namespace) -> int:
    from eprop_cli.figures.comparison import sweep_figure
    from eprop_cli.figures.style import save
    from eprop_cli.runs.comparison import UNREADABLE, summarise

    check_names("--formats", options.formats)
    check_dpi(options.dpi)
    runs = _collect(options.runs)
    make_directory(options.output)
    figures = [options.output / f"{FIGURE}.{kind}" for kind in options.formats]
    for path in (options.output / TABLE, *figures):
        if path.exists() and not options.force and not _is_comparison(path):
            raise UserError(f"{path}: was not written by eprop-compare; move it, or choose --output or --force")
    table = summarise(runs)
    write_csv(table, options.output / TABLE)
    if table["iterations"].any():
        figure = sweep_figure(runs)
        for path in figures:
            save(figure, path, options.dpi)
    else:
        figures = []
    show(table, runs)
    if not figures:
        print("No training iteration in any of them, so no figure")
    print(f"Files: {', '.join(map(str, (options.output / TABLE, *figures)))}")
    unreadable = table.loc[table["status"] == UNREADABLE, "error"]
    return max([complain("eprop-compare", error) for error in unreadable], default=0)


def _collect(patterns: Iterable[str]) -> list[Run]:
    """The runs in directories, or in whatever patterns match; each once, in the order given."""
    runs: dict[Path, Run] = {}
    for pattern in patterns:
        # A name with brackets in it is taken for what it is where it exists.
        found = [pattern] if os.path.lexists(pattern) else _glob(pattern)
        if not found:
            raise UserError(f"{pattern}: no such directory")
        runs |= {run.directory.resolve(): run for path in found for run in find_runs(Path(path))}
    if not runs:
        raise UserError(f"{', '.join(patterns)}: no run directory in there (none holds a run.json)")
    return list(runs.values())


def _glob(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True), key=lambda path: natural(Path(path)))


def _is_comparison(path: Path) -> bool:
    """Whether a file was written by eprop-compare; any figure drawn by eprop-cli passes for one."""
    from eprop_cli.figures.style import ORIGIN
    from eprop_cli.runs.comparison import AFTER, BEFORE

    content = path.read_bytes()
    if path.suffix == ".csv":
        header = content.split(b"\n")[0].strip()
        return f",{','.join(BEFORE)},".encode() in header and header.endswith(f",{','.join(AFTER)}".encode())
    return ORIGIN.encode() in content


def check_names(option: str, names: Sequence[str] | None) -> None:
    """Raise UserError for a name that is not of a figure, or of a format."""
    from eprop_cli.config.groups import FORMATS
    from eprop_cli.registry import VARIANTS, variant

    choices = {"--figures": tuple(VARIANTS["figure"]), "--formats": FORMATS}[option]
    for name in names or ():
        if option == "--figures" and ":" in name:
            variant("figure", name)  # a user's own; raises UserError unless it is one
        elif name not in choices:
            raise UserError(f"{option} {name}: must be one of {', '.join(choices)}")


def check_dpi(dpi: int | None) -> None:
    """Raise UserError for a resolution that is not one."""
    from eprop_cli.config.groups import LEAST_DPI, MOST_DPI

    if dpi is not None and not LEAST_DPI <= dpi <= MOST_DPI:
        raise UserError(f"--dpi {dpi}: must be from {LEAST_DPI} to {MOST_DPI}")


def make_directory(directory: Path) -> None:
    """Make a directory that can be written; raises UserError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be made: {error.strerror}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UserError(f"{directory}: cannot be written")
