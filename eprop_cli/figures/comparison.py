"""Many runs in one figure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eprop_cli.columns import Column, judged
from eprop_cli.looks import BANDS, LEAST_WIDTH, MOST_WIDTH, STYLES
from eprop_cli.phases import TEST, TRAINING, VALIDATION
from eprop_cli.runs.comparison import (
    BAND_NOTES,
    MAX_VALUE,
    RANGE,
    SEED,
    Opened,
    RunGroup,
    _order,
    _rounded,
    differing,
    grouped,
    open_all,
    places,
    spelling,
    units_of,
    usual_metric,
)
from eprop_cli.runs.reader import Run
from eprop_cli.schema import short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_LABELS, MAX_LABEL = 24, 66  # in a legend: entries, and characters of one that fit into a figure
NARROW, NARROW_GRID = 80.0, 150.0  # mm, with the letters that it is designed with
MAX_FILLED = 3  # bands
MAX_PLAIN = 6  # lines that are drawn as they are; of more, running means without bands
SMOOTHED = 30  # a running mean takes one part in so many of the iterations
EVALUATIONS: dict[str, dict[str, Any]] = {
    VALIDATION: {"marker": "s", "markersize": 4, "markerfacecolor": "none"},
    TEST: {"marker": "D", "markersize": 6, "markeredgecolor": "black", "markeredgewidth": 0.6, "clip_on": False},
}
MAX_TICKS = 36  # characters that fit below a heat map side by side


@dataclass(frozen=True)
class MetricPanel:
    """A metric; problem: whose runs alone are shown, None: all that have it."""

    column: Column
    problem: tuple[str, str] | None = None

    def curve(self, group: RunGroup, phase: str = TRAINING, band: str = RANGE) -> pd.DataFrame:
        """As RunGroup.curve, empty where the group is another problem's."""
        own = self.problem is None or group.members[0].problem == self.problem
        return group.curve(self.column.name, phase, band) if own else pd.DataFrame({"mean": [], "low": [], "high": []})


def sweep_figure(
    runs: Sequence[Run | Opened],
    *,
    band: str | None = None,
    metric: str | None = None,
    style: str | None = None,
    width: float | None = None,
    font: str | None = None,
    best: str | None = None,
) -> "Figure":
    """Loss and recall error over training iterations, a line per run, and a heat map if two keys were swept.

    Runs that differ only in their seed become one line, their mean, in a band; of runs that do not even differ in that,
    the latest counts. Runs without training iterations are left out.

    band: of BANDS. metric: an objective, shown in the heat map. style, width (mm), font: as in plots. None: what the
    first run's config has. best: name of the directory of a run whose line is thick and named so.
    """
    from eprop_cli.figures.style import look

    opened = [each for each in open_all(runs) if len(each.training)]
    chosen: dict[str, Any] = {"band": RANGE, "style": "default"} | next(
        (plots for each in opened if (plots := _plots(each))), {}
    )
    asked = {"band": band, "style": style, "width": width, "font": font}
    chosen |= {key: value for key, value in asked.items() if value is not None}
    with look(str(chosen["style"]), chosen.get("font")):
        return _figure(opened, str(chosen["band"]), metric or usual_metric(opened), chosen.get("width"), best)


def _plots(opened: Opened) -> dict[str, Any]:
    """What a run's config says of how a figure of several runs looks, as far as that is possible here."""
    from eprop_cli.figures.style import is_installed

    possible: dict[str, Callable[[Any], bool]] = {
        "band": lambda band: band in BANDS,
        "style": lambda style: style in STYLES,
        "width": lambda width: isinstance(width, int | float) and LEAST_WIDTH <= width <= MOST_WIDTH,
        "font": lambda font: isinstance(font, str) and is_installed(font),
    }
    given = {key: opened.config.get(f"plots.{key}") for key in possible}
    return {key: value for key, value in given.items() if value is not None and possible[key](value)}


