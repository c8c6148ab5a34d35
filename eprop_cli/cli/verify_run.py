"""eprop-verify RUN_DIR: does a run come out again, bit by bit?"""

import csv
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from eprop_cli.cli.scratch import scratch
from eprop_cli.config.composed import without_hydra
from eprop_cli.config.composition import compose
from eprop_cli.config.files import own_config_dir
from eprop_cli.config.load import load
from eprop_cli.errors import ConfigError, UserError, legible
from eprop_cli.phases import TRAINING
from eprop_cli.runs.beginning import begin_like
from eprop_cli.runs.checkpoint import HOW_KEYS
from eprop_cli.runs.files import COMPLETED, FAILED, INTERRUPTED, LOG, METRICS, iteration_directory
from eprop_cli.runs.log import logged
from eprop_cli.runs.progress import reporter
from eprop_cli.runs.reader import Run
from eprop_cli.runs.record import changed
from eprop_cli.runs.run import run as carry_out
from eprop_cli.training.base import check_ready
from eprop_cli.values import Row

DIFFERS = 1  # exit status
WITHOUT = ("plots.figures=[]", "report=false")  # what nothing is compared of
Line = dict[str, str]  # of metrics.csv


class EnoughSeen(Exception):  # noqa: N818
    """Ends the run that is compared: all rows that are wanted have come, or one that differs."""


@dataclass(frozen=True)
class Difference:
    """Where two runs differ first, and both values as text."""

    place: str
    before: str
    here: str


def is_run_dir(argument: str) -> bool:
    """Whether an argument is a run directory rather than KEY=VALUE, which may be the name of one."""
    return "=" not in argument or (Path(argument) / "run.json").is_file()


def verify_run(
    directory: Path,
    overrides: Sequence[str],
    config_dir: Path | None,
    n_iter: int | None,
    allowed: Collection[str],
    named: Collection[str],
) -> int:
    """Run a run's config again, and print whether the same comes of it; returns the exit status.

    overrides: of keys that say how a run is carried out. n_iter: training iterations to compare; None: all.
    allowed: modules that the directory may name. named: those of them that the command names.
    Raises UserError if it cannot be run again.
    """
    for override in overrides:
        key, _, value = override.partition("=")
        if not key.startswith(HOW_KEYS) or key in ("resume", "like"):
            raise ConfigError(key, value, "would make it another run; eprop-run like=RUN_DIR takes it")
    rest, base = begin_like(overrides, directory, allowed, named, key="")
    run = Run(directory)
    wanted = _wanted(run, n_iter)
    composed = compose([*rest, *WITHOUT], config_dir, base)
    if config_dir is not None or own_config_dir() is not None:
        HydraConfig.instance().set_config(composed)  # by which files are found beside those in there
    config = check_ready(load(without_hydra(composed)))
    whole = n_iter is None or len(wanted) == len(_lines(run))
    with scratch() as place, ExitStack() as stack:
        stack.enter_context(logged(place / LOG))
        tell = stack.enter_context(reporter(config))
        watch = _Watch(wanted, stop=not (whole and run.status == COMPLETED))

        def report(row: Row) -> None:
            tell(row)
            watch.take(row)

        ending = carry_out(config, place, command=_command(), report=report)
        if ending.status == INTERRUPTED:
            return ending.exit_status
        found = watch.found
        failed = ending.status == FAILED and not isinstance(ending.cause, EnoughSeen)
        if found is None and failed:
            if len(wanted) != watch.count or run.status != FAILED:
                found = Difference(f"after {watch.count} rows", run.status, f"{FAILED} ({ending.error})")
        elif found is None and watch.count < len(wanted):
            found = Difference("rows", str(len(wanted)), str(watch.count))
        compared = [f"{len(wanted)} rows of metrics.csv"]
        if found is None:
            found = _files(run, Run(place), whole, compared)
        _say(run, Run(place), found, compared)
    return 0 if found is None else DIFFERS


