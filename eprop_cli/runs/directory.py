"""Claim a run directory."""

import fcntl
import os
from pathlib import Path

from eprop_cli.errors import ConfigError
from eprop_cli.runs.files import LOG

RESERVE, RESERVE_BYTES = ".reserve", 65536  # given up at the end, so that a full disk still takes the final status


def claim(directory: Path) -> int | None:
    """Make a run directory, or take over one whose run was stopped before it began; raises ConfigError otherwise.

    Returns the number of the file by which it is held until that is closed; None where the file system has no locks.
    """
    key = "hydra.run.dir"
    held = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        made = not any(directory.iterdir()) and _make(directory / RESERVE)
        free = _is_unbegun(directory)
        if free:
            free, held = _hold(directory / RESERVE, made)
        free = free and _is_unbegun(directory)  # the run of another process may have begun and ended meanwhile
    except OSError as error:
        raise ConfigError(key, directory, f"cannot be made or read ({error.strerror}); choose another") from error
    if not free:
        if held is not None:
            os.close(held)
        raise ConfigError(key, directory, "holds files already; choose another directory or remove it")
    return held


def _make(path: Path) -> bool:
    """Make an empty file; of several processes one succeeds."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _is_unbegun(directory: Path) -> bool:
    """Whether a directory holds nothing but what is there before a run begins."""
    names = {path.name for path in directory.iterdir()}
    return RESERVE in names and names <= {RESERVE, LOG, ".hydra"}


def _hold(path: Path, otherwise: bool) -> tuple[bool, int | None]:
    """Lock a file; returns whether it is ours, and its number. otherwise: whether it is where there are no locks."""
    number = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held = False
    except OSError:
        held = otherwise
    else:
        return True, number
    os.close(number)
    return held, None