def _figure(opened: Sequence[Opened], band: str, metric: str, wide: float | None, best: str | None) -> "Figure":
    from matplotlib.figure import Figure

    from eprop_cli.figures.style import INCH, LABEL_ROW, letters

    keys = [key for key in differing(opened) if key != SEED]
    groups = grouped(opened, keys)
    labels = _labels(groups, keys)
    marked = [any(each.run.directory.name == best for each in group.members) for group in groups]
    labels = [f"{label} (best)" if is_best else label for label, is_best in zip(labels, marked, strict=True)]
    panels = _panels(opened)
    grid = _is_grid(groups) and len({each.problem for each in opened}) == 1
    least = (NARROW_GRID if grid else NARROW) * letters()
    width = (11.0 if grid else 6.4) if wide is None else max(wide, least) / INCH
    per_row = max(1, int(width * 13 / letters() / (max(map(len, labels), default=0) + 8)))
    rows = math.ceil(min(len(groups), MAX_LABELS) / per_row)
    high = (1.2 + LABEL_ROW * rows) * letters() + 1.8 * len(panels)
    figure = Figure(figsize=(width, high), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=[3, 2]) if grid else (figure, None)
    left, right = parts
    axes = left.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for ax, panel in zip(axes, panels, strict=True):
        _draw_curves(ax, groups, panel, band, marked)
    axes[-1].set_xlabel("training iteration")
    left.align_ylabels(axes)
    if any(labels):
        about_bands = f", bands: {BAND_NOTES[band]}" if len(groups) <= MAX_PLAIN else " over seeds"
        notes = [f"lines: means{about_bands}"] * any(len(group.members) > 1 for group in groups)
        phases = {phase for each in opened for phase in each.metrics["phase"].unique()}
        marks = ["squares: validation"] * (VALIDATION in phases) + ["diamonds: test"] * (TEST in phases)
        notes += ["lines are running means"] * any(
            _window(each.training["loss"], len(groups)) > 1 for each in opened
        ) + [", ".join(marks)] * bool(marks)
        notes += [f"the first {MAX_LABELS} of {len(labels)} are listed"] * (len(labels) > MAX_LABELS)
        shown = [line for line in axes[0].get_lines() if line.get_linestyle() != "None"][:MAX_LABELS]
        place: dict[str, Any] = {"loc": "outside lower center", "ncols": per_row}
        figure.legend(shown, labels[:MAX_LABELS], title="; ".join(notes) or None, title_fontsize="medium", **place)
    if right is not None:
        _draw_grid(right.subplots(), groups, keys, metric)
    layout: Any = figure.get_layout_engine()
    layout.execute(figure)
    figure.set_layout_engine("none")  # were it to go on settling, one saving would differ from the next
    return figure


def _labels(groups: Sequence[RunGroup], keys: Sequence[str]) -> list[str]:
    """What tells the groups from each other: their values, or where those would fill the figure, their directories."""
    members = [each for group in groups for each in group.members]
    names, units = short_names(keys), units_of(members, keys)
    ends = [f" {units[key]}" if key in units else "" for key in keys]

    def label(group: RunGroup, spell: Callable[[Any], str]) -> str:
        values = [spell(value)[:MAX_VALUE] for value in group.keyed]
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


