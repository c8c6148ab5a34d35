"""Claim a run directory."""

import fcntl
import os
from pathlib import Path

from eprop_cli.errors import ConfigError, UserError
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
        check_inside(directory)
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


def hold(directory: Path) -> int | None:
    """Lock a run directory that is resumed; returns the number of the file by which it is held until that is closed.

    Raises ConfigError if another process does; returns None where the file system has no locks.
    """
    number = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise ConfigError("resume", directory, "is being resumed by another process; wait for it") from None
    except OSError:
        os.close(number)
        return None
    return number


def check_inside(directory: Path, *names: str) -> None:
    """Raise UserError if writing in a directory could write elsewhere, or wait for ever: for links and pipes in it.

    names: of what is in it, to look at only that.
    """
    top = os.path.realpath(directory)
    starts = [os.path.join(directory, name) for name in names] or [os.fspath(directory)]
    for start in starts:
        for place, below, files in os.walk(start):
            for name in (*below, *files):
                _check_entry(os.path.join(place, name), top)
        if names and os.path.lexists(start):
            _check_entry(start, top)


def _check_entry(path: str, top: str) -> None:
    real = os.path.realpath(path)
    if os.path.islink(path) and os.path.commonpath([real, top]) != top:
        raise UserError(f"{path}: is a link that leads out of the run directory; put there what it leads to")
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise UserError(f"{path}: is neither a file nor a directory; remove it")


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
