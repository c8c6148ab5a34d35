"""Weights over time, and before and after training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eprop_cli.connectivity.base import PROJECTIONS
from eprop_cli.figures.style import GROUPS, LINES, SIGNED, STYLE
from eprop_cli.runs.reader import Projection


@style.context(STYLE)
def weight_time_courses(
    weights: Mapping[str, Projection], changes: pd.DataFrame, n_record: int, end: float | None
) -> Figure:
    """Weights over the whole run, of the synapses between the first n_record neurons and onto all readouts.

    changes: as Run.weight_changes. end: ms of task time at which training ended; None if that is not known.
    """
    last = float(changes["time"].max()) if end is None else end
    unit, ms = ("s", 1000.0) if last >= 10_000.0 else ("ms", 1.0)
    figure = Figure(figsize=(6.4, 6.0))
    axes = figure.subplots(len(PROJECTIONS), 1, sharex=True)
    courses = dict(iter(changes.groupby(["projection", "pre", "post"], observed=True)))
    for ax, projection in zip(axes, PROJECTIONS, strict=True):
        n_post, n_pre = weights[projection].before.shape
        n_post = n_post if projection == "rec_out" else min(n_record, n_post)
        for post, pre in np.ndindex(n_post, min(n_record, n_pre)):
            if projection == "rec_rec" and pre == post:
                continue
            course = courses.get((projection, pre, post), changes[:0])
            times, values = [0.0, *course["time"]], [weights[projection].before[post, pre], *course["weight"]]
            if end is not None:
                times, values = [*times, end], [*values, weights[projection].after[post, pre]]
                ax.plot(end / ms, values[-1], ".", color=LINES[post % len(LINES)], markersize=4, clip_on=False)
            ax.step(np.divide(times, ms), values, where="post", color=LINES[post % len(LINES)], linewidth=0.8)
        source, target = (GROUPS.get(name, "recurrent") for name in projection.split("_"))
        ax.set_title(f"{source} to {target}", loc="left", fontsize="medium")
        ax.set_ylabel(f"$W_\\mathrm{{{_SHORT[projection]}}}$ (pA)")
    axes[-1].set_xlabel(f"task time ({unit})")
    axes[-1].set_xlim(0.0, last / ms)
    dots = "" if end is None else "; dots: weights after training"
    axes[0].set_title(f"colours: postsynaptic neurons{dots}", loc="right", fontsize="medium", color="dimgrey")
    figure.align_ylabels()
    figure.subplots_adjust(left=0.12, right=0.96, bottom=0.09, top=0.95, hspace=0.28)
    return figure


_SHORT = {"in_rec": "in", "rec_rec": "rec", "rec_out": "out"}


@style.context(STYLE)
def weight_matrices(weights: Mapping[str, Projection], n_reg: int) -> Figure:
    """Weights before and after training, all on one colour scale that is symmetric about zero.

    n_reg: number of regular neurons, which come before the adaptive ones.
    """
    shown = {name: weights[name] for name in PROJECTIONS}
    limit = max(float(np.abs(values).max()) for pair in shown.values() for values in (pair.before, pair.after)) or 1.0
    figure = Figure(figsize=(6.4, 7.4))
    grid = {"height_ratios": [2, 3, 1], "left": 0.15, "right": 0.83, "bottom": 0.07, "top": 0.92}
    axes = figure.subplots(len(shown), 2, sharex=True, sharey="row", gridspec_kw=grid | {"wspace": 0.08, "hspace": 0.3})
    for row, (name, pair) in zip(axes, shown.items(), strict=True):
        for ax, values in zip(row, (pair.before, pair.after), strict=True):
            values = values.T if name == "in_rec" else values  # recurrent neurons from left to right in every panel
            image = ax.imshow(
                values, SIGNED, aspect="auto", origin="lower", vmin=-limit, vmax=limit, interpolation="none"
            )
            ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
            ax.spines[:].set_visible(True)
            ax.set_xlabel(f"recurrent neurons ({'post' if name == 'in_rec' else 'pre'}synaptic)")
        row[0].set_ylabel(_MATRIX_LABELS[name])
    axes[0, 0].set_title("before training")
    axes[0, 1].set_title("after training")
    if 0 < n_reg < len(shown["rec_rec"].before):
        for ax in axes.flat:
            ax.axvline(n_reg - 0.5, **BOUNDARY)
        for ax in axes[1]:
            ax.axhline(n_reg - 0.5, **BOUNDARY)
        note = f"dashed: from neuron {n_reg} on the recurrent neurons are adaptive"
        figure.text(0.49, 0.985, note, ha="center", va="top", color="dimgrey")
    figure.align_ylabels(axes[:, 0])
    figure.colorbar(image, cax=figure.add_axes((0.86, 0.25, 0.025, 0.5)), label="weight (pA)")
    return figure


BOUNDARY: dict[str, Any] = {"color": "black", "linestyle": (0, (4, 3)), "linewidth": 0.6}
_MATRIX_LABELS = {
    "in_rec": "$W_\\mathrm{in}$\ninput neurons\n(presynaptic)",
    "rec_rec": "$W_\\mathrm{rec}$\nrecurrent neurons\n(postsynaptic)",
    "rec_out": "$W_\\mathrm{out}$\nreadout neurons\n(postsynaptic)",
}
