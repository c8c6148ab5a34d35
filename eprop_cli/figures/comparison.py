"""Many runs in one figure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eprop_cli.columns import Column, judged
from eprop_cli.runs.comparison import (
    MAX_VALUE,
    SEED,
    Group,
    Opened,
    _order,
    _rounded,
    differing,
    grouped,
    open_run,
    places,
    short_names,
    spelling,
    units_of,
)
from eprop_cli.runs.reader import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_LABELS, MAX_LABEL = 24, 66  # in a legend: entries, and characters of one that fit into a figure
MAX_FILLED = 3  # bands
MAX_TICKS = 36  # characters that fit below a heat map side by side


@dataclass(frozen=True)
class Panel:
    """A metric; problem: whose runs alone are shown, None: all that have it."""

    column: Column
    problem: tuple[str, str] | None = None

    def curve(self, group: Group) -> pd.DataFrame:
        """As Group.curve, empty where the group is another problem's."""
        own = self.problem is None or group.members[0].problem == self.problem
        return group.curve(self.column.name) if own else pd.DataFrame({"mean": [], "low": [], "high": []})


def sweep_figure(runs: Sequence[Run]) -> "Figure":
    """Loss and recall error over training iterations, a line per run, and a heat map if two keys were swept.

    Runs that differ only in their seed become one line, their mean, in a band from their lowest to their highest; of
    runs that do not even differ in that, the latest counts. Runs without training iterations are left out.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    from eprop_cli.figures.style import LABEL_ROW, STYLE

    opened = [each for each in map(open_run, runs) if len(each.training)]
    keys = [key for key in differing(opened) if key != SEED]
    groups = grouped(opened, keys)
    labels = _labels(groups, keys)
    panels = _panels(opened)
    grid = _is_grid(groups) and len({each.problem for each in opened}) == 1
    width = 11.0 if grid else 6.4
    per_row = max(1, int(width * 13 / (max(map(len, labels), default=0) + 8)))
    rows = math.ceil(min(len(groups), MAX_LABELS) / per_row)
    with style.context(STYLE):
        figure = Figure(figsize=(width, 1.2 + 1.8 * len(panels) + LABEL_ROW * rows), layout="constrained")
        parts: Any = figure.subfigures(1, 2, width_ratios=[3, 2]) if grid else (figure, None)
        left, right = parts
        axes = left.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for ax, panel in zip(axes, panels, strict=True):
            _draw_curves(ax, groups, panel)
        axes[-1].set_xlabel("training iteration")
        left.align_ylabels(axes)
        if any(labels):
            notes = ["lines: means, bands: from lowest to highest"] * any(len(group.members) > 1 for group in groups)
            notes += [f"the first {MAX_LABELS} of {len(labels)} are listed"] * (len(labels) > MAX_LABELS)
            shown = axes[0].get_lines()[:MAX_LABELS]
            place: dict[str, Any] = {"loc": "outside lower center", "ncols": per_row}
            figure.legend(shown, labels[:MAX_LABELS], title="; ".join(notes) or None, title_fontsize="medium", **place)
        if right is not None:
            _draw_grid(right.subplots(), groups, keys)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # were it to go on settling, one saving would differ from the next
    return figure


def _labels(groups: Sequence[Group], keys: Sequence[str]) -> list[str]:
    """What tells the groups from each other: their values, or where those would fill the figure, their directories."""
    members = [each for group in groups for each in group.members]
    names, units = short_names(keys), units_of(members, keys)
    ends = [f" {units[key]}" if key in units else "" for key in keys]

    def label(group: Group, spell: Callable[[Any], str]) -> str:
        values = [spell(value)[:MAX_VALUE] for value in group.values]
        return ", ".join(f"{names[key]}={value}{end}" for key, value, end in zip(keys, values, ends, strict=True))

    labels = [label(group, _rounded) for group in groups]
    if len(set(labels)) < len(labels):
        labels = [label(group, spelling) for group in groups]
    if max(map(len, labels), default=0) > MAX_LABEL:
        if all(len(group.members) == 1 for group in groups):
            _, labels = places([group.members[0].run for group in groups])
        labels = _elided(labels)
    for index, group in enumerate(groups):
        if len(group.members) > 1:
            count = f"{len(group.members)} seeds"
            labels[index] = f"{labels[index]} ({count})" if labels[index] else count
    return labels


def _elided(labels: Sequence[str]) -> list[str]:
    """Labels of at most MAX_LABEL characters, the rest left out as near the middle as leaves them apart."""

    def elide(label: str, head: int) -> str:
        rest = len(label) - (MAX_LABEL - 1 - head)
        return label if len(label) <= MAX_LABEL else f"{label[:head]}…{label[rest:]}"

    heads = sorted(range(MAX_LABEL), key=lambda head: abs(head - MAX_LABEL // 2))
    choices = [[elide(label, head) for label in labels] for head in heads]
    return max(choices, key=lambda choice: len(set(choice)))  # the first of those that are equally good


def _draw_curves(ax: "Axes", groups: Sequence[Group], panel: Panel) -> None:
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    from eprop_cli.figures.learning import scale
    from eprop_cli.figures.style import DASHES, LINES, MANY_ROWS, ROUND

    colours: Sequence[Any] = LINES
    if len(groups) > len(LINES):
        colours = list(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.92, len(groups))))
    drawn = [panel.curve(group) for group in groups]
    for index, (group, curve) in enumerate(zip(groups, drawn, strict=True)):
        colour = colours[index]
        marker = "." if 0 < len(curve) <= MANY_ROWS else ""
        ax.plot(curve.index, curve["mean"], marker=marker, color=colour, linestyle=DASHES[index % len(DASHES)])
        if len(group.members) > 1 and len(curve):
            ax.fill_between(curve.index, curve["low"], curve["high"], **_band(colour, len(groups)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=ROUND))
    curves = [curve["mean"] for curve in drawn if len(curve)]
    scale(ax, panel.column, pd.concat(curves) if curves else pd.Series(dtype=float))
    if panel.problem is not None:
        ax.set_title(panel.problem[0], loc="right", fontsize="medium")


def _panels(opened: Sequence[Opened]) -> list[Panel]:
    """The metrics by which runs are judged, of the loss a panel per problem: two problems' losses do not compare."""
    several = len({each.problem for each in opened}) > 1
    panels = dict.fromkeys(
        Panel(column, each.problem if several and column.name == "loss" else None)
        for each in opened
        for column in judged(each.columns)
    )
    return sorted(panels, key=lambda panel: panel.problem is None) or [Panel(Column("loss", ""))]


