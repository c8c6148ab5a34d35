"""Schemas of the groups that have one: recording, kernel, plots."""

from dataclasses import dataclass
from typing import Any

from eprop_cli.errors import require
from eprop_cli.looks import BANDS, FORMATS, LEAST_DPI, LEAST_WIDTH, MOST_DPI, MOST_WIDTH, STYLES
from eprop_cli.registry import is_known, variant
from eprop_cli.schema import NON_NEGATIVE, POSITIVE, TIC, Group, Rule, check_multiple, key, one_of


def _is_iteration(iteration: Any) -> bool:
    number = isinstance(iteration, int) and not isinstance(iteration, bool) and iteration >= 1
    return number or iteration in ("first", "last")


@dataclass(kw_only=True)
class RecordingConfig(Group):
    """What is recorded."""

    GROUP = "recording"

    n_record: int = key(NON_NEGATIVE)
    n_record_w: int = key(NON_NEGATIVE)
    interval: float = key(POSITIVE, unit="ms")
    iterations: list[Any]
    spikes: bool
    n_record_spikes: int = key(NON_NEGATIVE)
    readout: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        known = all(map(_is_iteration, self.iterations))
        require(known, "recording.iterations", self.iterations, "must list first, last, or numbers from 1")


@dataclass(kw_only=True)
class Kernel(Group):
    """The NEST kernel."""

    GROUP = "kernel"

    resolution: float = key(POSITIVE, unit="ms")
    eprop_reset_neurons_on_update: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        check_multiple("kernel.resolution", self.resolution, TIC, f"NEST's finest time step ({TIC} ms)")


@dataclass(kw_only=True)
class Plots(Group):
    """Figures drawn at the end of a run."""

    GROUP = "plots"

    figures: list[str]
    formats: list[str] = key(one_of(FORMATS))
    dpi: int = key(Rule(f"from {LEAST_DPI} to {MOST_DPI}", lambda dpi: LEAST_DPI <= dpi <= MOST_DPI))
    style: str = key(one_of(STYLES))
    width: float | None = key(
        Rule(f"from {LEAST_WIDTH} to {MOST_WIDTH}", lambda width: LEAST_WIDTH <= width <= MOST_WIDTH), unit="mm"
    )
    font: str | None
    band: str = key(one_of(BANDS))
    metric: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.figures:
            if not is_known("figure", name) or self.font is not None:  # ours import Matplotlib: half a second
                variant("figure", name)
        if self.figures and self.font is not None:
            from matplotlib import font_manager

            known = self.font in font_manager.get_font_names() or self.font in font_manager.font_family_aliases
            require(known, "plots.font", self.font, "is not installed; name a family that is, such as serif")
