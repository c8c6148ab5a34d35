"""Weights over time, and before and after training."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from eprop_cli.connectivity.base import PLASTIC, ends
from eprop_cli.connectivity.mask import Mask
from eprop_cli.figures.base import Drawing
from eprop_cli.figures.style import LINES, SIGNED, styled
from eprop_cli.phases import PHASES, TRAINING
from eprop_cli.runs.files import WEIGHT_CHANGES, WEIGHTS
from eprop_cli.runs.reader import NeuronGroup, Projection, Run

POPULATIONS = {"in": "input", "rec": "recurrent", "out": "readout"}


class WeightTimeCourses(Drawing):
    """plots.figures=[weight_time_courses]."""

    least_width = 150.0

    @staticmethod
    def draw(run: Run) -> Iterator[tuple[str, Figure]]:
        """One figure."""
        if (run.directory / WEIGHT_CHANGES).exists() and (run.directory / WEIGHTS).exists():
            n_record = run.config["recording"]["n_record_w"]
            yield "weight_time_courses", weight_time_courses(run.weights, run.weight_changes, n_record, _end(run))


class WeightMatrices(Drawing):
    """plots.figures=[weight_matrices]."""

    least_width = 140.0

    @staticmethod
    def draw(run: Run) -> Iterator[tuple[str, Figure]]:
        """One figure."""
        if (run.directory / WEIGHTS).exists():
            yield "weight_matrices", weight_matrices(run.weights, run.populations)


@styled
def weight_time_courses(
    weights: Mapping[str, Projection], changes: pd.DataFrame, n_record: int, end: float | None
) -> Figure:
    """Weights over the whole run, of the synapses between the first n_record neurons and onto all readouts.

    changes: as Run.weight_changes. end: ms of task time at which training ended; None if that is not known.
    """
    last = float(changes["time"].max()) if end is None else end
    unit, ms = ("s", 1000.0) if last >= 10_000.0 else ("ms", 1.0)
    figure = Figure(figsize=(6.4, 6.0))
    axes = figure.subplots(len(PLASTIC), 1, sharex=True)
    courses = dict(iter(changes.groupby(["projection", "pre", "post"], observed=True)))
    for ax, projection in zip(axes, PLASTIC, strict=True):
        for post, pre, before, after in _first_synapses(projection, weights[projection], n_record):
            course = courses.get((projection, pre, post), changes[:0])
            times, values = [0.0, *course["time"]], [before, *course["weight"]]
            if end is not None:
                times, values = [*times, end], [*values, after]
                ax.plot(end / ms, values[-1], ".", color=LINES[post % len(LINES)], markersize=4, clip_on=False)
            ax.step(np.divide(times, ms), values, where="post", color=LINES[post % len(LINES)], linewidth=0.8)
        source, target = (POPULATIONS[name] for name in ends(projection))
        ax.set_title(f"{source} to {target}", loc="left", fontsize="medium")
        ax.set_ylabel(f"$W_\\mathrm{{{_SHORT[projection]}}}$ (pA)")
    axes[-1].set_xlabel(f"task time ({unit})")
    axes[-1].set_xlim(0.0, last / ms)
    dots = "" if end is None else "; dots: at the end"
    axes[0].set_title(f"colours: postsynaptic neurons{dots}", loc="right", fontsize="medium", color="dimgrey")
    figure.align_ylabels()
    figure.subplots_adjust(left=0.12, right=0.96, bottom=0.09, top=0.95, hspace=0.28)
    return figure


def _first_synapses(projection: str, pair: Projection, n_record: int) -> Iterator[tuple[int, int, float, float]]:
    """Ends (post, pre) and weights before and after training of the synapses between the first neurons."""
    n_post, n_pre = pair.before.shape
    n_post, n_pre = n_post if projection == "rec_out" else min(n_record, n_post), min(n_record, n_pre)
    if pair.is_sparse:
        first, last = (each[:n_post, :n_pre].tocoo() for each in (pair.before, pair.after))
        yield from zip(*(each.tolist() for each in (first.row, first.col, first.data, last.data)), strict=True)
        return
    for post, pre in np.ndindex(n_post, n_pre):
        if projection != "rec_rec" or post != pre:
            yield post, pre, pair.before[post, pre], pair.after[post, pre]


_SHORT = {"in_rec": "in", "rec_rec": "rec", "rec_out": "out"}


@styled
def weight_matrices(weights: Mapping[str, Projection], populations: Sequence[NeuronGroup]) -> Figure:
    """Weights before and after training, all on one colour scale that is symmetric about zero.

    populations: as Run.populations; where there are several recurrent ones, the figure marks where each begins.
    """
    shown = {name: Projection(_picture(weights[name].before), _picture(weights[name].after)) for name in PLASTIC}
    limit = max(_largest(values) for pair in shown.values() for values in (pair.before, pair.after)) or 1.0
    figure = Figure(figsize=(6.4, 7.4))
    grid = {"height_ratios": [2, 3, 1], "left": 0.15, "right": 0.83, "bottom": 0.07, "top": 0.92}
    axes = figure.subplots(len(shown), 2, sharex=True, sharey="row", gridspec_kw=grid | {"wspace": 0.08, "hspace": 0.3})
    for row, (name, pair) in zip(axes, shown.items(), strict=True):
        for ax, values in zip(row, (pair.before, pair.after), strict=True):
            n_post, n_pre = weights[name].before.shape
            # Recurrent neurons go from left to right in every panel.
            values, across, up = (values.T, n_post, n_pre) if name == "in_rec" else (values, n_pre, n_post)
            place: dict[str, Any] = {
                "aspect": "auto",
                "origin": "lower",
                "extent": (-0.5, across - 0.5, -0.5, up - 0.5),
            }
            image = ax.imshow(values, SIGNED, vmin=-limit, vmax=limit, interpolation="none", **place)
            ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
            ax.spines[:].set_visible(True)
        row[0].set_ylabel(_MATRIX_LABELS[name])
        row[0].set_xlabel(f"recurrent neurons ({'post' if name == 'in_rec' else 'pre'}synaptic)")
        row[0].xaxis.label.set_x(1.04)  # between the two panels
    axes[0, 0].set_title("before training")
    axes[0, 1].set_title("after training")
    recurrent = [population for population in populations if population.name != "in"]
    starts = list(itertools.accumulate(population.size for population in recurrent))[:-1]
    for start in starts:
        for ax in axes.flat:
            ax.axvline(start - 0.5, **BOUNDARY)
        for ax in axes[1]:
            ax.axhline(start - 0.5, **BOUNDARY)
    if starts:
        begun = zip(starts, recurrent[1:], strict=True)
        parts = [f"from neuron {start} on the recurrent neurons are {each.label}" for start, each in begun]
        figure.text(0.49, 0.985, f"dashed: {', '.join(parts)}", ha="center", va="top", color="dimgrey")
    figure.align_ylabels(axes[:, 0])
    figure.colorbar(image, cax=figure.add_axes((0.86, 0.25, 0.025, 0.5)), label="weight (pA)")
    if any(max(weights[name].before.shape) > MOST_CELLS for name in PLASTIC):
        text = "neighbouring neurons share a cell, which shows the mean weight of their synapses; white: none"
        figure.text(0.49, 0.005, text, ha="center", va="bottom", color="dimgrey")
    return figure


def _picture(matrix: Any) -> NDArray[np.float64]:
    """A matrix with at most MOST_CELLS cells a side, each the mean of its synapses' weights, NaN without one."""
    if not hasattr(matrix, "tocoo") and max(matrix.shape) <= MOST_CELLS:
        whole: NDArray[np.float64] = matrix
        return whole
    from scipy.sparse import coo_array

    synapses = coo_array(matrix)
    n_rows, n_columns = (min(size, MOST_CELLS) for size in matrix.shape)
    row = synapses.row.astype(np.int64) * n_rows // matrix.shape[0]
    column = synapses.col.astype(np.int64) * n_columns // matrix.shape[1]
    place, n_cells = row * n_columns + column, n_rows * n_columns
    with np.errstate(invalid="ignore"):  # 0 / 0 where there is none
        mean = np.bincount(place, synapses.data, n_cells) / np.bincount(place, minlength=n_cells)
    return mean.reshape(n_rows, n_columns)