def _draw_curves(ax: "Axes", groups: Sequence[RunGroup], panel: MetricPanel, band: str, marked: Sequence[bool]) -> None:
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    from eprop_cli.figures.learning import scale
    from eprop_cli.figures.style import DASHES, LINES, MANY_ROWS, ROUND

    colours: Sequence[Any] = LINES
    if len(groups) > len(LINES):
        colours = list(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.92, len(groups))))
    drawn = [panel.curve(group, TRAINING, band) for group in groups]
    for index, (group, curve) in enumerate(zip(groups, drawn, strict=True)):
        colour = colours[index]
        marker = "." if 0 < len(curve) <= MANY_ROWS else ""
        smooth = _smoothed(curve["mean"], len(groups))
        thick: dict[str, Any] = {"linewidth": 2.5, "zorder": 3} if marked[index] else {}
        ax.plot(curve.index, smooth, marker=marker, color=colour, linestyle=DASHES[index % len(DASHES)], **thick)
        _draw_evaluations(ax, group, panel, colour, many=len(groups) > MAX_PLAIN)
        if len(group.members) > 1 and len(curve) and len(groups) <= MAX_PLAIN:  # of more they hide the lines
            ax.fill_between(curve.index, curve["low"], curve["high"], **_band(colour, len(groups)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=ROUND))
    curves = [curve["mean"] for curve in drawn if len(curve)]
    scale(ax, panel.column, pd.concat(curves) if curves else pd.Series(dtype=float))
    if panel.problem is not None:
        ax.set_title(panel.problem[0], loc="right", fontsize="medium")


def _window(values: pd.Series, n_groups: int) -> int:
    """Over how many iterations running means go, where there are many lines, which would hide each other."""
    return max(1, len(values) // SMOOTHED) if n_groups > MAX_PLAIN else 1


def _smoothed(values: pd.Series, n_groups: int) -> pd.Series:
    return values.rolling(_window(values, n_groups), min_periods=1, center=True).mean()


def _draw_evaluations(ax: "Axes", group: RunGroup, panel: MetricPanel, colour: Any, many: bool) -> None:
    """Validations as squares, the mean of the test as a diamond where it was; many: small, where there are many."""
    small: dict[str, Any] = {"markersize": 2.5, "alpha": 0.5} if many else {}
    for phase, look in EVALUATIONS.items():
        found = panel.curve(group, phase)
        if len(found):
            ax.plot(
                found.index,
                found["mean"],
                linestyle="",
                color=colour,
                zorder=4,
                **look | (small if phase == VALIDATION else {}),
            )


def _panels(opened: Sequence[Opened]) -> list[MetricPanel]:
    """The metrics by which runs are judged, of the loss a panel per problem: two problems' losses do not compare."""
    several = len({each.problem for each in opened}) > 1
    panels = dict.fromkeys(
        MetricPanel(column, each.problem if several and column.name == "loss" else None)
        for each in opened
        for column in judged(each.columns)
    )
    return sorted(panels, key=lambda panel: panel.problem is None) or [MetricPanel(Column("loss", ""))]


def _band(colour: Any, n_groups: int) -> dict[str, Any]:
    """Look of a band: of many the edges alone, as fillings would blend into grey."""
    if n_groups > MAX_FILLED:
        return {"facecolor": "none", "edgecolor": colour, "alpha": 0.4, "linewidth": 0.5}
    return {"color": colour, "alpha": 0.3 if n_groups == 1 else 0.15, "linewidth": 0.0}


def _is_grid(groups: Sequence[RunGroup]) -> bool:
    """Whether two keys were swept against each other."""
    if not groups or len(groups[0].keyed) != 2:
        return False
    sides = [{spelling(group.keyed[side]) for group in groups} for side in (0, 1)]
    return min(map(len, sides)) > 1 and len(groups) > max(map(len, sides))


def _draw_grid(ax: "Axes", groups: Sequence[RunGroup], keys: Sequence[str], metric: str) -> None:
    """An objective over the values of two keys, the mean over seeds."""
    rows, columns = (sorted({_order(group.keyed[side]) for group in groups}) for side in (0, 1))
    losses = np.full((len(rows), len(columns)), np.nan)
    for group in groups:
        if values := group.values(metric):
            losses[rows.index(_order(group.keyed[0])), columns.index(_order(group.keyed[1]))] = np.mean(values)
    image = ax.imshow(losses, "viridis", aspect="auto", origin="lower")
    middle = (np.nanmin(losses) + np.nanmax(losses)) / 2 if not np.isnan(losses).all() else 0.0
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
    ax.figure.colorbar(image, ax=ax, label=f"{metric}{seeds}")
