"""Loss and error over iterations."""

from typing import Any

import pandas as pd
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eprop_cli.figures.style import BLUE, GREEN, MANY_ROWS, PURPLE, ROUND, STYLE, VERMILLION
from eprop_cli.phases import EARLY_STOPPING, TEST, TRAINING, VALIDATION

PHASES: dict[str, dict[str, Any]] = {
    TRAINING: {"color": BLUE, "marker": "o", "zorder": 2},
    VALIDATION: {"color": VERMILLION, "marker": "s", "linestyle": "--", "zorder": 3},
    EARLY_STOPPING: {"color": PURPLE, "marker": "^", "linestyle": "", "zorder": 4},
    TEST: {"color": GREEN, "marker": "D", "linestyle": "", "zorder": 4},
}
LOSS_LABELS = {"cross_entropy": "loss\n(cross-entropy)", "mean_squared_error": "loss\n(mean squared error, mV²)"}
RECALL_ERROR_LABEL = "recall error\n(fraction of sequences)"


@style.context(STYLE)
def learning(metrics: pd.DataFrame, loss: str) -> Figure:
    """Loss and, where there is one, recall error over iterations; phases by colour and marker.

    metrics: as Run.metrics. loss: name of the loss function.
    """
    shown = ["loss"] + ["recall_error"] * bool(metrics["recall_error"].notna().any())
    figure = Figure(figsize=(6.4, 1.2 + 1.8 * len(shown)))
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for ax, column in zip(axes, shown, strict=True):
        for phase, look in PHASES.items():
            rows = metrics[metrics["phase"] == phase]
            if len(rows):
                many = len(rows) > MANY_ROWS and look.get("linestyle") != ""
                size = {"marker": "", "linewidth": 0.5} if many else {"markersize": 3.5, "linewidth": 0.8}
                ax.plot(rows["iteration"], rows[column], label=phase, **(look | size))
    axes[0].set_ylabel(LOSS_LABELS.get(loss, "loss"))
    if len(axes) > 1:
        axes[1].set_ylabel(RECALL_ERROR_LABEL)
        axes[1].set_ylim(-0.05, 1.05)
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
