"""What a figure of a run is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from matplotlib.figure import Figure

from eprop_cli.figures.style import fit, look, save
from eprop_cli.runs.reader import Run


@dataclass(frozen=True)
class Look:
    """How figures look: plots.style, plots.width (mm) and plots.font; None: as they are designed."""

    style: str = "default"
    width: float | None = None
    font: str | None = None


DEFAULT = Look()


class Drawing:
    """A figure, or one for each recorded iteration, drawn from a run directory alone.

    chooses: whether draw() takes a sequence and neurons. least_width: mm, with the letters that it is designed with.
    """

    chooses: ClassVar[bool] = False
    least_width: ClassVar[float] = 120.0

    @staticmethod
    def draw(run: Run) -> Iterator[tuple[str, Figure]]:
        """File names without ending, and figures; none where there is no data for them."""
        raise NotImplementedError

    @classmethod
    def write(
        cls, run: Run, formats: Sequence[str], dpi: int, into: Path, plots: Look = DEFAULT, **choice: Any
    ) -> list[Path]:
        """Draw into a directory and return the files. choice: sequence and neurons, where draw() takes them."""
        paths = []
        with look(plots.style, plots.font):
            for stem, figure in cls.draw(run, **(choice if cls.chooses else {})):
                fit(figure, plots.width, cls.least_width)
                for kind in formats:
                    paths.append(into / f"{stem}.{kind}")
                    save(figure, paths[-1], dpi)
        return paths