def _band(colour: Any, n_groups: int) -> dict[str, Any]:
    """Look of a band: of many the edges alone, as fillings would blend into grey."""
    if n_groups > MAX_FILLED:
        return {"facecolor": "none", "edgecolor": colour, "alpha": 0.4, "linewidth": 0.5}
    return {"color": colour, "alpha": 0.3 if n_groups == 1 else 0.15, "linewidth": 0.0}


def _is_grid(groups: Sequence[Group]) -> bool:
    """Whether two keys were swept against each other."""
    if not groups or len(groups[0].values) != 2:
        return False
    sides = [{spelling(group.values[side]) for group in groups} for side in (0, 1)]
    return min(map(len, sides)) > 1 and len(groups) > max(map(len, sides))


def _draw_grid(ax: "Axes", groups: Sequence[Group], keys: Sequence[str]) -> None:
    """Final loss over the values of two keys."""
    rows, columns = (sorted({_order(group.values[side]) for group in groups}) for side in (0, 1))
    losses = np.full((len(rows), len(columns)), np.nan)
    for group in groups:
        losses[rows.index(_order(group.values[0])), columns.index(_order(group.values[1]))] = group.final_loss
    image = ax.imshow(losses, "viridis", aspect="auto", origin="lower")
    middle = (np.nanmin(losses) + np.nanmax(losses)) / 2
    for (row, column), loss in np.ndenumerate(losses):
        if not np.isnan(loss):
            colour = "white" if loss < middle else "black"
            number = f"{loss:#.3g}".removesuffix(".")
            ax.text(column, row, number, ha="center", va="center", color=colour, fontsize="small")
    members = [each for group in groups for each in group.members]
    names, units = short_names(keys), units_of(members, keys)
    labels = [f"{names[key]} ({units[key]})" if key in units else names[key] for key in keys]
    beside, below = (
        [(text if no_number else _rounded(number))[:MAX_VALUE] for no_number, number, text in side]
        for side in (rows, columns)
    )
    upright = sum(map(len, below)) > MAX_TICKS
    ax.set_yticks(range(len(rows)), beside)
    ax.set_xticks(range(len(columns)), below, rotation="vertical" if upright else "horizontal")
    ax.set_ylabel(labels[0])
    ax.set_xlabel(labels[1])
    seeds = " (mean over seeds)" if any(len(group.members) > 1 for group in groups) else ""
    ax.figure.colorbar(image, ax=ax, label=f"final training loss{seeds}")
