"""What a figure of a run is."""

from collections.abc import Iterator

from matplotlib.figure import Figure

from eprop_cli.runs.reader import Run


class Drawing:
    """A figure, or one for each recorded iteration, drawn from a run directory alone."""

    @staticmethod
    def draw(run: Run) -> Iterator[tuple[str, Figure]]:
        """File names without ending, and figures; none where there is no data for them."""
        raise NotImplementedError
