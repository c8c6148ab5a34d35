"""How all figures look, and how they are saved."""

from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

from eprop_cli.errors import UserError
from eprop_cli.runs.files import write_whole

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
LABEL_ROW = 0.18  # inches, a row of a legend
ROUND = [1, 2, 5, 10]  # between ticks that count iterations
MANY_ROWS = 60  # from here on the points of a line are no longer marked


@style.context(STYLE)
def save(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure in the format that the path ends in; the same figure always gives the same bytes."""
    kind = path.suffix.removeprefix(".")
    try:
        figure.draw_without_rendering()
    except (ValueError, RuntimeError) as error:  # a name with what is no formula between dollars
        raise UserError(f"{path}: cannot be drawn ({' '.join(str(error).split())[:200]})") from error
    write_whole(path, lambda file: figure.savefig(file, format=kind, dpi=dpi, metadata=METADATA[kind]))
