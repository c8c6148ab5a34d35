"""What comes before a run: its directory, what one that is resumed was given, and what is kept of that."""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eprop_cli.config.config import Config
from eprop_cli.config.foreign import check_foreign
from eprop_cli.errors import ConfigError, UserError, require
from eprop_cli.runs.checkpoint import check_resume, read_record
from eprop_cli.runs.directory import claim, hold
from eprop_cli.runs.files import RUN, write_text
from eprop_cli.runs.reader import Run

WITH_RESUME = "cannot be given with resume; leave it out"


def take(config: Config, directory: Path) -> int | None:
    """Claim the directory of a run that begins, or make sure that one can be resumed; raises UserError.

    Returns the number of the file by which the directory is held until it is closed; None where there are no locks.
    """
    if config.resume is None:
        return claim(directory)
    require(Path(config.resume).absolute() == directory.absolute(), "hydra.run.dir", directory, WITH_RESUME)
    held = hold(directory)
    try:
        check_resume(config, directory)
    except BaseException:
        if held is not None:
            os.close(held)
        raise
    return held


def check_subdir(hydra_config: DictConfig, resumed: bool = False) -> None:
    """Raise ConfigError unless a run is to keep its config where people and Run look for it."""
    subdir = hydra_config.output_subdir
    usual = subdir == ".hydra" or (resumed and subdir is None)  # then save_composed() writes there
    require(usual, "hydra.output_subdir", subdir, "cannot be set: a run's config is looked for in .hydra")


def earlier_config(directory: Path, trusted: Collection[str]) -> dict[str, Any]:
    """The config of the run in a directory as plain values; raises ConfigError if it holds anything else.

    trusted: as in check_names().
    """
    record = read_record(directory)
    try:
        check_foreign(record.get("config"), trusted)
    except UserError as error:
        raise ConfigError("resume", directory, f"cannot be resumed: its {RUN} {error}") from error
    config: dict[str, Any] = record["config"]
    return config


def save_composed(composed: DictConfig, hydra_config: DictConfig, directory: Path) -> None:
    """Write what Hydra writes about a run, each file whole, for people to read: nothing here depends on it.

    composed: without Hydra's part. hydra_config: that part, in "hydra". Of a run that is resumed, what was there stays,
    with the new overrides in it.
    """
    overrides = [str(override) for override in hydra_config.hydra.overrides.task]
    config: Any = composed
    if composed.resume is not None:
        run = Run(directory)
        with contextlib.suppress(UserError, OmegaConfBaseException):  # hidden files were not copied
            earlier, given = OmegaConf.create(run.raw_config), overrides
            overrides = [*(each for each in run.overrides if not each.startswith("resume=")), *given]
            for key in (override.partition("=")[0].lstrip("+") for override in given):
                OmegaConf.update(earlier, key, OmegaConf.select(composed, key), force_add=True)
            config = earlier
    for name, content in {"config": config, "hydra": hydra_config, "overrides": overrides}.items():
        write_text(directory / ".hydra" / f"{name}.yaml", OmegaConf.to_yaml(content))


def quoted(directory: Path) -> str:
    """A directory as a value among overrides: Hydra takes a "=" in a value only so."""
    return "'" + str(directory).replace("'", "\\'") + "'"
