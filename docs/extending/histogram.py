"""A figure: how weights are distributed. `plots.figures=[learning,histogram:Histogram]`."""

from collections.abc import Iterator

from matplotlib.figure import Figure

from eprop_cli.figures.base import Drawing
from eprop_cli.runs.reader import Run


class Histogram(Drawing):
    """Weights of each projection before and after training."""

    @staticmethod
    def draw(run: Run) -> Iterator[tuple[str, Figure]]:
        """One figure; its file is figures/histogram.png."""
        figure = Figure(figsize=(6.4, 2.4), layout="constrained")
        projections = {name: weights for name, weights in run.weights.items() if name != "out_rec"}
        for ax, (name, weights) in zip(figure.subplots(1, len(projections)), projections.items(), strict=True):
            values = [weights.before.ravel(), weights.after.ravel()]
            ax.hist(values, bins=30, histtype="step", label=["before", "after"])
            ax.set_title(name)
            ax.set_xlabel("weight (pA)")
        ax.legend()
        yield "histogram", figure
