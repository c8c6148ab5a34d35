"""What of finished runs is only needed to go on with them, and can be removed."""

import re
from dataclasses import dataclass
from pathlib import Path

from eprop_cli.errors import UserError
from eprop_cli.runs.checkpoint import CHECKPOINT
from eprop_cli.runs.files import COMPLETED, RUN
from eprop_cli.runs.reader import Run, find_runs

MOVED_ASIDE = re.compile(r"^(?P<name>.+)\.old-\d+$")  # a run that a sweep began again


@dataclass(frozen=True)
class Leftover:
    """A file or directory that is no longer needed: why, and how many bytes it takes."""

    path: Path
    why: str
    size: int


def leftovers(directory: Path) -> list[Leftover]:
    """What is left of the runs in a directory that are COMPLETED: checkpoints, and earlier tries moved aside.

    Nothing of a run that is not COMPLETED or cannot be read. Raises UserError if there is no run at all.
    """
    runs = find_runs(directory)
    if not runs:
        raise UserError(f"{directory}: no run directory in there (none holds a {RUN})")
    found = []
    for run in runs:
        place = run.directory
        moved = MOVED_ASIDE.match(place.name)
        if moved and _is_completed(place.with_name(moved["name"])):
            found.append(Leftover(place, f"an earlier try of {moved['name']}, which is COMPLETED", _size(place)))
        elif _is_completed(place) and (place / CHECKPOINT).is_file():
            why = "the run is COMPLETED; with it, resume trains longer"
            found.append(Leftover(place / CHECKPOINT, why, (place / CHECKPOINT).stat().st_size))
    return found


def _is_completed(directory: Path) -> bool:
    try:
        return Run(directory).status == COMPLETED
    except UserError:
        return False


def _size(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
