"""How well readouts follow their targets, over time and in the plane."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eprop_cli.figures.base import Drawing
from eprop_cli.figures.style import BLUE, STYLE
from eprop_cli.phases import TRAINING
from eprop_cli.runs.reader import Run

MEASURE = "nrmse"  # a run that has it follows targets, one that has not tells classes apart
MOST_COLUMNS, MOST_ROWS = 6, 8  # recorded iterations, spread over training, and readouts that fit into a figure
TARGET: dict[str, Any] = {"color": "0.72", "linewidth": 2.8, "label": "target", "solid_joinstyle": "round"}
READOUT: dict[str, Any] = {"color": BLUE, "linewidth": 0.8, "label": "readout"}


class Tracking(Drawing):
    """plots.figures=[tracking]."""

    @staticmethod
    def draw(run: Run) -> Iterator[tuple[str, Figure]]:
        """One figure of the recorded iterations."""
        metrics = run.metrics
        if MEASURE not in metrics:
            return
        recorded = {iteration: run.recording(iteration, 0, ["out"]).get("out") for iteration in run.recorded}
        tables = {iteration: table for iteration, table in recorded.items() if table is not None and len(table)}
        if tables:
            rows = metrics[metrics["phase"] == TRAINING].set_index("iteration")[MEASURE]
            titles = {i: f"iteration {i}" + (f"\nnRMSE {rows[i]:.3g}" if i in rows.index else "") for i in tables}
            yield "tracking", tracking(tables, titles, run.record["loss"]["symbols"], run.planes)


@style.context(STYLE)
def tracking(
    tables: Mapping[int, pd.DataFrame],
    titles: Mapping[int, str],
    symbols: Mapping[str, str],
    planes: Sequence[tuple[int, int]],
) -> Figure:
    """Targets and readouts of one sequence: a row per readout and per plane, a column per recorded iteration.

    tables: dynamic variables of the readouts, as Run.recording gives them, by iteration. titles: of the columns.
    symbols: of the readout signal. planes: pairs of readouts, as Run.planes; the second coordinate grows downwards.
    """
    shown = _spread(list(tables))
    neurons = sorted(map(int, tables[shown[0]]["neuron"].unique()))
    drawn, pairs = neurons[:MOST_ROWS], [pair for pair in planes if set(pair) <= set(neurons)]
    names = {k: symbols["readout"].replace("_k", f"_{{{k}}}") for k in neurons}
    figure, rows = _grid(len(shown), len(drawn), len(pairs))
    for column, iteration in enumerate(shown):
        signals = {int(str(k)): signal for k, signal in tables[iteration].groupby("neuron")}
        rows[0][column].set_title(titles[iteration], fontsize="medium")
        for axes, k in zip(rows, drawn, strict=False):
            _draw_course(axes[column], signals[k])
        rows[len(drawn) - 1][column].tick_params(labelbottom=True)
        rows[len(drawn) - 1][column].set_xlabel("time in the sequence (ms)")
        for axes, pair in zip(rows[len(drawn) :], pairs, strict=True):
            _draw_plane(axes[column], *(signals[k] for k in pair))
            axes[column].set_xlabel(names[pair[0]])
    for axes, k in zip(rows, [*drawn, *(down for _, down in pairs)], strict=True):
        axes[0].set_ylabel(names[k])
    figure.align_ylabels([axes[0] for axes in rows[: len(drawn)]])
    top = 1 - 0.05 / figure.get_figheight()
    figure.legend(*rows[0][0].get_legend_handles_labels(), loc="upper center", ncols=2, bbox_to_anchor=(0.5, top))
    return figure


def _grid(n_columns: int, n_courses: int, n_planes: int) -> tuple[Figure, list[list[Axes]]]:
    """A figure with rows of axes: time courses, then planes; each row shares its scales, time courses their times."""
    left, right, above, below, width, gap = 0.75, 0.2, 0.8, 0.5, 2.75, 0.2  # inches
    rows = [(1.2, 0.2)] * n_courses + [(2.6, 0.6)] * n_planes  # height, and gap above
    total_width = left + n_columns * width + (n_columns - 1) * gap + right
    total = above + sum(height + gap for height, gap in rows) - rows[0][1] + below
    figure, top = Figure(figsize=(total_width, total)), above - rows[0][1]
    made: list[list[Axes]] = []
    for row, (height, row_gap) in enumerate(rows):
        top += row_gap
        axes: list[Axes] = []
        for column in range(n_columns):
            x = (left + column * (width + gap)) / total_width
            box = (x, 1 - (top + height) / total, width / total_width, height / total)
            beside = made[0][0] if made and row < n_courses else axes[0] if axes else None
            axes.append(figure.add_axes(box, sharex=beside, sharey=axes[0] if axes else None))
            axes[-1].tick_params(labelleft=column == 0, labelbottom=row >= n_courses)
        made.append(axes)
        top += height
    for axes in made[n_courses:]:
        axes[0].invert_yaxis()
    return figure, made


def _spread(iterations: Sequence[int]) -> list[int]:
    """As many iterations as fit, from the first to the last."""
    chosen = np.linspace(0, len(iterations) - 1, min(len(iterations), MOST_COLUMNS)).round().astype(int)
    return [iterations[index] for index in chosen]


def _draw_course(ax: Axes, signal: pd.DataFrame) -> None:
    ax.plot(signal["time"], signal["target_signal"], **TARGET)
    ax.plot(signal["time"], signal["readout_signal"], **READOUT)
    ax.set_xlim(0.0, signal["time"].max())
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=4))


def _draw_plane(ax: Axes, across: pd.DataFrame, down: pd.DataFrame) -> None:
    ax.plot(across["target_signal"], down["target_signal"], **TARGET)
    ax.plot(across["readout_signal"], down["readout_signal"], **READOUT)
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5))
