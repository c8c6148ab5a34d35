"""eprop-plot and eprop-compare: look again at run directories, without NEST."""

import argparse
import glob
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from eprop_cli.__main__ import replace_closed_outputs
from eprop_cli.errors import UserError
from eprop_cli.results import FIGURES as FIGURE_DIRECTORY
from eprop_cli.results import Run, find_runs, natural

if TYPE_CHECKING:
    import pandas as pd

BAD_INPUT = 2  # exit status
TABLE, FIGURE = "compare.csv", "compare"
PIPE_WIDTH = 240  # characters of a table that does not go to a terminal

PLOT_HELP = """\
examples:
  eprop-plot outputs/2026-01-31/12-00-00-000000       redraw its figures, as the run drew them
  eprop-plot --list RUN_DIR                           what is in a run directory
  eprop-plot --figures dynamics --formats pdf RUN_DIR one figure, for a paper
  eprop-plot --output figures RUN_DIR                 leave the run directory alone

Figures are drawn from the run directory alone; a figure of the same name is replaced. What was not recorded is left
out. Exit status: 0, or 2 if something was wrong with the input.
"""
COMPARE_HELP = """\
examples:
  eprop-compare outputs/2026-01-31                all runs in a folder, at any depth
  eprop-compare 'outputs/*/*-multirun'            the runs of all sweeps
  eprop-compare RUN_DIR RUN_DIR --output results  results/compare.csv and results/compare.png

The table has a line per run: where it is, the config keys in which the runs differ (but for resume, objective and
plots), status, training iterations, loss in the last and in the best training iteration, accuracy in the last one,
mean recall error of the test, seconds, error. The figure has a line per run; runs that differ only in their seed are
one line, their mean, in a band from the lowest to the highest, and of runs that do not even differ in that only the
latest is in it.

compare.csv and the figure go to the current directory, or to --output. They replace those of an earlier comparison,
but no other file, unless --force is given. Exit status: 0, or 2 if something was wrong with the input; what could be
read has then been compared nevertheless.
"""


def plot() -> NoReturn:
    """Entry point of eprop-plot."""
    parser = Parser("eprop-plot", "Redraw the figures of runs from their directories.", PLOT_HELP)
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="run directory")
    parser.add_argument("--list", action="store_true", help="say what is in the run directories and draw nothing")
    parser.add_argument(
        "--figures", type=_names, metavar="NAME,...", help="figures to draw (default: those of the run)"
    )
    parser.add_argument("--formats", type=_names, metavar="NAME,...", help="png, pdf, svg (default: those of the run)")
    parser.add_argument("--dpi", type=positive, metavar="N", help="resolution of png (default: that of the run)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to (default: figures/ in the run directory)")
    leave(parser.prog, lambda: _plot(parser.parse_args()))


def compare() -> NoReturn:
    """Entry point of eprop-compare."""
    parser = Parser("eprop-compare", "Compare runs in a table and a figure.", COMPARE_HELP)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN_DIR", help="run directory, folder of runs, or pattern in quotes"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path(), help="where to (default: here)")
    parser.add_argument(
        "--formats", type=_names, metavar="NAME,...", default=["png"], help="png, pdf, svg (default: png)"
    )
    parser.add_argument("--dpi", type=positive, metavar="N", default=150, help="resolution of png (default: 150)")
    parser.add_argument("--force", action="store_true", help="replace files that no comparison wrote")
    leave(parser.prog, lambda: _compare(parser.parse_args()))


def _plot(options: argparse.Namespace) -> int:
    _check_names("--figures", options.figures)
    _check_names("--formats", options.formats)
    _check_dpi(options.dpi)
    runs = [Run(path) for path in options.runs]
    status = 0
    for run, into in zip(runs, _destinations(runs, options.output), strict=True):
        try:
            status = max(status, _list(run) if options.list else _redraw(run, into, options))
        except UserError as error:
            status = _complain("eprop-plot", error)
    return status


