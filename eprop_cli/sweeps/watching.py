"""Tell how a multirun is getting on, from its files: here while its jobs run, and to whoever watches it elsewhere."""

import shutil
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from eprop_cli.errors import UserError, legible
from eprop_cli.runs.files import COMPLETED, FAILED, INTERRUPTED, RUN, RUNNING
from eprop_cli.runs.reader import Run, find_runs
from eprop_cli.runs.standing import KILLED, Standing, duration, standing
from eprop_cli.schema import short_names
from eprop_cli.sweeps.job_directory import job_runs
from eprop_cli.sweeps.multirun import NOT_STARTED, PLAN, SKIPPED, STATE, Multirun

POLL = 0.5  # s, between two looks on a terminal
EVERY, FRACTION = 10.0, 0.02  # s between two lines elsewhere, or this part of the time that it has taken
LEAST = 0.02  # of all that is to be done; before, there is no telling how long the rest takes
ELIDED = 60  # characters of a job's name
GRACE = 5.0  # s, that the last look is given


@dataclass(frozen=True)
class RunsProgress:
    """Several runs at some moment.

    jobs: those that have begun, by name. n_jobs: how many there will be; None if a search decides. skipped: how many
    were COMPLETED before. elapsed: s since it began, None if that is not known. goes_on: whether jobs run or wait.
    """

    jobs: dict[str, Standing]
    n_jobs: int | None
    skipped: int = 0
    elapsed: float | None = None
    goes_on: bool = False

    @property
    def done(self) -> int:
        """How many have ended COMPLETED, before or now."""
        return self.skipped + sum(each.status == COMPLETED for each in self.jobs.values())

    @property
    def left(self) -> float | None:
        """Seconds until all have ended; None if that is not known."""
        if self.n_jobs is None or self.elapsed is None or not self.goes_on:
            return None
        mine = self.n_jobs - self.skipped
        part = sum(each.part for each in self.jobs.values()) / mine if mine else 0.0
        return self.elapsed * (1.0 - part) / part if part >= LEAST else None

    def count(self, *statuses: str) -> int:
        """How many have one of some statuses."""
        return sum(each.status in statuses for each in self.jobs.values())

    def words(self) -> str:
        """In one line: [7/15] 2 running, ~2 min left | eta=0.005 seed=3: iteration 30/50, loss 0.69."""
        running = {name: each for name, each in self.jobs.items() if each.is_running}
        parts = [f"{len(running)} running"]
        waiting = 0 if self.n_jobs is None else self.n_jobs - self.skipped - len(self.jobs)
        parts += [f"{waiting} {'waiting' if self.goes_on else 'not started'}"] * (waiting > 0)
        failed = self.count(FAILED, KILLED)
        parts += [f"{failed} failed"] * (failed > 0)
        interrupted = self.count(INTERRUPTED)
        parts += [f"{interrupted} interrupted"] * (interrupted > 0)
        parts += [f"{duration(self.left)} left"] if self.left is not None else []
        latest = max(running, key=lambda name: running[name].part, default=None)
        job = f" | {latest}: {running[latest].words(brief=True)}" if latest is not None else ""
        return legible(f"{self.counted()}{', '.join(parts)}{job}")

    def counted(self, but: int = 0) -> str:
        """How many are done, of how many; but: those that are not to be told of yet."""
        return f"[{self.done - but}{'' if self.n_jobs is None else f'/{self.n_jobs}'}] "


def progress(directory: Path) -> RunsProgress:
    """How the multirun in a sweep directory, or the runs in a folder, are getting on."""
    states = sorted((path.parent for path in directory.glob(f"{STATE}/*/{PLAN}")), key=lambda path: path.name)
    try:
        return _of_multirun(Multirun(states[-1])) if states else _of_folder(directory)
    except FileNotFoundError:  # it has ended just now
        return _of_folder(directory)


def _of_multirun(multirun: Multirun) -> RunsProgress:
    plan = multirun.plan
    jobs, skipped = {}, 0
    for outcome in multirun.outcomes:
        skipped += outcome.status == SKIPPED
        if outcome.status in (SKIPPED, NOT_STARTED):
            continue
        path = multirun.directory / outcome.name
        begun = (path / RUN).exists()
        known = standing(path) if begun else Standing(path, outcome.status, error=outcome.error or "")
        if known.status != COMPLETED and outcome.status == RUNNING and outcome.job is not None:
            known = replace(known, status=RUNNING)  # it may begin again, on another node; SLURM says if it does not
        jobs[_name(path, plan.swept)] = known
    waits = plan.n_jobs is None or skipped + len(jobs) < plan.n_jobs
    ends = multirun.stopped is not None
    running = any(each.is_running for each in jobs.values())
    elapsed = time.time() - (multirun.state / PLAN).stat().st_mtime
    return RunsProgress(jobs, plan.n_jobs, skipped, elapsed, goes_on=running or (waits and not ends))


def _of_folder(directory: Path) -> RunsProgress:
    runs = job_runs(directory) or find_runs(directory)
    jobs = {str(run.directory.relative_to(directory)): standing(run.directory) for run in runs}
    return RunsProgress(jobs, len(jobs), goes_on=any(each.is_running for each in jobs.values()))


