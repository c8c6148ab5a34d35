"""How all figures look, and how they are saved."""

import functools
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib import font_manager, style
from matplotlib.figure import Figure

from eprop_cli.errors import UserError, require
from eprop_cli.runs.files import write_whole

# Colours of Okabe and Ito (2008), told apart by the colour-blind too.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW = "#E69F00", "#56B4E9", "#F0E442"
LINES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
SHADES = (PURPLE, SKY, ORANGE, GREEN, YELLOW, BLUE, VERMILLION)
HATCHES = ("///", "\\\\\\", "...")
SIGNED = "RdBu_r"  # colour map of weights: blue negative, red positive
LETTERS = 8.5  # points
LEAST_HEIGHT = 0.75  # of the designed one, where a figure is made narrower
SALT = "eprop-cli"  # by which a style of ours that is in force is known
STYLE: list[Any] = [
    "default",
    {
        "axes.linewidth": 0.6,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.size": LETTERS,
        "hatch.linewidth": 0.6,
        "legend.frameon": False,
        "lines.linewidth": 1.0,
        "pdf.fonttype": 42,  # text stays text in drawing programs
        "svg.hashsalt": SALT,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
    },
]
# plots.style: what each changes; matplotlibrc takes the file of the user's instead.
STYLES: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {"font.size": 7, "lines.linewidth": 0.8, "axes.linewidth": 0.5},
    "talk": {"font.size": 10.5, "lines.linewidth": 2.0, "axes.linewidth": 1.0},
    "matplotlibrc": {},
}
# Keys of a matplotlibrc that say where figures are shown, not how they look.
NO_STYLE = ("backend", "interactive", "toolbar", "webagg.", "tk.", "savefig.directory", "timezone", "date.epoch")
INCH = 25.4  # mm
ORIGIN = "eprop-cli"  # said in every figure, so that one drawn here is known
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": ORIGIN},
    "pdf": {"Creator": ORIGIN, "CreationDate": None},
    "svg": {"Creator": ORIGIN, "Date": None},
}
LABEL_ROW = 0.18  # inches, a row of a legend
ROUND = [1, 2, 5, 10]  # between ticks that count iterations
MANY_ROWS = 60  # from here on the points of a line are no longer marked


P = ParamSpec("P")
R = TypeVar("R")


def look(name: str = "default", font: str | None = None) -> Any:
    """A context in which figures are drawn and saved in a style of STYLES and a font; raises ConfigError."""
    require(name in STYLES, "plots.style", name, f"must be one of {', '.join(STYLES)}")
    own: Any = {}
    if name == "matplotlibrc":
        own = matplotlib.rc_params_from_file(matplotlib.matplotlib_fname(), use_default_template=False)
        own = {key: value for key, value in own.items() if not key.startswith(NO_STYLE)}
    remedy = "is not installed; name a family that is, such as serif or DejaVu Sans"
    require(font is None or is_installed(font), "plots.font", font, remedy)
    family = {} if font is None else {"font.family": [font, "DejaVu Sans"]}  # which has the symbols that others lack
    return style.context([*STYLE, STYLES[name], own, family, {"svg.hashsalt": SALT}])


def is_installed(font: str) -> bool:
    """Whether there is a font family of that name, or one that such a general name stands for."""
    return font in font_manager.get_font_names() or font in font_manager.font_family_aliases


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function draw in the style that is in force, or in the default one."""

    @functools.wraps(function)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        ours = matplotlib.rcParams["svg.hashsalt"] == SALT
        with nullcontext() if ours else look():
            return function(*args, **kwargs)

    return drawn


def letters() -> float:
    """Size of the letters of the style that is in force, in units of those that figures are designed with."""
    return float(matplotlib.rcParams["font.size"]) / LETTERS


def fit(figure: Figure, width: float | None, least: float) -> Figure:
    """Give a figure a width (mm), but not less than its letters need; margins of subplots keep room for them.

    least: what it needs with the letters that it is designed with.
    """
    before, height = figure.get_size_inches()
    wide = before if width is None else max(width, least * letters()) / INCH
    margins = figure.subplotpars
    high = height * max(wide / before, LEAST_HEIGHT)
    sideways, upwards = letters() * before / wide, letters() * height / high
    figure.set_size_inches(wide, high)
    if figure.get_layout_engine() is None:
        left, right = margins.left * sideways, 1 - (1 - margins.right) * sideways
        bottom, top = margins.bottom * upwards, 1 - (1 - margins.top) * upwards
        figure.subplots_adjust(left, bottom, right, top, hspace=margins.hspace * upwards)
    return figure


@styled
def save(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure in the format that the path ends in; the same figure always gives the same bytes."""
    kind = path.suffix.removeprefix(".")
    try:
        write_whole(path, lambda file: figure.savefig(file, format=kind, dpi=dpi, metadata=METADATA[kind]))
    except (ValueError, RuntimeError) as error:  # a name with what is no formula between dollars
        raise UserError(f"{path}: cannot be drawn ({' '.join(str(error).split())[:200]})") from error