def _redraw(run: Run, into: Path, options: argparse.Namespace) -> int:
    """Draw the figures of a run; one that cannot be drawn does not keep the others from it."""
    from eprop_cli.config import FIGURES, FORMATS
    from eprop_cli.plots import draw_run

    chosen = run.config["plots"]
    formats = options.formats or chosen["formats"] or FORMATS[:1]
    _make(into)
    problems = []
    for name in options.figures or chosen["figures"] or FIGURES:
        try:
            paths = draw_run(run, [name], formats, options.dpi or chosen["dpi"], into)
        except UserError as error:
            problems.append(str(error))
            continue
        print("\n".join(map(str, paths)) if paths else f"{run.directory}: {name}: not drawn, it has no data for it")
    return _complain_once(problems)


def _destinations(runs: Sequence[Run], output: Path | None) -> list[Path]:
    """A directory for the figures of each run; several that go elsewhere keep their places among each other."""
    if output is None:
        return [run.directory / FIGURE_DIRECTORY for run in runs]
    if len(runs) == 1:
        return [output]
    from eprop_cli.sweep import places

    return [output / place for place in places(runs)[1]]


def _list(run: Run) -> int:
    """Print what there is of a run."""
    problems = []
    print(run.directory)
    for title, describe in {"run": _about, "batches": _batches, "recorded": _recorded, "figures": _figures}.items():
        try:
            print(f"  {title:<10}{describe(run)}")
        except UserError as error:
            problems.append(str(error))
    print("  files")
    files = sorted(path for path in run.directory.rglob("*") if path.is_file())
    for path in files:
        print(f"  {_size(path.stat().st_size):>10}  {path.relative_to(run.directory)}")
    return _complain_once(problems)


def _about(run: Run) -> str:
    record = run.record
    parts = [f"{record['status']}{' (its process has gone: it was killed)' if run.killed else ''}"]
    parts += [f"started {record['start']}"] if record.get("start") else []
    parts += [f"{sum(record['seconds'].values()):.1f} s"] if record.get("seconds") else []
    parts += [record["error"]] if record.get("error") else []
    return ", ".join(parts)


def _batches(run: Run) -> str:
    metrics = run.metrics
    counts = ", ".join(f"{count} {phase}" for phase, count in metrics["phase"].value_counts(sort=False).items())
    return f"{counts or 'none'} (of {run.config['task']['n_iter']} training iterations)"


def _recorded(run: Run) -> str:
    return f"iterations {', '.join(map(str, run.recorded))}" if run.recorded else "no iteration"


def _figures(run: Run) -> str:
    return ", ".join(sorted(path.name for path in (run.directory / FIGURE_DIRECTORY).glob("*.*"))) or "none"


def _compare(options: argparse.Namespace) -> int:
    from eprop_cli.plots import save
    from eprop_cli.sweep import UNREADABLE, summarise, sweep_figure

    _check_names("--formats", options.formats)
    _check_dpi(options.dpi)
    runs = _collect(options.runs)
    _make(options.output)
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
    return max([_complain("eprop-compare", error) for error in unreadable], default=0)


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


def show(table: "pd.DataFrame", runs: Sequence[Run]) -> None:
    """Print the comparison, in several parts if the terminal is too narrow for its columns."""
    from rich.console import Console
    from rich.table import Table

    from eprop_cli.sweep import UNREADABLE, places, short_names

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False)
    top, names = places(runs)
    text = table.drop(columns="error").assign(run=names).map(_cell, digits=".4g")
    text = text.loc[:, (text != "").any()].rename(columns=short_names(list(table.columns)))
    with console.capture() as shown:  # printed by itself it would end the process where the reader has had enough
        console.print(f"{len(runs)} runs in {top}", soft_wrap=True)
        for columns in _parts(text, console.width):
            part = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
            for name in columns:
                part.add_column(name, justify="left" if name == "run" else "right", overflow="fold")
            for row in text[columns].itertuples(index=False):
                part.add_row(*row)
            console.print(part, "")
        for name, status, error in zip(names, table["status"], table["error"], strict=True):
            if _cell(error) and status != UNREADABLE:  # those are told on stderr
                console.print(f"{name}: {error}", soft_wrap=True)
    print(shown.get(), end="")


