"""Draw figures: functions that take data and return a Figure, and one that saves.

Nothing here depends on when, where or how often it is done: the same data gives the same bytes. pyplot and its state
are not used, and the user's own Matplotlib settings are not either.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from eprop_cli.config import PROJECTIONS
from eprop_cli.results import WEIGHT_CHANGES, WEIGHTS, Projection, Run
from eprop_cli.training.base import EARLY_STOPPING, TEST, TRAINING, VALIDATION
from eprop_cli.writer import write_whole

# Colours of Okabe and Ito (2008), told apart by the colour-blind too.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW = "#E69F00", "#56B4E9", "#F0E442"
LINES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
SHADES = (PURPLE, SKY, ORANGE, GREEN, YELLOW, BLUE, VERMILLION)
HATCHES = ("///", "\\\\\\", "...")
SIGNED = "RdBu_r"  # colour map of weights: blue negative, red positive

STYLE: list[Any] = [
    "default",
    {
        "axes.linewidth": 0.6,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.size": 8.5,
        "hatch.linewidth": 0.6,
        "legend.frameon": False,
        "lines.linewidth": 1.0,
        "pdf.fonttype": 42,  # text stays text in drawing programs
        "svg.hashsalt": "eprop-cli",
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
    },
]
ORIGIN = "eprop-cli"  # said in every figure, so that one drawn here is known
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": ORIGIN},
    "pdf": {"Creator": ORIGIN, "CreationDate": None},
    "svg": {"Creator": ORIGIN, "Date": None},
}

PHASES: dict[str, dict[str, Any]] = {
    TRAINING: {"color": BLUE, "marker": "o", "zorder": 2},
    VALIDATION: {"color": VERMILLION, "marker": "s", "linestyle": "--", "zorder": 3},
    EARLY_STOPPING: {"color": PURPLE, "marker": "^", "linestyle": "", "zorder": 4},
    TEST: {"color": GREEN, "marker": "D", "linestyle": "", "zorder": 4},
}
LABEL_ROW = 0.18  # inches, a row of a legend
ROUND = [1, 2, 5, 10]  # between ticks that count iterations
MANY_ROWS = 60  # from here on the points of a line are no longer marked
LOSS_LABELS = {"cross_entropy": "loss\n(cross-entropy)", "mean_squared_error": "loss\n(mean squared error, mV²)"}
RECALL_ERROR_LABEL = "recall error\n(fraction of sequences)"

GROUPS = {"in": "input", "reg": "regular", "ad": "adaptive", "out": "readout"}


@dataclass(frozen=True)
class Panel:
    """A panel of the figure of spikes and dynamic variables; without column it shows spikes."""

    population: str
    label: str
    column: str = ""


PANELS = (
    Panel("in", "spikes\n$z_i$\n(neuron)"),
    Panel("reg", "spikes\n$z_j$\n(neuron)"),
    Panel("reg", "membrane\npotential\n$v_j$ (mV)", "V_m"),
    Panel("reg", "surrogate\ngradient\n$\\psi_j$ (1/mV)", "surrogate_gradient"),
    Panel("reg", "learning\nsignal\n$L_j$ (pA)", "learning_signal"),
    Panel("ad", "spikes\n$z_j$\n(neuron)"),
    Panel("ad", "membrane\npotential\n$v_j$ (mV)", "V_m"),
    Panel("ad", "surrogate\ngradient\n$\\psi_j$ (1/mV)", "surrogate_gradient"),
    Panel("ad", "adaptive\nthreshold\n$A_j$ (mV)", "V_th_adapt"),
    Panel("ad", "learning\nsignal\n$L_j$ (pA)", "learning_signal"),
    Panel("out", "membrane\npotential\n$v_k$ (mV)", "V_m"),
    Panel("out", "target\nsignal\n{target}", "target_signal"),
    Panel("out", "readout\nsignal\n{readout}", "readout_signal"),
    Panel("out", "error\nsignal\n{error}", "error_signal"),
)
READOUT_SYMBOLS = {
    "cross_entropy": {"target": "$\\pi_k^*$", "readout": "$\\pi_k$", "error": "$\\pi_k-\\pi_k^*$"},
    "mean_squared_error": {"target": "$y_k^*$ (mV)", "readout": "$y_k$ (mV)", "error": "$y_k-y_k^*$ (mV)"},
}


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


@style.context(STYLE)
def dynamics(
    recording: Mapping[str, pd.DataFrame],
    sizes: Mapping[str, int],
    loss: str,
    kinds: Sequence[str],
    iteration: int,
    sequence: int = 0,
) -> Figure:
    """Spikes and dynamic variables of one sequence, as far as they are in the recording.

    recording: tables spikes, reg, ad, out, windows, as Run gives them; any may be missing.
    sizes: number of neurons of the populations in, reg, ad.
    kinds: all kinds of windows that there are, so that figures of several iterations agree on the colours.
    """
    tables = {name: table[table["sequence"] == sequence] for name, table in recording.items()}
    windows = _window_looks(tables.get("windows"), kinds)
    handles: list[Any] = [Patch(label=kind, **look) for kind, (_, look) in windows.items()]
    if "out" in tables:
        handles += [Line2D([], [], label=f"readout {k}", **_line(k)) for k in _neurons(tables["out"])]
    columns = max(1, len(handles) if len(handles) <= 6 else 4)
    panels = [panel for panel in PANELS if _has(panel, tables, sizes)]
    figure, axes = _stack(panels, above=0.55 + LABEL_ROW * math.ceil(len(handles) / columns))
    for ax, panel in zip(axes, panels, strict=True):
        if panel.column:
            _draw_traces(ax, tables[panel.population], panel.column)
        else:
            _draw_spikes(ax, tables["spikes"], panel.population, sizes[panel.population])
        label = panel.label.format(**READOUT_SYMBOLS.get(loss, READOUT_SYMBOLS["cross_entropy"]))
        ax.set_ylabel(label, rotation=0, ha="right", va="center", ma="center")
        ax.yaxis.set_label_coords(-0.095, 0.5)
        for spans, look in windows.values():
            boxes = [[(start, 0), (start, 1), (stop, 1), (stop, 0)] for start, stop in spans]
            shade = PolyCollection(boxes, transform=ax.get_xaxis_transform(), zorder=0, **look)
            ax.add_collection(shade, autolim=False)
    _mark_groups(figure, axes, panels, tables)
    axes[-1].set_xlabel("time in the sequence (ms)")
    axes[-1].set_xlim(0.0, _last(tables))
    inch = 1 / figure.get_figheight()
    figure.suptitle(f"Training iteration {iteration}, sequence {sequence}", y=1 - 0.12 * inch, va="top")
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 1 - 0.3 * inch), ncols=columns)
    return figure


def _has(panel: Panel, tables: Mapping[str, pd.DataFrame], sizes: Mapping[str, int]) -> bool:
    if panel.column:
        return panel.column in tables.get(panel.population, pd.DataFrame()).columns
    return "spikes" in tables and sizes[panel.population] > 0


def _stack(panels: Sequence[Panel], above: float) -> tuple[Figure, list[Axes]]:
    """A figure of panels one below the other, a little apart where the population changes; above in inches."""
    width, left, right, below, height, gap, group_gap = 8.0, 1.5, 0.45, 0.5, 0.77, 0.1, 0.13  # inches
    tops, top = [], above
    for index, panel in enumerate(panels):
        if index:
            top += height + gap + group_gap * (panel.population != panels[index - 1].population)
        tops.append(top)
    total = top + height + below
    figure = Figure(figsize=(width, total))
    axes: list[Axes] = []
    for top in tops:
        box = (left / width, 1 - (top + height) / total, (width - left - right) / width, height / total)
        axes.append(figure.add_axes(box, sharex=axes[0] if axes else None))
        axes[-1].yaxis.set_major_locator(MaxNLocator(nbins=3, min_n_ticks=2))
        axes[-1].tick_params(labelbottom=len(axes) == len(tops))
    return figure, axes


def _draw_spikes(ax: Axes, spikes: pd.DataFrame, population: str, size: int) -> None:
    own = spikes[spikes["population"] == population]
    height = min(max(45.0 / size, 1.5), 4.0)  # points
    ax.plot(own["time"], own["neuron"], "|", color="black", markersize=height, markeredgewidth=0.7)
    ax.set_ylim(-0.03 * size - 0.5, 1.03 * size - 0.5)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))


def _draw_traces(ax: Axes, table: pd.DataFrame, column: str) -> None:
    for neuron in _neurons(table):
        trace = table[table["neuron"] == neuron]
        ax.plot(trace["time"], trace[column], **_line(neuron))
    ax.margins(y=0.1)
    ax.ticklabel_format(axis="y", scilimits=(-3, 4))
    ax.yaxis.get_offset_text().set_x(-0.075)  # left of the axis, where no other panel is


def _neurons(table: pd.DataFrame) -> list[int]:
    return sorted(map(int, table["neuron"].unique()))


def _line(neuron: int) -> dict[str, Any]:
    return {"color": LINES[neuron % len(LINES)], "linestyle": DASHES[neuron % len(DASHES)], "linewidth": 0.8}


def _window_looks(
    windows: pd.DataFrame | None, kinds: Sequence[str]
) -> dict[str, tuple[list[tuple[float, float]], dict[str, Any]]]:
    """Where the windows of each kind are and how to shade them: hatched if they lie over those of another kind."""
    looks: dict[str, tuple[list[tuple[float, float]], dict[str, Any]]] = {}
    filled: list[tuple[float, float]] = []
    hatches = itertools.cycle(HATCHES)
    for kind, colour in zip(kinds, SHADES * len(kinds), strict=False):
        own = pd.DataFrame() if windows is None else windows[windows["kind"] == kind]
        if not len(own):
            continue
        spans = list(zip(own["start"], own["stop"], strict=True))
        if any(start < other[1] and other[0] < stop for start, stop in spans for other in filled):
            hatch = next(hatches)
            looks[kind] = (
                spans,
                {"facecolor": "none", "edgecolor": colour, "hatch": hatch, "linewidth": 0, "alpha": 0.6},
            )
        else:
            looks[kind] = spans, {"facecolor": colour, "linewidth": 0, "alpha": 0.22}
            filled += spans
    return looks


def _mark_groups(
    figure: Figure, axes: Sequence[Axes], panels: Sequence[Panel], tables: Mapping[str, pd.DataFrame]
) -> None:
    """Name the populations at the right, and the neurons that the lines belong to."""
    for population, name in GROUPS.items():
        own = [ax.get_position() for ax, panel in zip(axes, panels, strict=True) if panel.population == population]
        if not own:
            continue
        neurons = _neurons(tables[population]) if population in ("reg", "ad") and population in tables else []
        traces = {0: "", 1: f": neuron {min(neurons, default=0)}"}.get(len(neurons), f": {len(neurons)} neurons")
        bottom, top, x = own[-1].y0, own[0].y1, own[0].x1
        figure.add_artist(Line2D([x + 0.012] * 2, [bottom, top], color="grey", linewidth=1.0))
        figure.text(x + 0.02, (bottom + top) / 2, name + traces, rotation=270, ha="left", va="center")


def _last(tables: Mapping[str, pd.DataFrame]) -> float:
    """Time of the last thing in the tables, in ms."""
    ends = (table["stop" if name == "windows" else "time"] for name, table in tables.items() if len(table))
    return max((float(end.max()) for end in ends), default=1.0)


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


@style.context(STYLE)
def save(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure in the format that the path ends in; the same figure always gives the same bytes."""
    kind = path.suffix.removeprefix(".")
    write_whole(path, lambda file: figure.savefig(file, format=kind, dpi=dpi, metadata=METADATA[kind]))


