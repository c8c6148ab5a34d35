"""Arguments of eprop-run by which a multirun goes on."""

from collections.abc import Collection, Sequence
from pathlib import Path

from eprop_cli.config.foreign import trusted
from eprop_cli.errors import UserError
from eprop_cli.runs.beginning import quoted
from eprop_cli.sweeps.foreign import check_arguments_of
from eprop_cli.sweeps.record import read_sweep_record

MULTIRUN_OPTIONS = ("-m", "--multirun")


def arguments_to_resume(
    directory: Path, options: Sequence[str], overrides: Sequence[str], allowed: Collection[str]
) -> list[str]:
    """Those that the multirun in a sweep directory was given, then the new ones; allowed: modules that it may name."""
    record = read_sweep_record(directory)
    for text in overrides:
        if text.startswith("hydra.sweep.dir="):
            raise UserError(f"{text}: cannot be given with resume; leave it out")
    names = trusted(allowed, overrides)
    check_arguments_of(record, directory, names, overrides)
    modules = ",".join(quoted(name) for name in sorted(names))
    beginning = "null" if record.beginning is None else quoted(record.beginning)
    return [
        *(*record.options, "--multirun", *_without_multirun(options)),
        *(*record.overrides, f"hydra.sweep.dir={quoted(directory)}", f"hydra.callbacks.sweep.beginning={beginning}"),
        f"hydra.callbacks.sweep.trusted=[{modules}]",
        *(text for text in _without_multirun(overrides) if not text.startswith("resume=")),
    ]


def _without_multirun(arguments: Sequence[str]) -> list[str]:
    return [argument for argument in arguments if argument not in MULTIRUN_OPTIONS]
