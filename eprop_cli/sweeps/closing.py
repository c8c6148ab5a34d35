"""What is left when a multirun ends, however it ends: a table, a figure, and lines that say what to do next."""

import math
import re
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
from eprop_cli.runs.files import COMPLETED, FAILED, PRUNED, RUNNING
from eprop_cli.runs.reader import Run
from eprop_cli.runs.trials import SearchRecord, read_trials
from eprop_cli.sweeps.job_directory import job_runs
from eprop_cli.sweeps.multirun import NOT_STARTED, SKIPPED, JobOutcome, Multirun
from eprop_cli.sweeps.slurm import LOGS, ended_so
from eprop_cli.terminal import complain, drop_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from eprop_cli.runs.ranked import Comparison


TABLE, FIGURE = "sweep.csv", "sweep.png"
DPI = 150
GRACE = 60.0  # s, that jobs in other processes are given to end in order
FAILURE = 1  # exit status
FINE = (COMPLETED, PRUNED, SKIPPED, NOT_STARTED)  # what can become of a job that nothing is wrong with


def close(multirun: Multirun, problem: BaseException | None) -> int:
    """Write and show the overview, say what is left to do and how; returns the exit status.

    problem: what kept it from calling all its jobs and waiting for them.
    """
    number = multirun.stopped or (signal.SIGINT if isinstance(problem, KeyboardInterrupt) else None)
    outcomes = multirun.outcomes if problem is None else _settled(multirun)
    n_jobs = multirun.plan.n_jobs
    record = read_trials(multirun.directory) if n_jobs is None else None
    runs = _in_order(job_runs(multirun.directory), record)
    written, lost = None, False
    try:
        written = _write(runs, multirun.directory, record, is_search=n_jobs is None) if runs else None
    except OSError as error:  # the disk is full
        print(f"eprop-run: {error.filename}: cannot be written ({error.strerror}); resume writes it", file=sys.stderr)
        lost = True
    counts = Counter(outcome.status for outcome in outcomes)
    counts[NOT_STARTED] += 0 if n_jobs is None else n_jobs - len(outcomes)
    bad = [outcome.name for outcome in outcomes if outcome.status not in FINE]
    if not counts[RUNNING]:
        multirun.remove()
    try:
        if written:
            _show(*written)
            for fault in written[0].unreadable:
                complain("eprop-run", f"{fault}; move its directory away, and resume runs it again")
                lost = True
        if record is not None:
            _tell_best(multirun.directory, record)
        _tell(multirun, counts, bad, is_search=n_jobs is None)
        sys.stdout.flush()
    except OSError:  # the reader of a pipe has had enough, or the terminal is gone
        drop_output()
    if number is not None:
        return 128 + number
    return FAILURE if problem or bad or counts[NOT_STARTED] or lost else 0


def _tell(multirun: Multirun, counts: Counter[str], bad: Sequence[str], is_search: bool) -> None:
    """What became of the jobs, and how to go on."""
    told = [f"{counts[status]} {status}" for status in sorted(counts) if counts[status]]
    before = f" ({'finished' if is_search else COMPLETED} before)" if counts[SKIPPED] else ""
    print(f"Jobs: {', '.join(told)}{before}")
    if bad:
        print(f"Not COMPLETED: {', '.join(bad)}")
    if bad or counts[NOT_STARTED]:
        purpose = "Go on with the search" if is_search else "Run what is not COMPLETED, and nothing else"
        print(f"{purpose}: eprop-run {shlex.quote(f'resume={_from_here(multirun.directory)}')}")


def _tell_best(directory: Path, record: SearchRecord) -> None:
    """Which trial is the best, and where it is."""
    if record.best is not None:
        trial = record.trials[record.best]
        place = shlex.quote(str(_from_here(directory / trial.run)))
        print(f"Best: trial {record.best}, {record.objective} {trial.value:.6g}: {place}")


