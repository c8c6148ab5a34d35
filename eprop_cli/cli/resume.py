"""Arguments of eprop-run by which a run goes on."""

from collections.abc import Collection
from pathlib import Path

from eprop_cli import sweeps
from eprop_cli.config.composed import RESUMED
from eprop_cli.config.composition import offer
from eprop_cli.config.foreign import trusted
from eprop_cli.errors import UserError
from eprop_cli.runs.beginning import earlier_config, quoted


def with_earlier_arguments(arguments: list[str], allowed: Collection[str] = ()) -> list[str]:
    """Arguments of eprop-run by which the run or multirun in resume=DIRECTORY goes on with its config.

    allowed: modules that the directory may name.
    """
    given = [argument.removeprefix("resume=") for argument in arguments if argument.startswith("resume=")]
    if not given or given[-1] in ("", "null"):
        return arguments
    directory = Path(_unquoted(given[-1]))
    # Hydra takes overrides from one place among the arguments only.
    first = next(index for index, argument in enumerate(arguments) if "=" in argument and not argument.startswith("-"))
    options, overrides = arguments[:first], arguments[first:]
    if sweeps.is_sweep(directory):
        return sweeps.arguments_to_resume(directory, options, overrides, allowed)
    for option in arguments:
        if option.startswith(("--config-name", "-cn")):
            raise UserError(f"{option}: cannot be given with resume; leave it out")
    offer(earlier_config(directory, trusted(allowed, overrides)))
    new = [f"resume={quoted(directory)}" if text.startswith("resume=") else text for text in overrides]
    return ["--config-name", RESUMED, *options, "hydra.output_subdir=null", *new]


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
