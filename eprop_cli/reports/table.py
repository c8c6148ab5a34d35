"""A comparison on the terminal, as CSV and as Markdown."""

import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eprop_cli.errors import legible

if TYPE_CHECKING:
    import pandas as pd

    from eprop_cli.runs.ranked import Comparison, Spread


PIPE_WIDTH = 240  # characters of a table that does not go to a terminal
SHORT_NAME = 20  # characters of a directory; longer ones are not shown beside the index
MOST_DIGITS = 6  # after the point


def show(comparison: "Comparison", each_run: bool = True) -> None:
    """Print a comparison, in several parts if the terminal is too narrow for its columns.

    each_run: a line per run too where there is one per group of seeds.
    """
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False)
    with console.capture() as shown:  # printed by itself it would end the process where the reader has had enough
        console.print(_heading(comparison), soft_wrap=True)
        if each_run or not comparison.seeds:
            _print(console, _runs_table(comparison))
            for line in _errors(comparison):
                console.print(line, soft_wrap=True)
        if comparison.seeds:
            console.print("over seeds: mean ± standard deviation")
            _print(console, _seeds_table(comparison))
        if best := _best_line(comparison):
            console.print(best, soft_wrap=True)
    print(shown.get(), end="")


def markdown(comparison: "Comparison") -> str:
    """A comparison as Markdown."""
    parts = [_markdown(_runs_table(comparison))]
    if comparison.seeds:
        parts += ["Over seeds, mean ± standard deviation:", _markdown(_seeds_table(comparison))]
    if best := _best_line(comparison):
        parts.append(best.replace("* b", "B", 1))
    return "\n\n".join(parts) + "\n"


def csv(table: "pd.DataFrame") -> str:
    """A table as CSV with an index, config values spelt as on the command line and numbers in full."""
    import pandas as pd

    index = pd.DataFrame({"index": table.index.to_numpy()}, index=table.index)
    return str(pd.concat([index, table.map(cell)], axis=1).to_csv(index=False))


def write_csv(table: "pd.DataFrame", path: Path) -> None:
    """Write a table as CSV."""
    from eprop_cli.runs.files import write_text

    write_text(path, csv(table))


def cell(value: Any, digits: str = "") -> str:
    """A value as a cell of a table; nothing where there is none."""
    import pandas as pd

    from eprop_cli.runs.comparison import spelling

    if value is not None and not isinstance(value, list | dict) and pd.isna(value):
        return ""
    return format(value, digits) if isinstance(value, float) else legible(spelling(value))


def spread(of: "Spread") -> str:
    """Mean ± standard deviation, as many digits as its two leading ones allow."""
    if math.isnan(of.mean):
        return ""
    if math.isnan(of.deviation) or of.deviation == 0.0:
        return format(of.mean, ".4g") + (" ± 0" if of.deviation == 0.0 else "")
    places = min(max(1 - math.floor(math.log10(of.deviation)), 0), MOST_DIGITS)
    return f"{of.mean:.{places}f} ± {of.deviation:.{places}f}"


def _heading(comparison: "Comparison") -> str:
    from eprop_cli.runs.comparison import places

    table = comparison.table
    top, _ = places(comparison.runs)
    facts = [f"all {cell(table['status'].iloc[0])}"] if len(table) > 1 and _is_same(table, "status") else []
    if len(table) > 1 and _is_same(table, "iterations") and cell(table["iterations"].iloc[0]):
        number = int(table["iterations"].iloc[0])
        facts.append(f"{number} iteration{'s' * (number != 1)} each")
    return legible(f"{len(table)} run{'s' * (len(table) > 1)} in {top}") + "".join(f", {fact}" for fact in facts)


def _is_same(table: "pd.DataFrame", column: str) -> bool:
    return len(set(map(cell, table[column]))) == 1


def _runs_table(comparison: "Comparison") -> "pd.DataFrame":
    """A line per run, as text; what is the same in all is in the heading."""
    from eprop_cli.runs.comparison import places
    from eprop_cli.schema import short_names

    table = comparison.table
    _, names = places(comparison.runs)
    text = table.drop(columns="error").assign(run=list(map(legible, names))).map(cell, digits=".4g")
    if max(map(len, names)) > SHORT_NAME:
        text = text.drop(columns="run")
    if len(table) > 1:
        text = text.drop(columns=[name for name in ("status", "iterations") if _is_same(table, name)])
    text = text.loc[:, (text != "").any()].rename(columns=short_names(list(table.columns)))
    text.insert(0, "#", [f"{'*' if index == comparison.best else ''}{index}" for index in table.index])
    return text


def _seeds_table(comparison: "Comparison") -> "pd.DataFrame":
    """A line per group of seeds, as text."""
    import pandas as pd

    from eprop_cli.schema import short_names

    names = short_names(comparison.keys)
    columns: dict[str, list[str]] = {
        names[key]: [cell(each.values[place], ".4g") for each in comparison.seeds]
        for place, key in enumerate(comparison.keys)
    }
    columns |= {
        name: [spread(each.spreads[place]) for each in comparison.seeds]
        for place, name in enumerate(comparison.metrics)
    }
    columns["n"] = [str(max(spread.n for spread in each.spreads)) for each in comparison.seeds]
    best = [None if each.best is None else (each.best == comparison.best, each.best) for each in comparison.seeds]
    columns["best run"] = ["" if each is None else f"{'*' * each[0]}{each[1]}" for each in best]
    return pd.DataFrame(columns)


def _best_line(comparison: "Comparison") -> str:
    if comparison.best is None:
        return ""
    metric = comparison.metrics[0]
    row = comparison.opened[list(comparison.table.index).index(comparison.best)]
    place = shlex.quote(str(_from_here(row.run.directory)))
    return legible(f"* best by {metric}: {comparison.best}, {row.value(metric):.4g}: {place}")


def _from_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _errors(comparison: "Comparison") -> list[str]:
    from eprop_cli.runs.comparison import UNREADABLE

    table = comparison.table
    rows = zip(table.index, table["status"], table["error"], strict=True)
    return [
        legible(f"{index}: {error}") for index, status, error in rows if cell(error) and status != UNREADABLE
    ]  # unreadable ones are told on stderr


def _print(console: Any, text: "pd.DataFrame") -> None:
    from rich.table import Table

    for columns in _parts(text, console.width):
        part = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in columns:
            part.add_column(name, justify="left" if name == "run" else "right", overflow="fold")
        for row in text[columns].itertuples(index=False):
            part.add_row(*row)
        console.print(part, "")


def _parts(text: "pd.DataFrame", width: int) -> list[list[str]]:
    """Columns that fit side by side, each time with the first, which names the row."""
    widths = {name: max(len(name), int(text[name].str.len().max())) + 2 for name in text.columns}
    first, *others = text.columns
    parts: list[list[str]] = []
    for name in others:
        if not parts or sum(widths[shown] for shown in (*parts[-1], name)) > width + 2:  # nothing follows the last
            parts.append([first])
        parts[-1].append(name)
    return parts


def _markdown(text: "pd.DataFrame") -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(each.replace('|', chr(92) + '|') for each in cells)} |"

    text = text.map(lambda each: f"**{each[1:]}**" if each[:1] == "*" else each)  # the best
    rules = [":---" if name == "run" else "---:" for name in text.columns]
    rows = [line(row) for row in text.itertuples(index=False)]
    return "\n".join([line(list(text.columns)), f"| {' | '.join(rules)} |", *rows])
