"""Does sparsity help? Test accuracy over density and size, of runs of evidence accumulation in a directory.

python -m benchmarks.density DIR [FIGURE.png] prints the table of docs/results.md, which says how to make the runs, and
draws its figure. Intervals are Student's, of 95 %, over seeds.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from eprop_cli import Sweep

# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
MARKERS = "osD^"


def accuracies(directory: Path) -> dict[tuple[int, float], list[float]]:
    """Mean accuracy (%) in the test of each run that is COMPLETED, by recurrent neurons and density."""
    found = defaultdict(list)
    for run in Sweep(directory).runs:
        if run.status == "COMPLETED":
            keys, metrics = run.config, run.metrics
            size = int(keys["neuron"]["n_reg"] + keys["neuron"]["n_ad"])
            tested = metrics.loc[metrics["phase"] == "test", "recall_error"]
            found[size, float(keys["connectivity"]["rec_rec"]["p"])].append(100 * (1 - tested.mean()))
    return dict(found)


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval."""
    error = stats.sem(values) if len(values) > 1 else np.nan
    return float(np.mean(values)), float(error * stats.t.ppf(0.975, len(values) - 1))


def draw(found: dict[tuple[int, float], list[float]]) -> Figure:
    """Accuracy over density, a line per size."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    ax = figure.subplots()
    sizes = sorted({size for size, _ in found})
    for index, (size, colour, marker) in enumerate(zip(sizes, COLOURS, MARKERS, strict=False)):
        densities = np.array(sorted(density for each, density in found if each == size))
        means, halves = zip(*(interval(found[size, density]) for density in densities), strict=True)
        shifted = densities * 1.04 ** (index - (len(sizes) - 1) / 2)  # or the bars would hide each other
        look = {"color": colour, "marker": marker, "capsize": 3, "label": f"{size} neurons"}
        ax.errorbar(shifted, means, halves, **look)
    ax.set_xscale("log")
    ax.set_xticks(sorted({density for _, density in found}), sorted({f"{100 * d:g}" for _, d in found}, key=float))
    ax.minorticks_off()
    ax.set_xlabel("recurrent synapses that are there (%)")
    ax.set_ylabel("test accuracy (%)")
    ax.legend(frameon=False)
    return figure


def main() -> None:
    """Print the table; draw the figure if a path is given for it."""
    found = accuracies(Path(sys.argv[1]))
    densities = sorted({density for _, density in found})
    print("| neurons | " + " | ".join(f"{100 * density:g} %" for density in densities) + " |")
    print("|---" * (len(densities) + 1) + "|")
    for size in sorted({size for size, _ in found}):
        cells = []
        for density in densities:
            mean, half = interval(found[size, density])
            cells.append(f"{mean:.1f} ± {half:.1f} ({len(found[size, density])})")
        print(f"| {size} | " + " | ".join(cells) + " |")
    if len(sys.argv) > 2:
        draw(found).savefig(sys.argv[2], dpi=150)


if __name__ == "__main__":
    main()