def _name(path: Path, swept: Iterable[str]) -> str:
    """A job by the values of the keys that are swept; by its directory where those are not known."""
    try:
        command = [str(part) for part in Run(path).record["command"]]
    except (UserError, KeyError):
        command = []
    given = dict(part.lstrip("+").split("=", 1) for part in command if "=" in part)
    keys = [key for key in swept if key in given]
    names = short_names(keys)
    name = " ".join(f"{names[key]}={given[key]}" for key in keys) or path.name
    return name if len(name) <= ELIDED else f"{name[: ELIDED - 9]}…{name[-8:]}"


class Teller:
    """Tells what has changed: a line for each job that ended, and in between a line on how all is getting on."""

    def __init__(self, told: Iterable[Path] = ()) -> None:
        """told: directories of jobs of which it is known how they ended."""
        self._told = set(told)
        self._began = time.monotonic()
        self._due = self._began + EVERY
        self._live = sys.stdout.isatty()

    def tell(self, now: RunsProgress) -> None:
        """Print what is to be said at this moment."""
        self._told -= {each.directory for each in now.jobs.values() if each.is_running}  # a cluster may run it again
        # By their directories: once a multirun has cleared up, names are no longer known.
        ended = [name for name, each in now.jobs.items() if not each.is_running and each.directory not in self._told]
        for told, name in enumerate(ended, start=1):
            self._told.add(now.jobs[name].directory)
            later = sum(now.jobs[other].status == COMPLETED for other in ended[told:])
            self._print(legible(f"{now.counted(but=later)}{name}: {now.jobs[name].words()}"))
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[2K{now.words()[:width]}", end="", flush=True)
        elif time.monotonic() >= self._due and now.goes_on and not ended:
            print(now.words(), flush=True)
            self._due = time.monotonic() + max(EVERY, FRACTION * (time.monotonic() - self._began))

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live:
            print("\r\x1b[2K", end="", flush=True)

    def _print(self, line: str) -> None:
        print(f"\r\x1b[2K{line}" if self._live else line, flush=True)
        self._due = time.monotonic() + EVERY


class Watch(threading.Thread):
    """Tells of a multirun while this process runs it."""

    def __init__(self, multirun: Multirun) -> None:
        super().__init__(name="watch", daemon=True)
        self._multirun, self._over = multirun, threading.Event()

    def run(self) -> None:
        """Look, and tell, until it is over."""
        teller = Teller()
        try:
            while not self._over.wait(POLL):
                teller.tell(_of_multirun(self._multirun))
            teller.tell(_of_multirun(self._multirun))
            teller.close()
        except (OSError, ValueError, UserError):  # the terminal, the reader of a pipe, or the multirun is gone
            return

    def end(self) -> None:
        """Tell the last, and no more."""
        self._over.set()
        if self.is_alive():
            self.join(GRACE)


_watches: list[Watch] = []  # of this process; one at most


def begin(multirun: Multirun) -> None:
    """Tell of a multirun that this process begins, until end()."""
    _watches.append(Watch(multirun))
    _watches[-1].start()


def end() -> None:
    """Tell no more."""
    while _watches:
        _watches.pop().end()


def follow(directory: Path, once: bool) -> int:
    """Tell how a run, or the runs of a sweep or folder, are getting on, until all have ended.

    once: only how they are at this moment. Returns the exit status: 1 if not all came to their end, else 0.
    Raises UserError if there is no run.
    """
    now = _look(directory)
    print(legible(f"{directory}: {now.words()}" if now.n_jobs != 1 else str(directory)))
    for name, each in now.jobs.items():
        if each.is_running or now.n_jobs == 1:
            print(legible(f"  {name}: {each.words()}"))
        if each.is_running:
            print(legible(f"    {each.job}; log: {each.log}"))
    _tell_bad(now)
    if once:
        return 0
    teller = Teller(told=[each.directory for each in now.jobs.values() if not each.is_running])
    try:
        while now.goes_on:
            time.sleep(POLL)
            now = _look(directory)
            teller.tell(now)
    finally:
        teller.close()
    print(legible(f"ended: {now.done} of {now.n_jobs} {COMPLETED}"))
    return int(now.n_jobs is None or now.done < now.n_jobs)


def _look(directory: Path) -> RunsProgress:
    if (directory / RUN).is_file():
        known = standing(directory)
        return RunsProgress({directory.name or str(directory): known}, 1, goes_on=known.is_running)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory")
    found = progress(directory)
    if not found.jobs and not found.goes_on:
        raise UserError(f"{directory}: no run directory in there (none holds a {RUN})")
    return found


def _tell_bad(now: RunsProgress) -> None:
    """The runs that did not come to their end, and where they say why."""
    for name, each in now.jobs.items():
        if each.status in (FAILED, INTERRUPTED, KILLED) and now.n_jobs != 1:
            print(legible(f"  {name}: {each.words()}"))
            print(legible(f"    log: {each.log}"))