def _largest(values: NDArray[np.float64]) -> float:
    return float(np.abs(np.nan_to_num(values)).max(initial=0.0))


MOST_CELLS = 400  # a side of a matrix; a figure cannot show more


BOUNDARY: dict[str, Any] = {"color": "black", "linestyle": (0, (4, 3)), "linewidth": 0.6}
_MATRIX_LABELS = {
    "in_rec": "$W_\\mathrm{in}$\ninput neurons\n(presynaptic)",
    "rec_rec": "$W_\\mathrm{rec}$\nrecurrent neurons\n(postsynaptic)",
    "rec_out": "$W_\\mathrm{out}$\nreadout neurons\n(postsynaptic)",
}


def _end(run: Run) -> float | None:
    """Task time (ms) at which training ended; None if the duration of a sequence is not known from a recording."""
    config = run.config
    names = [group.name for group in run.populations if group.name != "in"] + ["out"]
    tables = [table for number in run.recorded for table in run.recording(number, 0, names).values()]
    lasts = [float(table["time"].max()) for table in tables if len(table)]
    if not lasts:
        return None
    sequence: float = max(lasts) + config["recording"]["interval"]  # which divides it
    phases = PHASES if run.record["is_stream"] else [TRAINING]
    n_sequences: int = run.metrics["phase"].isin(phases).sum() * config["task"]["n_batch"]
    return n_sequences * sequence


