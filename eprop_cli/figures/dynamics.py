"""Spikes and dynamic variables of a sequence."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from eprop_cli.errors import UserError
from eprop_cli.figures.base import Drawing
from eprop_cli.figures.style import DASHES, HATCHES, LABEL_ROW, LINES, SHADES, letters, styled
from eprop_cli.runs.reader import NeuronGroup, Run


@dataclass(frozen=True)
class Panel:
    """A panel of the figure of spikes and dynamic variables; without column it shows spikes."""

    population: str
    label: str
    column: str = ""


SPIKES = "spikes\n$z_{}$\n(neuron)"
RECURRENT = {  # column -> label, of whatever recurrent population has it
    "V_m": "membrane\npotential\n$v_j$ (mV)",
    "surrogate_gradient": "surrogate\ngradient\n$\\psi_j$ (1/mV)",
    "V_th_adapt": "adaptive\nthreshold\n$A_j$ (mV)",
    "learning_signal": "learning\nsignal\n$L_j$ (pA)",
}
READOUTS = {
    "V_m": "membrane\npotential\n$v_k$ (mV)",
    "target_signal": "target\nsignal\n{target}",
    "readout_signal": "readout\nsignal\n{readout}",
    "error_signal": "error\nsignal\n{error}",
}


MOST_READOUTS = 6  # whose traces are drawn


class Dynamics(Drawing):
    """plots.figures=[dynamics]."""

    chooses = True
    least_width = 200.0

    @staticmethod
    def draw(run: Run, sequence: int = 0, neurons: Sequence[int] | None = None) -> Iterator[tuple[str, Figure]]:
        """A figure of a sequence of each recorded iteration.

        neurons: of each recurrent population, those whose dynamic variables are drawn; None: all that were recorded.
        """
        n_batch = run.config["task"]["n_batch"]
        if not 0 <= sequence < n_batch:
            raise UserError(f"{run.directory}: has no sequence {sequence}; choose from 0 to {n_batch - 1}")
        recordings = {iteration: run.recording(iteration, sequence) for iteration in run.recorded}
        recordings = {iteration: _of(run, tables, neurons) for iteration, tables in recordings.items()}
        shown = [tables["windows"] for tables in recordings.values() if "windows" in tables]
        kinds = sorted({str(kind) for windows in shown for kind in windows["kind"]})
        for iteration, tables in recordings.items():
            if tables.keys() - {"windows"}:
                figure = dynamics(tables, run.populations, run.record["loss"]["symbols"], kinds, iteration, sequence)
                yield f"dynamics_iteration_{iteration}", figure


def _of(run: Run, tables: Mapping[str, pd.DataFrame], neurons: Sequence[int] | None) -> dict[str, pd.DataFrame]:
    """The tables with the dynamic variables of some neurons; raises UserError if none of a population is among them."""
    shown = dict(tables)
    for name in tables.keys() - {"spikes", "windows", "out"} if neurons is not None else ():
        shown[name] = tables[name][tables[name]["neuron"].isin(list(neurons or ()))]
        if shown[name].empty and len(tables[name]):
            asked, there = (", ".join(map(str, each)) for each in (neurons or (), _neurons(tables[name])))
            raise UserError(f"{run.directory}: of {name} neurons {asked} were not recorded; choose from {there}")
    return shown


def panels_of(populations: Sequence[NeuronGroup], symbols: Mapping[str, str]) -> list[Panel]:
    """All panels that there can be, from top to bottom."""
    panels = [Panel("in", SPIKES.format("i"))]
    for population in populations:
        if population.name != "in":
            panels.append(Panel(population.name, SPIKES.format("j")))
            panels += [Panel(population.name, label, column) for column, label in RECURRENT.items()]
    return panels + [Panel("out", label.format_map(symbols), column) for column, label in READOUTS.items()]


@styled
def dynamics(
    recording: Mapping[str, pd.DataFrame],
    populations: Sequence[NeuronGroup],
    symbols: Mapping[str, str],
    kinds: Sequence[str],
    iteration: int,
    sequence: int = 0,
) -> Figure:
    """Spikes and dynamic variables of one sequence, as far as they are in the recording.

    recording: tables as Run.recording gives them; any may be missing.
    populations: input and recurrent ones, as Run.populations. symbols: of the target, readout and error signal.
    kinds: all kinds of windows that there are, so that figures of several iterations agree on the colours.
    """
    tables = {name: table[table["sequence"] == sequence] for name, table in recording.items()}
    if "windows" in tables:
        shown = tables["windows"]
        everything = (shown["start"] <= 0.0) & (shown["stop"] >= _last(tables))  # would only tint the figure
        tables["windows"] = shown[~everything]
    windows = _window_looks(tables.get("windows"), kinds)
    handles: list[Any] = [Patch(label=kind, **look) for kind, (_, look) in windows.items()]
    if "out" in tables:
        tables["out"] = _largest(tables["out"])
        handles += [Line2D([], [], label=f"readout {k}", **_line(k)) for k in _neurons(tables["out"])]
    fitting = int(6 / max(1.0, letters()))
    columns = max(1, len(handles) if len(handles) <= fitting else 4)
    sizes = {population.name: population.size for population in populations}
    panels = [panel for panel in panels_of(populations, symbols) if _has(panel, tables, sizes)]
    figure, axes = _stack(panels, above=(0.55 + LABEL_ROW * math.ceil(len(handles) / columns)) * max(1.0, letters()))
    for ax, panel in zip(axes, panels, strict=True):
        if panel.column:
            _draw_traces(ax, tables[panel.population], panel.column)
        else:
            _draw_spikes(ax, tables["spikes"], panel.population, sizes[panel.population])
        ax.set_ylabel(panel.label, rotation=0, ha="right", va="center", ma="center")
        ax.yaxis.set_label_coords(-0.095, 0.5)
        for spans, look in windows.values():
            boxes = [[(start, 0), (start, 1), (stop, 1), (stop, 0)] for start, stop in spans]
            shade = PolyCollection(boxes, transform=ax.get_xaxis_transform(), zorder=0, **look)
            ax.add_collection(shade, autolim=False)
    names = {population.name: population.label for population in populations} | {"out": "readout"}
    _mark_groups(figure, axes, panels, tables, names)
    axes[-1].set_xlabel("time in the sequence (ms)")
    axes[-1].set_xlim(0.0, _last(tables))
    inch = 1 / figure.get_figheight()
    figure.suptitle(f"Training iteration {iteration}, sequence {sequence}", y=1 - 0.12 * inch, va="top")
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 1 - 0.3 * inch), ncols=columns)
    return figure


def _has(panel: Panel, tables: Mapping[str, pd.DataFrame], sizes: Mapping[str, int]) -> bool:
    if panel.column:
        return panel.column in tables.get(panel.population, pd.DataFrame()).columns
    return "spikes" in tables and sizes.get(panel.population, 0) > 0


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
    ax.yaxis.set_major_formatter(_spelt)  # a common power of ten above the axis would be in the panel above


def _spelt(value: float, _: float) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def _largest(readouts: pd.DataFrame) -> pd.DataFrame:
    """Of many readouts those whose signals are the largest on average, and the one that should be."""
    signals = [name for name in ("readout_signal", "target_signal") if name in readouts.columns]
    if readouts["neuron"].nunique() <= MOST_READOUTS or not signals:
        return readouts
    means = readouts.groupby("neuron")[signals].mean()
    kept = set(means[signals[0]].nlargest(MOST_READOUTS - 1).index) | {means[signals[-1]].idxmax()}
    return readouts[readouts["neuron"].isin(kept)]


def _neurons(table: pd.DataFrame) -> list[int]:
    return sorted(map(int, table["neuron"].unique()))


def _line(neuron: int) -> dict[str, Any]:
    return {
        "color": LINES[neuron % len(LINES)],
        "linestyle": DASHES[neuron % len(DASHES)],
        "linewidth": 0.8 * rcParams["lines.linewidth"],
    }


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
    figure: Figure,
    axes: Sequence[Axes],
    panels: Sequence[Panel],
    tables: Mapping[str, pd.DataFrame],
    names: Mapping[str, str],
) -> None:
    """Name the populations at the right, and the neurons that the lines belong to."""
    for population, name in names.items():
        own = [ax.get_position() for ax, panel in zip(axes, panels, strict=True) if panel.population == population]
        if not own:
            continue
        neurons = _neurons(tables[population]) if population not in ("in", "out") and population in tables else []
        traces = {0: "", 1: f": neuron {min(neurons, default=0)}"}.get(len(neurons), f": {len(neurons)} neurons")
        bottom, top, x = own[-1].y0, own[0].y1, own[0].x1
        figure.add_artist(Line2D([x + 0.012] * 2, [bottom, top], color="grey", linewidth=1.0))
        figure.text(x + 0.02, (bottom + top) / 2, name + traces, rotation=270, ha="left", va="center")


def _last(tables: Mapping[str, pd.DataFrame]) -> float:
    """Time of the last thing in the tables, in ms."""
    ends = (table["stop" if name == "windows" else "time"] for name, table in tables.items() if len(table))
    return max((float(end.max()) for end in ends), default=1.0)