class _Watch:
    """Compares rows as they come. stop: whether the run is to end with the last of them."""

    def __init__(self, wanted: Sequence[Line], stop: bool) -> None:
        self._wanted, self._stop = wanted, stop
        self.count = 0
        self.found: Difference | None = None

    def take(self, row: Row) -> None:
        """Compare the next row; raises EnoughSeen."""
        here = {name: str(value) for name, value in row.flat().items()}
        place = f"iteration {row.iteration}, {row.phase}"
        if self.count == len(self._wanted):
            self.found = Difference(place, "no such row", "a row")
            raise EnoughSeen
        line = self._wanted[self.count]
        for name, before in line.items():
            if name != "seconds" and not _same(before, here.get(name)):
                self.found = Difference(f"{place}: {name}", before, here.get(name, "no such column"))
                raise EnoughSeen
        self.count += 1
        if self._stop and self.count == len(self._wanted):
            raise EnoughSeen


def _same(before: str, here: str | None) -> bool:
    """Whether two values are the same to the last bit."""
    if here is None or before == here:
        return before == here
    try:
        return repr(float(before)) == repr(float(here))
    except ValueError:
        return False


def _lines(run: Run) -> list[Line]:
    _ = run.metrics  # raises UserError if they are damaged
    text = (run.directory / METRICS).read_text(encoding="utf-8")
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def _wanted(run: Run, n_iter: int | None) -> list[Line]:
    """The rows of a run's first training iterations; raises UserError if it has none."""
    lines = _lines(run)
    trained = [index for index, line in enumerate(lines) if line["phase"] == TRAINING]
    if n_iter is not None and n_iter < len(trained):
        lines = lines[: trained[n_iter - 1] + 1]
    if not lines:
        raise UserError(f"{run.directory}: has no row in {METRICS}, so there is nothing to compare")
    return lines


def _files(run: Run, again: Run, whole: bool, compared: list[str]) -> Difference | None:
    """Where what else two runs have left differs first; adds what was compared."""
    for iteration in sorted(set(run.recorded) & set(again.recorded)):
        tables, others = (each.recording(iteration) for each in (run, again))
        for name in sorted(tables.keys() & others.keys()):
            for column, values in tables[name].items():
                place = f"{iteration_directory(iteration)}/{name}.parquet: {column}"
                if (found := _first(place, values.to_numpy(), others[name][column].to_numpy())) is not None:
                    return found
        compared.append(f"the recording of iteration {iteration}")
    if not whole or run.status not in (COMPLETED, INTERRUPTED):  # else its weights may be those of another iteration
        return None
    weights, others_weights = run.weights, again.weights
    for name, projection in weights.items():
        for when in ("before", "after"):
            pair = (_parts(getattr(each, when)) for each in (projection, others_weights[name]))
            for before, here in zip(*pair, strict=True):
                if (found := _first(f"weights of {name} {when} training", before, here)) is not None:
                    return found
    drawn = again.parameters
    for name, parameters in run.parameters.items():
        if (found := _first(name, parameters, drawn[name])) is not None:
            return found
    compared.append("weights")
    return None


def _parts(weights: Any) -> list[Any]:
    """The arrays of a projection's weights."""
    return [weights] if hasattr(weights, "__array__") else [weights.indptr, weights.indices, weights.data]


def _first(place: str, before: Any, here: Any) -> Difference | None:
    """Where two arrays of numbers or text differ first; None if they are the same."""
    import numpy as np

    if before.shape != here.shape:
        return Difference(place, *(f"{len(each)} values" for each in (before, here)))
    other = np.argwhere((before != here) & ((before == before) | (here == here)))
    if not len(other):
        return None
    index = tuple(other[0])
    return Difference(f"{place}, at {', '.join(map(str, index))}", str(before[index]), str(here[index]))


def _say(run: Run, again: Run, found: Difference | None, compared: Sequence[str]) -> None:
    if found is None:
        print(f"identical: {', '.join(compared)}")
    else:
        print(f"differs: {found.place}")
        for name, value in {"run": found.before, "here": found.here}.items():
            print(f"  {name:4}  {legible(value)}")
    record, here = run.record, again.record
    sessions: list[dict[str, Any]] = record.get("sessions") or [record]
    changes = dict.fromkeys(line for session in sessions for line in changed(session, here))
    for line in changes:
        print(f"other here: {legible(line)}")
    if not changes:
        print("as then: versions, code and machine")


def _command() -> list[str]:
    return [os.path.basename(sys.argv[0]), *sys.argv[1:]]
