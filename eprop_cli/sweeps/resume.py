"""Arguments of eprop-run by which a multirun goes on."""

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path

from eprop_cli.config.foreign import own_names, trusted
from eprop_cli.errors import UserError
from eprop_cli.runs.beginning import quoted
from eprop_cli.runs.code import find_kept_by_jobs
from eprop_cli.sweeps.foreign import check_arguments_of
from eprop_cli.sweeps.job_directory import job_runs
from eprop_cli.sweeps.paths import find_modules_in
from eprop_cli.sweeps.record import read_sweep_record

MULTIRUN_OPTIONS = ("-m", "--multirun")
LAUNCHER = "hydra/launcher"


def arguments_to_resume(
    directory: Path,
    options: Sequence[str],
    overrides: Sequence[str],
    allowed: Collection[str],
    named: Collection[str] = (),
) -> list[str]:
    """Those that the multirun in a sweep directory was given, then the new ones.

    allowed: modules that it may name. named: those of them that these arguments name.
    """
    record = read_sweep_record(directory)
    for text in overrides:
        if text.startswith("hydra.sweep.dir="):
            raise UserError(f"{text}: cannot be given with resume; leave it out")
    names = trusted(allowed, overrides)
    check_arguments_of(record, directory, names, overrides)
    modules = ",".join(quoted(name) for name in sorted(names))
    if names:
        find_modules_in(record.beginning)  # before what its runs keep
    code = _kept_code(directory, names, trusted(named, overrides))
    beginning = "null" if record.beginning is None else quoted(record.beginning)
    return [
        *(*record.options, "--multirun", *_without_multirun(options)),
        *(*_still_given(record.overrides, overrides), f"hydra.sweep.dir={quoted(directory)}"),
        *(f"hydra.callbacks.sweep.beginning={beginning}", f"hydra.callbacks.sweep.trusted=[{modules}]"),
        f"hydra.callbacks.sweep.code={'null' if code is None else quoted(code)}",
        *(text for text in _without_multirun(overrides) if not text.startswith("resume=")),
    ]


def _still_given(earlier: Sequence[str], anew: Sequence[str]) -> list[str]:
    """Overrides of before, without the keys of a launcher that was chosen among them and is replaced; tells which."""
    before, chosen = _launcher(earlier), _launcher(anew)
    if None in (before, chosen) or before == chosen:
        return list(earlier)
    left_out = [text for text in earlier if text.lstrip("+~").startswith(LAUNCHER.replace("/", ".") + ".")]
    if left_out:
        print(f"Left out, as hydra/launcher={chosen}: {' '.join(left_out)}", flush=True)
    return [text for text in earlier if text not in left_out]


def _launcher(overrides: Sequence[str]) -> str | None:
    """The launcher that overrides choose last; None: they choose none."""
    named = [text.partition("=")[2].strip("'\"") for text in overrides if text.startswith(f"{LAUNCHER}=")]
    return named[-1] if named else None


def _kept_code(sweep: Path, names: Collection[str], named: Collection[str]) -> str | None:
    """Where a run of a sweep keeps the modules that runs there have, if they are not found otherwise."""
    runs, modules = job_runs(sweep), set()
    for run in runs:
        with contextlib.suppress(UserError):
            config = run.record.get("config")
            found = own_names(config) if isinstance(config, dict) else []
            modules |= {module for _, name in found if {name, module := name.partition(":")[0]} & set(names)}
    return find_kept_by_jobs("resume", sweep, [run.directory for run in runs], modules, named)


def _without_multirun(arguments: Sequence[str]) -> list[str]:
    return [argument for argument in arguments if argument not in MULTIRUN_OPTIONS]
