"""Arguments of eprop-run by which a run goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from eprop_cli import sweeps
from eprop_cli.config.composed import config_options
from eprop_cli.errors import ConfigError
from eprop_cli.runs.files import write_text


def with_earlier_arguments(arguments: list[str]) -> list[str]:
    """Arguments of eprop-run with those that the run or multirun in resume=DIRECTORY was given, before the new ones."""
    given = [argument.removeprefix("resume=") for argument in arguments if argument.startswith("resume=")]
    if not given or given[-1] in ("", "null"):
        return arguments
    directory = Path(_unquoted(given[-1]))
    # Hydra takes overrides from one place among the arguments only.
    first = next(index for index, argument in enumerate(arguments) if "=" in argument and not argument.startswith("-"))
    options, overrides = arguments[:first], arguments[first:]
    if sweeps.is_sweep(directory):
        return sweeps.arguments_to_resume(directory, options, overrides)
    quoted = "'" + str(directory).replace("'", "\\'") + "'"  # Hydra takes a "=" in a value only so
    new = [f"resume={quoted}" if text.startswith("resume=") else text for text in overrides]
    earlier = [*_earlier_overrides(directory), "hydra.output_subdir=null"]  # save_composed() does what it would do
    return [*_earlier(directory, "hydra.yaml", config_options), *options, *earlier, *new]


def save_composed(composed: DictConfig, directory: Path) -> None:
    """Write what Hydra would about a run that is resumed, each file whole: a kill must leave it to be resumed again."""
    hydra_config: Any = HydraConfig.instance().cfg
    contents = {"config": composed, "hydra": hydra_config, "overrides": hydra_config.hydra.overrides.task}
    for name, content in contents.items():
        write_text(directory / ".hydra" / f"{name}.yaml", OmegaConf.to_yaml(content))


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _earlier_overrides(directory: Path) -> list[str]:
    """The overrides of the run in a directory."""
    overrides: list[str] = _earlier(directory, "overrides.yaml", lambda config: [str(override) for override in config])
    return [override for override in overrides if not override.startswith("resume=")]


def _earlier(directory: Path, name: str, read: Callable[[Any], Any]) -> Any:
    """What a function makes of a file that Hydra wrote for the run in a directory."""
    path = directory / ".hydra" / name
    try:
        return read(OmegaConf.load(path))
    except (OSError, ValueError, AttributeError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError("resume", directory, f"is not a run directory: cannot read {path}") from error
