"""eprop-compare: put runs side by side."""

import argparse
import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from eprop_cli.errors import UserError
from eprop_cli.looks import BANDS, LEAST_DPI, LEAST_WIDTH, MOST_DPI, MOST_WIDTH, STYLES
from eprop_cli.looks import FORMATS as FIGURE_FORMATS
from eprop_cli.reports.table import csv, markdown, show, write_csv
from eprop_cli.runs.files import natural
from eprop_cli.runs.reader import Run, find_runs
from eprop_cli.terminal import Parser, complain, leave, name_list, positive

if TYPE_CHECKING:
    from eprop_cli.runs.ranked import Comparison

FORMATS = ("text", "csv", "markdown")  # of what is printed
TABLE, FIGURE = "compare.csv", "compare"
COMPARE_HELP = """\
examples:
  eprop-compare outputs/2026-01-31         all runs in a folder, at any depth
  eprop-compare 'outputs/*/*-multirun'     the runs of all sweeps
  eprop-compare RUN_DIR RUN_DIR --output results
                                           results/compare.csv and compare.png
  eprop-compare SWEEP --sort test_error --where 'eta>1e-3 and seed in (1, 2)'
  eprop-compare SWEEP --metric best_val_loss --band ci95 --format markdown

The table has a line per run, numbered: the config keys and versions in which
the runs differ (except resume, objective, report, plots and logger), status,
training iterations, the loss of the last, of the best and of the last ten
training iterations, accuracy of the last one, mean recall error of the test (of
regressions nrmse and test_nrmse: the RMSE over the target's standard
deviation, which compares across tasks), seconds. What is the same in all is
said once, above. Directories and errors are in compare.csv.

Runs that are COMPLETED and differ only in their seed have a second table:
mean and standard deviation. The best run is starred.

--where knows config keys by their names or last parts, columns of the table,
metrics, and index; ==, !=, <, <=, >, >=, in, and, or, not. Metrics, here and
for --metric and --sort, are named as objective is (eprop-run --keys objective).

The figure has a line per run, or per group of seeds, their mean in a band. Of
runs with the same config only the latest is drawn. Losses of different tasks
have panels of their own. How it looks is as the first run's plots say.

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
    parser.add_argument("--where", metavar="CONDITION", help="only runs that meet it")
    parser.add_argument("--sort", metavar="NAME", help="by a metric, best first, or by a key or column, ascending")
    parser.add_argument("--reverse", action="store_true", help="the other way round")
    parser.add_argument(
        "--metric",
        type=name_list,
        metavar="NAME,...",
        default=[],
        help="what the best is best in and the heat map shows (default: the test error, without tests mean10_loss)",
    )
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="of what is printed (default: text)")
    parser.add_argument("--band", choices=BANDS, help="around means over seeds (default: as the first run)")
    parser.add_argument("--style", choices=STYLES, help="of the figure (default: as the first run)")
    parser.add_argument("--width", type=positive, metavar="MM", help="of the figure (default: as the first run)")
    parser.add_argument("--font", metavar="FAMILY", help="of the figure (default: as the first run)")
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path(), help="where to (default: here)")
    parser.add_argument(
        "--formats", type=name_list, metavar="NAME,...", default=["png"], help="png, pdf, svg (default: png)"
    )
    parser.add_argument("--dpi", type=positive, metavar="N", default=150, help="resolution of png (default: 150)")
    parser.add_argument("--force", action="store_true", help="replace files that no comparison wrote")
    leave(parser.prog, lambda: _compare(parser.parse_args()))


def _compare(options: argparse.Namespace) -> int:
    from eprop_cli.runs.where import parse_where

    check_names("--formats", options.formats)
    check_dpi(options.dpi)
    check_look(options)
    if options.where is not None:
        parse_where(options.where)
    runs = _collect(options.runs)
    from eprop_cli.runs.ranked import compare

    compared = compare(runs, options.metric, options.where, options.sort, options.reverse)
    files = _write(compared, options)
    if options.format == "text":
        show(compared)
        if len(files) == 1:
            print("No training iteration in any of them, so no figure")
        print(f"Files: {', '.join(map(str, files))}")
    else:
        print(csv(compared.table) if options.format == "csv" else markdown(compared), end="")
    return max([complain("eprop-compare", error) for error in compared.unreadable], default=0)


def _write(compared: "Comparison", options: argparse.Namespace) -> list[Path]:
    """Write table and figure; returns their paths."""
    from eprop_cli.figures.comparison import sweep_figure
    from eprop_cli.figures.style import save

    make_directory(options.output)
    table, *figures = [options.output / TABLE, *(options.output / f"{FIGURE}.{kind}" for kind in options.formats)]
    for path in (table, *figures):
        if path.exists() and not options.force and not _is_comparison(path):
            raise UserError(f"{path}: was not written by eprop-compare; move it, or choose --output or --force")
    write_csv(compared.table, table)
    if not compared.table["iterations"].any():
        return [table]
    looks = {"band": options.band, "style": options.style, "width": options.width, "font": options.font}
    figure = sweep_figure(compared.opened, metric=next(iter(options.metric), None), **looks)
    for path in figures:
        save(figure, path, options.dpi)
    return [table, *figures]


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

    content = path.read_bytes()
    if path.suffix == ".csv":
        header = content.split(b"\n")[0].strip()
        return b",status,iterations,final_loss,best_loss," in header and header.endswith(b",seconds,error")
    return ORIGIN.encode() in content


def check_names(option: str, names: Sequence[str] | None) -> None:
    """Raise UserError for a name that is not of a figure, or of a format."""
    from eprop_cli.registry import VARIANTS, variant

    choices = {"--figures": tuple(VARIANTS["figure"]), "--formats": FIGURE_FORMATS}[option]
    for name in names or ():
        if option == "--figures" and ":" in name:
            variant("figure", name)  # a user's own; raises UserError unless it is one
        elif name not in choices:
            raise UserError(f"{option} {name}: must be one of {', '.join(choices)}")


def check_dpi(dpi: int | None) -> None:
    """Raise UserError for a resolution that is not one."""
    if dpi is not None and not LEAST_DPI <= dpi <= MOST_DPI:
        raise UserError(f"--dpi {dpi}: must be from {LEAST_DPI} to {MOST_DPI}")


def check_look(options: argparse.Namespace) -> None:
    """Raise UserError for a width that is not one, or a font that is not installed."""
    if options.width is not None and not LEAST_WIDTH <= options.width <= MOST_WIDTH:
        raise UserError(f"--width {options.width}: must be from {LEAST_WIDTH} to {MOST_WIDTH} mm")
    if options.font is not None:
        from eprop_cli.figures.style import is_installed

        if not is_installed(options.font):
            raise UserError(f"--font {options.font}: is not installed; name a family that is, such as serif")


def make_directory(directory: Path) -> None:
    """Make a directory that can be written; raises UserError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be made: {error.strerror}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UserError(f"{directory}: cannot be written")