def why_broken_off(problem: Exception, sweep: Path) -> str | None:
    """What an error of a launcher or a search means, in one line; None for those that are not expected."""
    if isinstance(problem, UserError):
        return str(problem)
    kind = type(problem).__name__
    if kind == "TerminatedWorkerError":
        return "a process of the launcher was killed (out of memory?), and with it the others"
    if kind == "UncompletedJobError":
        found = re.search(r"^Job (\S+) .*?\(state: (.*?)\)", str(problem), re.DOTALL)
        if found is None:
            first, *_ = str(problem).splitlines() or [""]
            return f"a job of the cluster ended without a word ({first}); its logs are in {LOGS}"
        job, state = found.groups()
        how = ended_so(sweep, job, state)
        return f"job {job} of the cluster ended without a word ({how}); its logs are {LOGS}/{job}_*"
    return None


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


def _in_order(runs: list[Run], record: SearchRecord | None) -> list[Run]:
    """Runs, those of trials first, as they were suggested."""
    numbers = _trial_numbers(record)
    return sorted(runs, key=lambda run: numbers.get(run.directory.name, len(numbers)))


def _trial_numbers(record: SearchRecord | None) -> dict[str, int]:
    """The number of a trial by its directory; of those that were suggested again the first."""
    trials = record.trials if record else []
    return {trials[index].run: index for index in reversed(range(len(trials)))}


def _write(
    runs: Sequence[Run], directory: Path, record: SearchRecord | None, is_search: bool
) -> "tuple[Comparison, list[Path]]":
    """Write the table and, if there is anything to draw, figures; returns the comparison and the paths of all."""
    import pandas as pd

    from eprop_cli.figures.comparison import sweep_figure
    from eprop_cli.figures.style import save
    from eprop_cli.reports.page import try_page
    from eprop_cli.runs.ranked import compare

    searched = [runs[0].config["objective"]] if is_search and not math.isnan(_objective(runs[0])) else []
    compared = compare(runs, searched)
    table = compared.table
    for position, (group, values) in enumerate(_choices(runs).items(), start=1):
        if group not in table:
            table.insert(position, group, values)
    if is_search:
        table.insert(list(table.columns).index("status"), "objective", list(map(_objective, runs)))
    best = record.trials[record.best].run if record and record.best is not None else None
    if record is not None:
        numbers = _trial_numbers(record)
        names = [run.directory.name for run in runs]
        table.insert(1, "trial", pd.Series([numbers.get(name) for name in names], dtype="Int64", index=table.index))
        table.insert(1, "best", ["*" if name == best else math.nan for name in names])
    write_csv(table.assign(run=[run.directory.name for run in runs]), directory / TABLE)
    files = [directory / TABLE]
    if table["iterations"].any():
        files.append(directory / FIGURE)
        save(sweep_figure(compared.opened, best=best), files[-1], DPI)
    for name, figure in _search_figures(runs, record).items() if record else ():
        files.append(directory / f"{name}.png")
        save(figure, files[-1], DPI)
    if any(_wants_page(run) for run in runs) and (page := try_page(directory)):
        files.append(page)
    return compared, files


def _wants_page(run: Run) -> bool:
    try:
        return bool(run.config.get("report"))
    except UserError:
        return False


def _search_figures(runs: Sequence[Run], record: SearchRecord) -> "dict[str, Figure]":
    from eprop_cli.figures.search import search_figures
    from eprop_cli.runs.comparison import open_run, units_of
    from eprop_cli.schema import short_names
    from eprop_cli.sweeps.optuna_study import importances

    opened = [each for each in map(open_run, runs) if each.columns]
    columns = {column.name: column for each in opened for column in each.columns}
    if not opened or record.best is None:
        return {}
    column = columns[parse_objective(record.objective, {name: each.better for name, each in columns.items()}).column]
    objective = f"{record.objective}\n({', '.join(filter(None, (column.label, column.unit)))})"
    keys = [key.lstrip("+") for key in record.space]
    names, units = short_names(keys), units_of(opened, keys)
    labels = {
        key: f"{names[plain]} ({units[plain]})" if plain in units else names[plain]
        for key, plain in zip(record.space, keys, strict=True)
    }
    return search_figures(record, importances(record), labels, objective)


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
