"""A comparison on the terminal and as CSV."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eprop_cli.errors import legible
from eprop_cli.runs.reader import Run

if TYPE_CHECKING:
    import pandas as pd


PIPE_WIDTH = 240  # characters of a table that does not go to a terminal


def show(table: "pd.DataFrame", runs: Sequence[Run]) -> None:
    """Print the comparison, in several parts if the terminal is too narrow for its columns."""
    from rich.console import Console
    from rich.table import Table

    from eprop_cli.runs.comparison import UNREADABLE, places, short_names

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False)
    top, names = places(runs)
    text = table.drop(columns="error").assign(run=names).map(cell, digits=".4g")
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
            if cell(error) and status != UNREADABLE:  # those are told on stderr
                console.print(legible(f"{name}: {error}"), soft_wrap=True)
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


def cell(value: Any, digits: str = "") -> str:
    """A value as a cell of a table; nothing where there is none."""
    import pandas as pd

    from eprop_cli.runs.comparison import spelling

    if value is not None and not isinstance(value, list | dict) and pd.isna(value):
        return ""
    return format(value, digits) if isinstance(value, float) else legible(spelling(value))


def write_csv(table: "pd.DataFrame", path: Path) -> None:
    """Write a comparison, config values spelt as on the command line and numbers in full."""
    from eprop_cli.runs.files import write_whole

    text = table.map(cell).to_csv(index=False).encode()
    write_whole(path, lambda file: _discard(file.write(text)))


def _discard(_: Any) -> None:
    return None
