"""Arguments of eprop-run by which a run goes on."""

from pathlib import Path

from eprop_cli import sweeps
from eprop_cli.runs.beginning import earlier_options, earlier_overrides, quoted


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
    new = [f"resume={quoted(directory)}" if text.startswith("resume=") else text for text in overrides]
    earlier = [*earlier_overrides(directory), "hydra.output_subdir=null"]  # save_composed() does what it would do
    return [*earlier_options(directory), *options, *earlier, *new]


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