class WeightDifferences(Drawing):
    """plots.figures=[weight_changes]."""

    @staticmethod
    def draw(run: Run) -> Iterator[tuple[str, Figure]]:
        """One figure."""
        if (run.directory / WEIGHTS).exists():
            yield "weight_changes", weight_changes(run.weights)


@styled
def weight_changes(weights: Mapping[str, Projection]) -> Figure:
    """Histograms of what training added to the weights, a panel per projection."""
    figure = Figure(figsize=(6.4, 5.4))
    axes = figure.subplots(len(PLASTIC), 1, sharex=True)
    for ax, name in zip(axes, PLASTIC, strict=True):
        pair = weights[name]
        changes = _changes(name, pair)
        ax.hist(changes, bins=60, color=LINES[0])
        ax.axvline(0.0, color="black", linewidth=0.6)
        source, target = (POPULATIONS[end] for end in ends(name))
        ax.set_title(f"{source} to {target}", loc="left", fontsize="medium")
        same = float(np.mean(changes == 0)) if len(changes) else 1.0
        notes = f"{changes.mean():.2g} ± {changes.std():.2g} pA, {same:.0%} unchanged" if len(changes) else ""
        ax.set_title(notes, loc="right", fontsize="medium", color="dimgrey")
        ax.set_ylabel("synapses")
        ax.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes[-1].set_xlabel("change of the weight in training (pA)")
    figure.align_ylabels()
    figure.subplots_adjust(left=0.12, right=0.96, bottom=0.1, top=0.94, hspace=0.3)
    return figure


def _changes(projection: str, pair: Projection) -> NDArray[np.float64]:
    """What training added to each synapse's weight."""
    if pair.is_sparse:
        changes: NDArray[np.float64] = pair.after.data - pair.before.data
        return changes
    pre, post = ends(projection)
    n_post, n_pre = pair.before.shape
    return np.asarray((pair.after - pair.before)[Mask(n_pre, n_post, autapses=pre != post).exists()])