def draw_run(run: Run, figures: Sequence[str], formats: Sequence[str], dpi: int, into: Path) -> list[Path]:
    """Draw the named figures of a run into a directory and return their files; what was not recorded is left out."""
    paths = []
    for name in figures:
        for stem, figure in DRAWN[name](run):
            for kind in formats:
                paths.append(into / f"{stem}.{kind}")
                save(figure, paths[-1], dpi)
    return paths


def _learning(run: Run) -> Iterator[tuple[str, Figure]]:
    metrics = run.metrics
    if len(metrics):
        yield "learning", learning(metrics, run.config["neuron"]["out"]["loss"])


def _dynamics(run: Run) -> Iterator[tuple[str, Figure]]:
    config = run.config
    sizes = {"in": config["task"]["n_in"], "reg": config["neuron"]["n_reg"], "ad": config["neuron"]["n_ad"]}
    recordings = {iteration: run.recording(iteration, 0) for iteration in run.recorded}
    kinds = sorted(
        {str(kind) for tables in recordings.values() if "windows" in tables for kind in tables["windows"]["kind"]}
    )
    for iteration, tables in recordings.items():
        if tables.keys() - {"windows"}:
            figure = dynamics(tables, sizes, config["neuron"]["out"]["loss"], kinds, iteration)
            yield f"dynamics_iteration_{iteration}", figure


