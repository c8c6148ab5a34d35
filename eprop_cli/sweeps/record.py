"""sweep.json: the arguments of the multirun begun last in a sweep directory, by which it is resumed."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eprop_cli.errors import ConfigError
from eprop_cli.runs.files import SWEEP, write_text

FORMAT = 2  # 1 was not numbered, and did not have the beginning


@dataclass(frozen=True)
class SweepRecord:
    """Arguments of a multirun.

    options, overrides: of eprop-run. beginning: directory where its relative paths begin; None: wherever it is resumed.
    """

    options: list[str]
    overrides: list[str]
    beginning: str | None

    def write(self, directory: Path) -> None:
        """Leave it in a sweep directory."""
        write_text(directory / SWEEP, json.dumps({"format": FORMAT} | asdict(self), indent=2) + "\n")


def is_sweep(directory: Path) -> bool:
    """Whether a multirun was begun in a directory."""
    return (directory / SWEEP).exists()


def read_sweep_record(directory: Path) -> SweepRecord:
    """The record in a sweep directory; raises ConfigError if it is damaged, or of a format that is not known."""
    path = directory / SWEEP
    try:
        read = json.loads(path.read_text())
        if (number := _format(read)) <= FORMAT:
            beginning = read.get("beginning")
            if not isinstance(beginning, str | None):
                raise ValueError("beginning must be a directory")
            return SweepRecord(_texts(read["options"]), _texts(read["overrides"]), beginning)
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        constraint = f"cannot be resumed: {path} is damaged ({type(error).__name__}: {error})"
        raise ConfigError("resume", directory, constraint) from error
    constraint = f"cannot be resumed: {path} has format {number}, but this eprop-run knows {FORMAT}; use a newer one"
    raise ConfigError("resume", directory, constraint)


def _format(read: Any) -> int:
    number = read.get("format", 1) if isinstance(read, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError("it is not a multirun's")
    return number


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("options and overrides must be lists of text")
    return values
