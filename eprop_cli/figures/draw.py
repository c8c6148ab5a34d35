"""Draw the figures of a run from its directory."""

from collections.abc import Sequence
from pathlib import Path

from eprop_cli.registry import variant
from eprop_cli.runs.reader import Run


def draw_run(run: Run, figures: Sequence[str], formats: Sequence[str], dpi: int, into: Path) -> list[Path]:
    """Draw the named figures of a run into a directory and return their files; what was not recorded is left out."""
    return [path for name in figures for path in variant("figure", name).write(run, formats, dpi, into)]
