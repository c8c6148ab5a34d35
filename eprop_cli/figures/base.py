"""What a figure of a run is."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from eprop_cli.figures.style import save
from eprop_cli.runs.reader import Run


class Drawing:
    """A figure, or one for each recorded iteration, drawn from a run directory alone."""

    @staticmethod
    def draw(run: Run) -> Iterator[tuple[str, Figure]]:
        """File names without ending, and figures; none where there is no data for them."""
        raise NotImplementedError

    @classmethod
    def write(cls, run: Run, formats: Sequence[str], dpi: int, into: Path) -> list[Path]:
        """Draw into a directory and return the files."""
        paths = []
        for stem, figure in cls.draw(run):
            for kind in formats:
                paths.append(into / f"{stem}.{kind}")
                save(figure, paths[-1], dpi)
        return paths
