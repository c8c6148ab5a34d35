"""Arguments of eprop-run by which a run goes on, or by which one begins that is like another."""

from collections.abc import Collection

from eprop_cli import sweeps
from eprop_cli.config.composed import RESUMED
from eprop_cli.config.composition import offer
from eprop_cli.config.foreign import trusted
from eprop_cli.errors import UserError
from eprop_cli.runs.beginning import LIKE, RESUME, begin_like, earlier_config, given_directory, quoted


def with_earlier_arguments(
    arguments: list[str], allowed: Collection[str] = (), named: Collection[str] = ()
) -> list[str]:
    """Arguments of eprop-run by which the run or multirun in resume=DIRECTORY goes on, or one begins as in like=.

    allowed: modules that the directory may name. named: those of them that these arguments name.
    """
    like, directory = (given_directory(arguments, key) for key in (LIKE, RESUME))
    if like is not None:
        for option in arguments:
            if option.startswith(("--config-name", "-cn")) or option in ("-m", "--multirun"):
                raise UserError(f"{option}: cannot be given with {LIKE}; leave it out")
        rest, base = begin_like(arguments, like, allowed, named)
        offer(base)
        return ["--config-name", RESUMED, *rest]
    if directory is None:
        return arguments
    # Hydra takes overrides from one place among the arguments only.
    first = next(index for index, argument in enumerate(arguments) if "=" in argument and not argument.startswith("-"))
    options, overrides = arguments[:first], arguments[first:]
    if sweeps.is_sweep(directory):
        return sweeps.arguments_to_resume(directory, options, overrides, allowed, named)
    for option in arguments:
        if option.startswith(("--config-name", "-cn")):
            raise UserError(f"{option}: cannot be given with resume; leave it out")
    offer(earlier_config(directory, trusted(allowed, overrides), named=trusted(named, overrides)))
    new = [f"resume={quoted(directory)}" if text.startswith("resume=") else text for text in overrides]
    return ["--config-name", RESUMED, *options, "hydra.output_subdir=null", *new]
