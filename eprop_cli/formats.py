"""The number of the format of run.json, checkpoint.npz and weights.npz."""

from pathlib import Path
from typing import Any

from eprop_cli.errors import UserError

FORMAT = 2  # what is written; runs/format.py reads what was written before


def check_format(number: Any, path: Path) -> None:
    """Raise UserError for the format of a newer version of eprop-cli, ValueError for what is no format."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"its format is {number!r}")
    if number > FORMAT:
        raise UserError(f"{path}: has format {number}, and this eprop-cli reads up to {FORMAT}; update it")
