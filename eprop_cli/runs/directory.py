"""Claim a run directory."""

import fcntl
import os
from pathlib import Path

from omegaconf import DictConfig

from eprop_cli.errors import ConfigError, require
from eprop_cli.runs.files import LOG

RESERVE, RESERVE_BYTES = ".reserve", 65536  # given up at the end, so that a full disk still takes the final status


def check_subdir(hydra_config: DictConfig, resumed: bool = False) -> None:
    """Raise ConfigError unless a run is to keep its overrides where a run that is resumed has them looked for."""
    subdir = hydra_config.output_subdir
    usual = subdir == ".hydra" or (resumed and subdir is None)  # then they are written there without Hydra
    require(usual, "hydra.output_subdir", subdir, "cannot be set: what is in .hydra is needed to resume a run")


def claim(directory: Path) -> None:
    """Make a run directory, or take over one whose run was stopped before it began; raises ConfigError otherwise."""
    key = "hydra.run.dir"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        made = not any(directory.iterdir()) and _make(directory / RESERVE)
        free = _is_unbegun(directory) and _hold(directory / RESERVE, made)
        free = free and _is_unbegun(directory)  # the run of another process may have begun and ended meanwhile
    except OSError as error:
        raise ConfigError(key, directory, f"cannot be made or read ({error.strerror}); choose another") from error
    if not free:
        raise ConfigError(key, directory, "holds files already; choose another directory or remove it")


def _make(path: Path) -> bool:
    """Make an empty file; of several processes one succeeds."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _is_unbegun(directory: Path) -> bool:
    """Whether a directory holds nothing but what is there before a run begins."""
    from eprop_cli.runs.directory import RESERVE

    names = {path.name for path in directory.iterdir()}
    return RESERVE in names and names <= {RESERVE, LOG, ".hydra"}


def _hold(path: Path, otherwise: bool) -> bool:
    """Lock a file for as long as this process lives; otherwise: what to return where the file system has no locks."""
    number = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held = False
    except OSError:
        held = otherwise
    else:
        return True  # and never close it
    os.close(number)
    return held