def _weight_time_courses(run: Run) -> Iterator[tuple[str, Figure]]:
    if (run.directory / WEIGHT_CHANGES).exists() and (run.directory / WEIGHTS).exists():
        n_record = run.config["recording"]["n_record_w"]
        yield "weight_time_courses", weight_time_courses(run.weights, run.weight_changes, n_record, _end(run))


def _weight_matrices(run: Run) -> Iterator[tuple[str, Figure]]:
    if (run.directory / WEIGHTS).exists():
        yield "weight_matrices", weight_matrices(run.weights, run.config["neuron"]["n_reg"])


def _end(run: Run) -> float | None:
    """Task time (ms) at which training ended; None if the duration of a sequence is not known from a recording."""
    config = run.config
    tables = [table for number in run.recorded for table in run.recording(number, 0).items()]
    lasts = [float(table["time"].max()) for name, table in tables if name in ("reg", "ad", "out") and len(table)]
    if not lasts:
        return None
    sequence: float = max(lasts) + config["recording"]["interval"]  # which divides it
    # Only in one continuous simulation does time pass in the other phases too.
    phases = list(PHASES) if config["training"]["name"] == "continuous" else [TRAINING]
    n_sequences: int = run.metrics["phase"].isin(phases).sum() * config["task"]["n_batch"]
    return n_sequences * sequence


# name (as in plots.figures) -> what draws it: file names without ending, and figures; none where there is no data
DRAWN: dict[str, Callable[[Run], Iterator[tuple[str, Figure]]]] = {
    "learning": _learning,
    "dynamics": _dynamics,
    "weight_time_courses": _weight_time_courses,
    "weight_matrices": _weight_matrices,
}
