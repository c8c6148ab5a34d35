"""What comes before a run: its directory, what one that is resumed was given, and what is kept of that."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from eprop_cli.config.composed import config_options
from eprop_cli.config.config import Config
from eprop_cli.errors import ConfigError, require
from eprop_cli.runs.checkpoint import check_resume
from eprop_cli.runs.directory import claim
from eprop_cli.runs.files import write_text

WITH_RESUME = "cannot be given with resume; leave it out"


def take(config: Config, directory: Path) -> int | None:
    """Claim the directory of a run that begins, or make sure that one can be resumed; raises UserError.

    Returns the number of the file by which the directory is held until it is closed.
    """
    if config.resume is None:
        return claim(directory)
    require(Path(config.resume).absolute() == directory.absolute(), "hydra.run.dir", directory, WITH_RESUME)
    check_resume(config, directory)
    return None


def check_subdir(hydra_config: DictConfig, resumed: bool = False) -> None:
    """Raise ConfigError unless a run is to keep its overrides where earlier_overrides() looks for them."""
    subdir = hydra_config.output_subdir
    usual = subdir == ".hydra" or (resumed and subdir is None)  # then save_composed() writes there
    require(usual, "hydra.output_subdir", subdir, "cannot be set: what is in .hydra is needed to resume a run")


def earlier_overrides(directory: Path) -> list[str]:
    """The overrides of the run in a directory."""
    overrides: list[str] = _earlier(directory, "overrides.yaml", lambda config: [str(override) for override in config])
    return [override for override in overrides if not override.startswith("resume=")]


def earlier_options(directory: Path) -> list[str]:
    """Options by which the config of the run in a directory is found."""
    options: list[str] = _earlier(directory, "hydra.yaml", config_options)
    return options


def _earlier(directory: Path, name: str, read: Callable[[Any], Any]) -> Any:
    """What a function makes of a file that was written for the run in a directory, by Hydra or save_composed()."""
    path = directory / ".hydra" / name
    try:
        return read(OmegaConf.load(path))
    except (OSError, ValueError, AttributeError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError("resume", directory, f"is not a run directory: cannot read {path}") from error


def save_composed(composed: DictConfig, hydra_config: DictConfig, directory: Path) -> None:
    """Write what Hydra writes about a run, each file whole: a kill must leave one that is resumed to be resumed again.

    composed: without Hydra's part. hydra_config: that part, in "hydra".
    """
    contents = {"config": composed, "hydra": hydra_config, "overrides": hydra_config.hydra.overrides.task}
    for name, content in contents.items():
        write_text(directory / ".hydra" / f"{name}.yaml", OmegaConf.to_yaml(content))


def quoted(directory: Path) -> str:
    """A directory as a value among overrides: Hydra takes a "=" in a value only so."""
    return "'" + str(directory).replace("'", "\\'") + "'"
