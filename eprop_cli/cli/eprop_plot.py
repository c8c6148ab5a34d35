"""eprop-plot: draw a run's figures again, from its directory alone."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, NoReturn

from eprop_cli.cli.eprop_compare import check_dpi, check_look, check_names, make_directory
from eprop_cli.errors import UserError, legible
from eprop_cli.looks import BANDS, FORMATS, STYLES
from eprop_cli.registry import VARIANTS
from eprop_cli.runs.allowed import allow
from eprop_cli.runs.directory import check_inside
from eprop_cli.runs.files import FIGURES as FIGURE_DIRECTORY
from eprop_cli.runs.files import RUN
from eprop_cli.runs.reader import Run
from eprop_cli.terminal import Parser, complain, index_list, leave, name_list, positive

if TYPE_CHECKING:
    from eprop_cli.config.groups import Plots

# Kinds of the keys that say how figures look.
TEXT = (str, NoneType)
LOOKS = {"dpi": (int,), "style": (str,), "width": (int, float, NoneType), "font": TEXT, "band": (str,), "metric": TEXT}
# Of runs from before there were these keys.
BEFORE = {"style": "default", "width": None, "font": None, "band": BANDS[0], "metric": None}
PLOT_HELP = """\
examples:
  eprop-plot outputs/2026-01-31/12-00-00-000000   redraw as the run drew them
  eprop-plot --list RUN_DIR                       what is in a run directory
  eprop-plot --figures dynamics --formats pdf RUN_DIR
                                                  one figure, for a paper
  eprop-plot --style paper --width 180 --formats pdf RUN_DIR
                                                  for a journal
  eprop-plot --figures dynamics --sequence 3 --neurons 0,2 RUN_DIR
                                                  closer
  eprop-plot --output figures RUN_DIR             do not touch the run directory

Figures are drawn from the run directory alone; a figure of the same name is
replaced. What was not recorded is left out. Exit status: 0, or 2 if something
was wrong with the input.
"""


def plot() -> NoReturn:
    """Entry point of eprop-plot."""
    parser = Parser("eprop-plot", "Redraw the figures of runs from their directories.", PLOT_HELP)
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="run directory")
    parser.add_argument("--list", action="store_true", help="say what is in the run directories and draw nothing")
    parser.add_argument("--figures", type=name_list, metavar="NAME,...", help="figures to draw (default: as the run)")
    parser.add_argument("--formats", type=name_list, metavar="NAME,...", help="png, pdf, svg (default: as the run)")
    parser.add_argument("--dpi", type=positive, metavar="N", help="resolution of png (default: that of the run)")
    parser.add_argument("--style", choices=STYLES, help="how they look (default: as the run)")
    parser.add_argument("--width", type=positive, metavar="MM", help="their width (default: as the run)")
    parser.add_argument("--font", metavar="FAMILY", help="of their letters (default: as the run)")
    parser.add_argument("--sequence", type=int, default=0, metavar="N", help="of dynamics, in the batch (default: 0)")
    parser.add_argument("--neurons", type=index_list, metavar="N,...", help="of dynamics (default: all recorded)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to (default: figures/ in the run directory)")
    parser.add_argument(
        "--allow-module", action="append", default=[], metavar="NAME", help="module of your own that a run may name"
    )
    leave(parser.prog, lambda: _plot(parser.parse_args()))


def _plot(options: argparse.Namespace) -> int:
    check_names("--figures", options.figures)
    check_names("--formats", options.formats)
    check_dpi(options.dpi)
    check_look(options)
    options.allowed = allow(options.allow_module)
    runs = [Run(path) for path in options.runs]
    status = 0
    for run, into in zip(runs, _destinations(runs, options.output), strict=True):
        try:
            status = max(status, _list(run) if options.list else _redraw(run, into, options))
        except UserError as error:
            status = complain("eprop-plot", error)
    return status


def _redraw(run: Run, into: Path, options: argparse.Namespace) -> int:
    """Draw the figures of a run; one that cannot be drawn does not keep the others from it."""
    from eprop_cli.figures.base import Look
    from eprop_cli.figures.draw import draw_run

    chosen = _chosen(run, options)
    formats = options.formats or chosen.formats or FORMATS[:1]
    if into == run.directory / FIGURE_DIRECTORY:
        check_inside(run.directory, FIGURE_DIRECTORY)
    make_directory(into)
    look = Look(chosen.style, chosen.width, chosen.font)
    problems = []
    for name in options.figures or chosen.figures or VARIANTS["figure"]:
        try:
            choice = {"sequence": options.sequence, "neurons": options.neurons}
            paths = draw_run(run, [name], formats, options.dpi or chosen.dpi, into, look, **choice)
        except UserError as error:
            problems.append(str(error))
            continue
        print("\n".join(map(str, paths)) if paths else f"{run.directory}: {name}: not drawn, it has no data for it")
    return _complain_once(problems)


def _chosen(run: Run, options: argparse.Namespace) -> "Plots":
    """What the run's config says of figures, or the options, checked as if it had been typed in."""
    from eprop_cli.config.foreign import check_trusted, trusted
    from eprop_cli.config.groups import Plots

    given = {"style": options.style, "width": options.width, "font": options.font}
    keys = run.config["plots"] | {key: value for key, value in given.items() if value is not None}
    keys = BEFORE | keys
    texts = (keys.get("figures"), keys.get("formats"))
    try:
        whole = all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in texts)
        whole = whole and all(type(keys.get(key)) in kinds for key, kinds in LOOKS.items())
        if not whole or len(keys) > len(texts) + len(LOOKS):
            raise UserError("its config is not that of a run: plots")
        check_trusted({"plots": keys}, trusted(options.allowed, ()))
        return Plots(**keys)
    except UserError as error:
        raise UserError(f"{run.directory / RUN}: {error}") from error


def _destinations(runs: Sequence[Run], output: Path | None) -> list[Path]:
    """A directory for the figures of each run; several that go elsewhere keep their places among each other."""
    if output is None:
        return [run.directory / FIGURE_DIRECTORY for run in runs]
    if len(runs) == 1:
        return [output]
    from eprop_cli.runs.comparison import places

    return [output / place for place in places(runs)[1]]


def _list(run: Run) -> int:
    """Print what there is of a run."""
    problems = []
    print(run.directory)
    for title, describe in {"run": _about, "batches": _batches, "recorded": _recorded, "figures": _figures}.items():
        try:
            print(f"  {title:<10}{legible(describe(run))}")
        except UserError as error:
            problems.append(str(error))
    print("  files")
    files = sorted(path for path in run.directory.rglob("*") if path.is_file())
    for path in files:
        print(f"  {size(path.stat().st_size):>10}  {legible(str(path.relative_to(run.directory)))}")
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


def _complain_once(problems: Sequence[str]) -> int:
    """Tell each problem of a run once, however many figures or lines it spoils; returns the exit status."""
    return max((complain("eprop-plot", problem) for problem in dict.fromkeys(problems)), default=0)


def size(n: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            break
        n /= 1000
    return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
