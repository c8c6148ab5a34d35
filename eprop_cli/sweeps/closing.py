"""What is left when a multirun ends, however it ends: a table, a figure, and lines that say what to do next."""

import math
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from eprop_cli.errors import UserError
from eprop_cli.objectives import parse_objective
from eprop_cli.reports.table import show, write_csv
from eprop_cli.runs.files import COMPLETED, FAILED, RUNNING
from eprop_cli.runs.reader import Run
from eprop_cli.sweeps.job_directory import job_runs
from eprop_cli.sweeps.multirun import NOT_STARTED, SKIPPED, JobOutcome, Multirun
from eprop_cli.terminal import drop_output

if TYPE_CHECKING:
    from eprop_cli.runs.ranked import Comparison

TABLE, FIGURE = "sweep.csv", "sweep.png"
DPI = 150
GRACE = 60.0  # s, that jobs in other processes are given to end in order
FAILURE = 1  # exit status


def close(multirun: Multirun, problem: BaseException | None) -> int:
    """Write and show the overview, say what is left to do and how; returns the exit status.

    problem: what kept it from calling all its jobs and waiting for them.
    """
    number = multirun.stopped or (signal.SIGINT if isinstance(problem, KeyboardInterrupt) else None)
    outcomes = multirun.outcomes if problem is None else _settled(multirun)
    n_jobs = multirun.plan.n_jobs
    runs = job_runs(multirun.directory)
    written = _write(runs, multirun.directory, is_search=n_jobs is None) if runs else None
    counts = Counter(outcome.status for outcome in outcomes)
    counts[NOT_STARTED] += 0 if n_jobs is None else n_jobs - len(outcomes)
    bad = [outcome.name for outcome in outcomes if outcome.status not in (COMPLETED, SKIPPED, NOT_STARTED)]
    if not counts[RUNNING]:
        multirun.remove()
    try:
        if written:
            _show(*written)
        _tell(multirun, counts, bad, is_search=n_jobs is None)
        sys.stdout.flush()
    except OSError:  # the reader of a pipe has had enough, or the terminal is gone
        drop_output()
    if number is not None:
        return 128 + number
    return FAILURE if problem or bad or counts[NOT_STARTED] else 0


def _tell(multirun: Multirun, counts: Counter[str], bad: Sequence[str], is_search: bool) -> None:
    """What became of the jobs, and how to go on."""
    told = [f"{counts[status]} {status}" for status in sorted(counts) if counts[status]]
    print(f"Jobs: {', '.join(told)}{' (COMPLETED before)' if counts[SKIPPED] else ''}")
    if bad:
        print(f"Not COMPLETED: {', '.join(bad)}")
    if bad or counts[NOT_STARTED]:
        purpose = "Go on with the search" if is_search else "Run what is not COMPLETED, and nothing else"
        print(f"{purpose}: eprop-run {shlex.quote(f'resume={_from_here(multirun.directory)}')}")


def why_broken_off(problem: Exception) -> str | None:
    """What an error of a launcher or a search means, in one line; None for those that are not expected."""
    if str(problem) == "No trials are completed yet.":  # Optuna's
        return "the search has no result: none of its jobs returned an objective"
    return {
        "TerminatedWorkerError": "a process of the launcher was killed (out of memory?), and with it the others",
        "UncompletedJobError": "a job of the cluster was killed (out of memory?); its log is in .submitit",
    }.get(type(problem).__name__)


def _settled(multirun: Multirun) -> list[JobOutcome]:
    """What became of the jobs, also of those that could not say so.

    Waits for those that run: a while where they are ending, else, as on a cluster, to their end.
    """
    until = math.inf
    while True:
        outcomes = [_seen(multirun.directory, outcome) for outcome in multirun.outcomes]
        if multirun.plan.tied or multirun.stopped is not None:
            until = min(until, time.monotonic() + GRACE)
        if time.monotonic() >= until or not any(outcome.status == RUNNING for outcome in outcomes):
            return outcomes
        time.sleep(0.2)


def _seen(directory: Path, outcome: JobOutcome) -> JobOutcome:
    """An outcome as the job's run has it, if the job itself did not get to say more than that it began."""
    if outcome.status != RUNNING:
        return outcome
    try:
        run = Run(directory / outcome.name)
        status = FAILED if run.killed else run.status
    except UserError:
        return outcome
    return replace(outcome, status=status)


def _write(runs: Sequence[Run], directory: Path, is_search: bool) -> "tuple[Comparison, list[Path]]":
    """Write the table and, if there is anything to draw, the figure; returns the comparison and the paths of both."""
    from eprop_cli.figures.comparison import sweep_figure
    from eprop_cli.figures.style import save
    from eprop_cli.runs.ranked import compare

    searched = [runs[0].config["objective"]] if is_search and not math.isnan(_objective(runs[0])) else []
    compared = compare(runs, searched)
    table = compared.table
    for position, (group, values) in enumerate(_choices(runs).items(), start=1):
        if group not in table:
            table.insert(position, group, values)
    if is_search:
        table.insert(list(table.columns).index("status"), "objective", list(map(_objective, runs)))
    write_csv(table.assign(run=[run.directory.name for run in runs]), directory / TABLE)
    files = [directory / TABLE]
    if table["iterations"].any():
        files.append(directory / FIGURE)
        save(sweep_figure(compared.opened), files[-1], DPI)
    return compared, files


def _show(compared: "Comparison", files: Sequence[Path]) -> None:
    print(flush=True)  # or Console would flush it, and end the process where the reader has had enough
    show(compared, each_run=False)
    print(f"Files: {', '.join(map(str, map(_from_here, files)))}")


def _objective(run: Run) -> float:
    """What a job returned to the search that started it; nan if it did not get there."""
    try:
        better = {column.name: column.better for column in run.columns}
        objective = parse_objective(run.config["objective"], better)
        return objective.value(run.metrics) if run.status == COMPLETED else math.nan
    except (UserError, KeyError):
        return math.nan


def _choices(runs: Sequence[Run]) -> dict[str, list[str | None]]:
    """The config files, by their groups, that were chosen for some runs and not for others."""
    given = []
    for run in runs:
        try:
            pairs = (override.split("=", 1) for override in run.overrides if "=" in override)
            given.append({key.lstrip("+"): value for key, value in pairs if "." not in key})
        except UserError:
            given.append({})
    groups = dict.fromkeys(group for each in given for group in each)
    columns = {group: [each.get(group) for each in given] for group in groups}
    return {group: values for group, values in columns.items() if len(set(values)) > 1}


def _from_here(path: Path) -> Path:
    """A path as short as it can be given here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
