"""What comes before a run: its directory, what one that is resumed was given, and what is kept of that."""

import contextlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eprop_cli.config.config import Config
from eprop_cli.config.files import conf_dir
from eprop_cli.config.foreign import check_foreign, trusted
from eprop_cli.errors import ConfigError, UserError, require
from eprop_cli.runs.checkpoint import check_resume, read_record
from eprop_cli.runs.code import find_kept
from eprop_cli.runs.directory import claim, hold
from eprop_cli.runs.files import RUN, write_text
from eprop_cli.runs.reader import Run

RESUME, LIKE = "resume", "like"  # by which a run directory is given whose config is taken
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


def given_directory(arguments: Sequence[str], key: str) -> Path | None:
    """The directory that resume=DIRECTORY or like=DIRECTORY among some arguments gives last; None if there is none."""
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{key}=")]
    if not given or given[-1] in ("", "null"):
        return None
    value = given[-1]
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return Path(value[1:-1] if quoted else value)


def earlier_config(
    directory: Path, names: Collection[str], key: str = RESUME, named: Collection[str] = ()
) -> dict[str, Any]:
    """The config of the run in a directory as plain values; raises ConfigError if it holds anything else.

    names: those trusted, as in check_trusted(). key: by which the directory was given. named: as in find_kept().
    """
    record = read_record(directory, key)
    try:
        check_foreign(record.get("config"), names)
    except UserError as error:
        what = "resumed" if key == RESUME else "run again"
        raise ConfigError(key, directory, f"cannot be {what}: its {RUN} {error}") from error
    config: dict[str, Any] = record["config"]
    find_kept(key, directory, config, named)
    return config


def begin_like(
    arguments: Sequence[str], directory: Path, allowed: Collection[str], named: Collection[str], key: str = LIKE
) -> tuple[list[str], dict[str, Any]]:
    """Arguments without like=DIRECTORY, and the config of the run in there, on top of which they are to be put.

    allowed: modules that the directory may name. named: those of them that are named with the arguments. key: by which
    the directory was given; empty of one that is an argument by itself.
    """
    rest = [argument for argument in arguments if not argument.startswith(f"{LIKE}=")]
    resumed = given_directory(rest, RESUME)
    require(resumed is None, RESUME, resumed, f"cannot be given with {LIKE}; leave one of them out")
    config = earlier_config(directory, trusted(allowed, rest), key, trusted(named, rest))
    # Another file of a group takes the place of all its keys.
    given = {argument.partition("=")[0] for argument in rest if "=" in argument}
    chosen = {group for group in given & config.keys() if (conf_dir() / group).is_dir()}
    return rest, {name: value for name, value in config.items() if name not in chosen} | {RESUME: None}


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


def quoted(value: str | Path) -> str:
    """A value among overrides as Hydra takes it whatever characters it has, such as a "=" in a path."""
    return "'" + str(value).replace("'", "\\'") + "'"
