"""What eprop_cli is from Python: run(), compose(), Run and Sweep.

run() leaves what the command eprop-run leaves, and can be called in a notebook and in threads: errors are raised, and
signals, logging and Hydra are left as they were found.
"""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from eprop_cli.columns import HIGHER
from eprop_cli.config.composed import without_hydra
from eprop_cli.config.composition import compose as compose_with_hydra
from eprop_cli.config.config import Config
from eprop_cli.config.foreign import trusted
from eprop_cli.config.load import load
from eprop_cli.config.moved import moved_among, with_new_names
from eprop_cli.errors import ConfigError, TrainingError, UserError
from eprop_cli.objectives import parse_objective
from eprop_cli.runs.beginning import check_subdir, earlier_config, quoted, save_composed, take
from eprop_cli.runs.comparison import summarise
from eprop_cli.runs.files import COMPLETED, FAILED, INTERRUPTED, LOG, SWEEP
from eprop_cli.runs.interrupts import Interruption
from eprop_cli.runs.log import OURS, logged
from eprop_cli.runs.progress import lines
from eprop_cli.runs.reader import Run, find_runs
from eprop_cli.runs.run import Ending
from eprop_cli.runs.run import run as carry_out
from eprop_cli.training.base import check_ready
from eprop_cli.values import Row

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run", "Sweep", "compose", "run"]

Place = str | os.PathLike[str]


def compose(overrides: Sequence[str] = (), config_dir: Place | None = None) -> Config:
    """The typed config that eprop-run makes of these overrides, checked.

    overrides: as on the command line, e.g. ["experiment=smoke", "task.n_iter=3"]. config_dir: config files of your own.
    Raises UserError with one line for the first thing wrong; most often it is a ConfigError.
    """
    return load(without_hydra(_composed(overrides, config_dir)))


def run(
    overrides: Sequence[str] = (),
    directory: Place | None = None,
    config_dir: Place | None = None,
    on_row: Callable[[Row], object] | None = None,
    allow_modules: Sequence[str] = (),
) -> Run:
    """Train as eprop-run does, and return the run directory for reading.

    overrides, config_dir: as for compose(); "resume=RUN_DIR" goes on with a run, whoever began it.
    directory: the run directory, which must be empty or not there; by default one named after date and time in outputs.
    allow_modules: modules of your own that a run which is resumed may name, as --allow-module; not remembered.
    on_row: called with each row of metrics.csv once it is written; what it raises ends the run.

    Raises UserError before anything is written if the run cannot begin. If it ends FAILED, raises what ended it, most
    often a TrainingError; if it is interrupted, KeyboardInterrupt. What was trained until then is in the directory.
    """
    command = ["eprop_cli.run", *map(str, overrides)]
    given, base = _with_earlier(overrides, allow_modules)
    if directory is not None:
        given.append(f"hydra.run.dir={quoted(Path(directory))}")
    composed = _composed(given, config_dir, base)
    place = Path(composed.hydra.runtime.output_dir)
    config = check_ready(load(without_hydra(composed)))
    check_subdir(composed.hydra)
    with ExitStack() as stack:
        if (held := take(config, place)) is not None:
            stack.callback(os.close, held)
        save_composed(without_hydra(composed), OmegaConf.masked_copy(composed, ["hydra"]), place)
        stack.enter_context(logged(place / LOG))
        tell = lines(config)

        def report(row: Row) -> None:
            tell(row)
            if on_row is not None:
                on_row(row)

        ending = carry_out(config, place, command=command, report=report)
    _raise(ending)
    return Run(place)


class Sweep:
    """Many runs, as a sweep leaves them, or any folder of runs: read when asked and afresh each time."""

    def __init__(self, directory: Place) -> None:
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise UserError(f"{self.directory}: is no directory of runs")

    def __repr__(self) -> str:
        return f"Sweep({str(self.directory)!r})"

    @property
    def runs(self) -> list[Run]:
        """All runs in the directory, at any depth, sorted with numbers in their order."""
        return find_runs(self.directory)

    @property
    def table(self) -> "pd.DataFrame":
        """A row per run, as in compare.csv.

        Columns: run (its directory), the config keys in which the runs differ, status, iterations, final_loss,
        best_loss, accuracy, test_error, seconds, error.
        """
        return summarise(self.runs)

    def best(self, objective: str | None = None) -> Run:
        """The run that is COMPLETED and has the best value of an objective.

        objective: as in conf/config.yaml, e.g. "best_val_loss" or "test_recall_error"; None: what each run's config
            says. Which way is better follows from the metric. Runs without a value are left out.
        Raises UserError if no run has one, and ConfigError for an objective that there is not.
        """
        values = {run: value for run in self.runs if (value := _value(run, objective)) is not None}
        if not values:
            raise UserError(f"{self.directory}: no run in there is {COMPLETED} and has a value of {objective or 'its'}")
        return min(values, key=lambda run: values[run])


def _value(run: Run, objective: str | None) -> float | None:
    """What a run's objective comes to, the less the better; None if it has none."""
    if run.status != COMPLETED:
        return None
    better = {column.name: column.better for column in run.columns}
    parsed = parse_objective(objective or str(run.config["objective"]), better)
    value = parsed.value(run.metrics)
    if value != value:
        return None
    return -value if better[parsed.column] == HIGHER else value


def _composed(overrides: Sequence[str], config_dir: Place | None, base: dict[str, Any] | None = None) -> DictConfig:
    overrides = [str(override) for override in overrides]
    for line in moved_among(overrides):
        OURS.warning(line)
    return compose_with_hydra(with_new_names(overrides), None if config_dir is None else Path(config_dir), base)


def _with_earlier(overrides: Sequence[str], allowed: Sequence[str]) -> tuple[list[str], dict[str, Any] | None]:
    """Overrides, and the config of the run that is to be resumed, if any."""
    given = [str(override) for override in overrides]
    resumed = [override.removeprefix("resume=") for override in given if override.startswith("resume=")]
    if not resumed or resumed[-1] in ("", "null"):
        return given, None
    directory = Path(resumed[-1].strip("'\""))
    if (directory / SWEEP).exists():
        raise ConfigError("resume", directory, "is a multirun; resume it with the command eprop-run")
    new = [f"resume={quoted(directory)}" if override.startswith("resume=") else override for override in given]
    return new, earlier_config(directory, trusted(allowed, given))


def _raise(ending: Ending) -> None:
    """Raise what ended a run, unless it completed."""
    if ending.status == INTERRUPTED:
        # The others than Ctrl-C are to have the effect that they would have had without a run.
        if isinstance(ending.cause, Interruption) and ending.cause.number != signal.SIGINT:
            signal.raise_signal(ending.cause.number)
        raise KeyboardInterrupt(ending.error)
    if ending.status == FAILED:
        if isinstance(ending.cause, Exception):
            raise ending.cause
        raise TrainingError(str(ending.error)) from ending.cause