def _parts(text: "pd.DataFrame", width: int) -> list[list[str]]:
    """Columns that fit side by side, each time with the first, which names the row."""
    widths = {name: max(len(name), int(text[name].str.len().max())) + 2 for name in text.columns}
    first, *others = text.columns
    parts: list[list[str]] = []
    for name in others:
        if not parts or sum(widths[shown] for shown in (*parts[-1], name)) > width:
            parts.append([first])
        parts[-1].append(name)
    return parts


def _cell(value: Any, digits: str = "") -> str:
    import pandas as pd

    from eprop_cli.sweep import spelling

    if value is not None and not isinstance(value, list | dict) and pd.isna(value):
        return ""
    return format(value, digits) if isinstance(value, float) else spelling(value)


def write_csv(table: "pd.DataFrame", path: Path) -> None:
    """Write a comparison, config values spelt as on the command line and numbers in full."""
    from eprop_cli.writer import write_whole

    text = table.map(_cell).to_csv(index=False).encode()
    write_whole(path, lambda file: _discard(file.write(text)))


def _is_comparison(path: Path) -> bool:
    """Whether a file was written by eprop-compare; any figure drawn by eprop-cli passes for one."""
    from eprop_cli.plots import ORIGIN
    from eprop_cli.sweep import SUMMARY

    content = path.read_bytes()
    if path.suffix == ".csv":
        return content.split(b"\n")[0].strip().endswith(",".join(SUMMARY).encode())
    return ORIGIN.encode() in content


class Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, epilog=epilog, formatter_class=raw, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Exit."""
        self.exit(BAD_INPUT, f"{self.prog}: {message}; see {self.prog} --help\n")


def leave(prog: str, act: Callable[[], int]) -> NoReturn:
    """Exit with the status of an action, or with one line if it cannot be done."""
    replace_closed_outputs()
    try:
        status = act()
        sys.stdout.flush()
    except UserError as error:
        status = _complain(prog, error)
    except BrokenPipeError:  # the reader, such as head, has had enough
        drop_output()
        status = 0
    except OSError as error:
        status = _complain(prog, f"{error.filename}: {error.strerror}" if error.filename else error)
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def drop_output() -> None:
    """Let what is still to be printed go nowhere, or Python would complain of it on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(prog: str, problem: object) -> int:
    print(f"{prog}: {problem}", file=sys.stderr)
    return BAD_INPUT


def _complain_once(problems: Sequence[str]) -> int:
    """Tell each problem of a run once, however many figures or lines it spoils; returns the exit status."""
    return max((_complain("eprop-plot", problem) for problem in dict.fromkeys(problems)), default=0)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("must name at least one")
    return names


def positive(text: str) -> int:
    """A whole number from 1, as the type of an option."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError("must be a whole number from 1")
    return int(text)


def _check_names(option: str, names: Sequence[str] | None) -> None:
    from eprop_cli.config import FIGURES, FORMATS

    choices = {"--figures": FIGURES, "--formats": FORMATS}[option]
    for name in names or ():
        if name not in choices:
            raise UserError(f"{option} {name}: must be one of {', '.join(choices)}")


def _check_dpi(dpi: int | None) -> None:
    from eprop_cli.config import LEAST_DPI, MOST_DPI

    if dpi is not None and not LEAST_DPI <= dpi <= MOST_DPI:
        raise UserError(f"--dpi {dpi}: must be from {LEAST_DPI} to {MOST_DPI}")


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be made: {error.strerror}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UserError(f"{directory}: cannot be written")


def _size(n: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            break
        n /= 1000
    return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"


def _discard(_: Any) -> None:
    return None
