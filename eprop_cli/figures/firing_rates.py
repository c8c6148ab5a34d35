"""Firing rates of single neurons: which of them were active."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eprop_cli.errors import UserError
from eprop_cli.figures.base import Drawing
from eprop_cli.figures.style import BLUE, VERMILLION, styled
from eprop_cli.runs.reader import NeuronGroup, Run

LOOKS = ({"color": BLUE, "marker": "o"}, {"color": VERMILLION, "marker": "x"})


class FiringRates(Drawing):
    """plots.figures=[firing_rates]."""

    least_width = 110.0

    @staticmethod
    def draw(run: Run) -> Iterator[tuple[str, Figure]]:
        """One figure, of the first and the last recorded iteration."""
        spikes = {}
        for iteration in sorted({*run.recorded[:1], *run.recorded[-1:]}):
            tables = run.recording(iteration)
            if "spikes" in tables and (duration := _duration(run, tables)):
                spikes[iteration] = (tables["spikes"], duration)
        if spikes:
            yield "firing_rates", firing_rates(spikes, run.populations)


@styled
def firing_rates(spikes: Mapping[int, tuple[pd.DataFrame, float]], populations: Sequence[NeuronGroup]) -> Figure:
    """The rate of each neuron over the sequences of recorded iterations, a panel per population.

    spikes: iteration -> its spikes, as Run.spikes gives them, and the duration of all its sequences (ms).
    """
    figure = Figure(figsize=(6.4, 0.9 + 1.5 * len(populations)))
    axes = figure.subplots(len(populations), 1, squeeze=False)[:, 0]
    for ax, population in zip(axes, populations, strict=True):
        silent = []
        for (iteration, (table, duration)), look in zip(spikes.items(), LOOKS, strict=False):
            own = table.loc[table["population"] == population.name, "neuron"].to_numpy(dtype=int)
            values = np.bincount(own, minlength=population.size) / duration * 1000.0
            many = {"markersize": 3.5 if population.size <= 100 else 2.0}
            ax.plot(values, linestyle="", label=f"iteration {iteration}", clip_on=False, **look, **many)
            silent.append(str(int((values == 0).sum())))
        ax.set_title(f"{population.label}, {population.size} neurons", loc="left", fontsize="medium")
        ax.set_title(f"silent: {', then '.join(silent)}", loc="right", fontsize="medium", color="dimgrey")
        ax.set_ylim(bottom=0.0)
        ax.set_xlim(-0.5, population.size - 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylabel("rate\n(spikes/s)")
    axes[-1].set_xlabel("neuron, index in its population")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper center", ncols=len(spikes))
    figure.align_ylabels(axes)
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.12, right=0.97, bottom=0.5 / height, top=1 - 0.55 / height, hspace=0.55)
    return figure


def _duration(run: Run, tables: Mapping[str, pd.DataFrame]) -> float:
    """Duration of the sequences of a batch (ms), from what lasts longest in them; 0 if nothing does."""
    ends = [
        float(table["stop" if name == "windows" else "time"].max())
        + (0.0 if name == "windows" else float(run.config["recording"]["interval"]))
        for name, table in tables.items()
        if len(table) and name != "spikes"
    ]
    if not ends:
        raise UserError(
            f"{run.directory}: the duration of a sequence is not known, as no dynamic variable was recorded"
        )
    return max(ends) * float(run.config["task"]["n_batch"])
