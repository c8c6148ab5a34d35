"""Loss and error over iterations."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eprop_cli.columns import Column, judged
from eprop_cli.figures.base import Drawing
from eprop_cli.figures.style import BLUE, GREEN, MANY_ROWS, PURPLE, ROUND, VERMILLION, styled
from eprop_cli.phases import EARLY_STOPPING, TEST, TRAINING, VALIDATION
from eprop_cli.runs.reader import Run

PHASES: dict[str, dict[str, Any]] = {
    TRAINING: {"color": BLUE, "marker": "o", "zorder": 2},
    VALIDATION: {"color": VERMILLION, "marker": "s", "linestyle": "--", "zorder": 3},
    EARLY_STOPPING: {"color": PURPLE, "marker": "^", "linestyle": "", "zorder": 4},
    TEST: {"color": GREEN, "marker": "D", "linestyle": "", "zorder": 4},
}
LOG_DECADES = 1.5  # a loss that spans more is drawn on a logarithmic axis


class Learning(Drawing):
    """plots.figures=[learning]."""

    least_width = 90.0

    @staticmethod
    def draw(run: Run) -> Iterator[tuple[str, Figure]]:
        """One figure."""
        metrics = run.metrics
        if len(metrics):
            yield "learning", learning(metrics, run.columns)


@styled
def learning(metrics: pd.DataFrame, columns: Sequence[Column]) -> Figure:
    """The loss and the metric by which the task is judged over iterations; phases by colour and marker.

    metrics: as Run.metrics. columns: as Run.columns.
    """
    shown = judged(columns)
    figure = Figure(figsize=(6.4, 1.2 + 1.8 * len(shown)))
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for ax, column in zip(axes, shown, strict=True):
        for phase, look in PHASES.items():
            rows = metrics[metrics["phase"] == phase]
            if len(rows):
                many = len(rows) > MANY_ROWS and look.get("linestyle") != ""
                size = {"marker": "", "linewidth": 0.5} if many else {"markersize": 3.5, "linewidth": 0.8}
                ax.plot(rows["iteration"], rows[column.name], label=phase, **(look | size))
        scale(ax, column, metrics[column.name])
    axes[-1].set_xlabel("training iteration")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=ROUND))
    if metrics["iteration"].nunique() == 1:  # Matplotlib would put a single iteration among fractions
        only = metrics["iteration"].iloc[0]
        axes[-1].set_xlim(only - 1, only + 1)
    phases = metrics["phase"].nunique()
    if phases > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="upper center", ncols=len(PHASES))
    figure.align_ylabels()
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.15, right=0.97, bottom=0.5 / height, top=1 - (0.4 if phases > 1 else 0.2) / height)
    return figure


def scale(ax: Axes, column: Column, values: pd.Series) -> None:
    """Label the axis of a metric and choose its scale: all of what is possible, or decades where there are several."""
    name = "loss" if column.name == "loss" else column.label
    detail = column.label if column.name == "loss" else ""
    notes = ", ".join(part for part in (detail, column.unit) if part)
    ax.set_ylabel(f"{name}\n({notes})" if notes else name)
    positive = values[values > 0]
    if column.least is not None and column.most is not None:
        margin = 0.05 * (column.most - column.least)
        ax.set_ylim(column.least - margin, column.most + margin)
    elif len(positive) == len(values) and math.log10(positive.max() / positive.min()) > LOG_DECADES:
        ax.set_yscale("log")
