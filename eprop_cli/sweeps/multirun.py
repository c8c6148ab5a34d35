"""A multirun before and while its jobs run: what is checked first, what its jobs share, how they are stopped.

Jobs may run in this process, in others or on other machines. What they share is a directory of small files.
"""

import contextlib
import json
import logging
import os
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from eprop_cli.config.config import Config
from eprop_cli.errors import ConfigError, UserError, require
from eprop_cli.runs.files import RUN, SWEEP, is_alive, write_text
from eprop_cli.runs.interrupts import stopping
from eprop_cli.sweeps.cores import at_once, shortage

STATE, STOP, PLAN = ".jobs", "stop", "plan.json"
TIED = ("BasicLauncher", "JoblibLauncher")  # launchers whose jobs end with the process that starts them
SKIPPED, NOT_STARTED = "SKIPPED", "NOT STARTED"  # what can become of a job besides the statuses of a run


@dataclass(frozen=True)
class Plan:
    """What is known before the jobs start.

    swept: keys with several values. options: those of eprop-run that each job needs. n_jobs: None if a search decides.
    pid, host: of the process that starts the jobs. tied: whether they are to end with it, as those of a cluster are
    not. fresh: whether it made the sweep directory.
    """

    swept: list[str]
    options: list[str]
    n_jobs: int | None
    pid: int
    host: str
    tied: bool
    fresh: bool

    @property
    def is_mine(self) -> bool:
        """Whether this process is the one that starts the jobs."""
        return self.pid == os.getpid() and self.host == platform.node()

    @property
    def is_abandoned(self) -> bool:
        """Whether the jobs should have ended, as the process that started them is gone."""
        return self.tied and self.host == platform.node() and not is_alive(self.pid)


@dataclass(frozen=True)
class Outcome:
    """What became of a job; name: its directory within the sweep directory."""

    num: int
    name: str
    status: str = NOT_STARTED
    error: str | None = None


@dataclass(frozen=True)
class Multirun:
    """A multirun by the directory that its jobs share: SWEEP_DIR/.jobs/STAMP, where Hydra begins them too."""

    state: Path

    @property
    def directory(self) -> Path:
        """The sweep directory; earlier multiruns may have been at work there."""
        return self.state.parent.parent

    @property
    def plan(self) -> Plan:
        """What is known before the jobs start."""
        return Plan(**json.loads((self.state / PLAN).read_text()))

    @property
    def stopped(self) -> int | None:
        """The signal by which it was stopped; None if it goes on."""
        try:
            return int((self.state / STOP).read_text())
        except FileNotFoundError:
            return signal.SIGTERM if self.plan.is_abandoned else None

    def stop(self, number: int) -> None:
        """Have running jobs end, and others not begin, wherever they run."""
        write_text(self.state / STOP, str(number))

    def note(self, outcome: Outcome) -> None:
        """Keep what became of a job."""
        write_text(self.state / f"{outcome.num}.json", json.dumps(asdict(outcome)))

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of the jobs that were called, in their order."""
        found = [path for path in self.state.glob("*.json") if path.name != PLAN]
        return sorted((Outcome(**json.loads(path.read_text())) for path in found), key=lambda outcome: outcome.num)

    def remove(self) -> None:
        """Remove what the jobs shared."""
        shutil.rmtree(self.state, ignore_errors=True)
        with contextlib.suppress(OSError):  # another multirun is at work here
            self.state.parent.rmdir()

    def undo(self, fresh: bool) -> None:
        """Leave nothing, as no job has begun; fresh: whether the sweep directory was made for it."""
        self.remove()
        if fresh:
            shutil.rmtree(self.directory, ignore_errors=True)


@dataclass(frozen=True)
class Sweep:
    """What is swept, and how.

    jobs: the overrides of each job; of a search one job, with what all have in common. values: those of the keys that
    have several, none of a range. at_once: how many jobs the launcher is given together.
    """

    jobs: Sequence[Sequence[str]]
    values: dict[str, list[Any]]
    at_once: int
    is_search: bool


def begin(config: DictConfig, stamp: str, check: Callable[[DictConfig], Config]) -> Multirun:
    """Find out all that can be known before the first job, take the sweep directory and heed signals.

    config: as Hydra composes it for a multirun. check: gives the typed config of a composed job, or raises UserError
    if it cannot run. Raises UserError or HydraException for what is wrong with every job, and with the sweep directory;
    what is wrong with some jobs is left to them.
    """
    hydra, resume = config.hydra, config.get("resume")
    require(resume is None, "resume", resume, "is a run; continue it without -m, or give the directory of a multirun")
    given = [str(override) for override in hydra.overrides.hydra]
    subdir = dict(text.split("=", 1) for text in given if "=" in text).get("hydra.sweep.subdir")
    require(subdir is None, "hydra.sweep.subdir", subdir, "cannot be set: jobs are named after their overrides")
    if str(hydra.launcher["_target_"]).endswith("SlurmLauncher"):
        missing = "needs SLURM's srun, which is not on this machine; slurm_local tries the same without"
        require(shutil.which("srun") is not None, "hydra/launcher", "slurm", missing)
    sweep = _read_sweep(config)
    swept = ",".join(map(str, sweep.values.get("resume", [])))
    require(not swept, "resume", swept, "cannot be swept; continue each run by itself, without -m")
    first = _first_possible(config, sweep.jobs, check)
    if short := shortage(first, sweep.values, hydra.launcher, sweep.at_once):
        print(f"eprop-run: warning: {short}", file=sys.stderr)
    if at_once(hydra.launcher, sweep.at_once) > 1:
        _compile(first)

    directory = Path(hydra.sweep.dir).absolute()
    fresh = _claim(directory)
    multirun = Multirun(directory / STATE / stamp)
    tied = str(hydra.launcher["_target_"]).endswith(TIED)
    n_jobs = None if sweep.is_search else len(sweep.jobs)
    plan = Plan(list(sweep.values), config_options(config), n_jobs, os.getpid(), platform.node(), tied, fresh)
    kept = [text for text in given if not text.startswith(("hydra.mode=", "hydra.sweep.dir="))]
    arguments = {"options": plan.options, "overrides": [*kept, *map(str, hydra.overrides.task)]}
    try:
        write_text(multirun.state / PLAN, json.dumps(asdict(plan)))
        write_text(directory / SWEEP, json.dumps(arguments, indent=2) + "\n")
    except OSError:
        multirun.undo(fresh)
        raise
    logging.raiseExceptions = False  # as in run(); here also where the reader of a pipe has had enough
    for number in stopping():
        signal.signal(number, lambda number, _: _stop(multirun, number))
    return multirun


def _read_sweep(config: DictConfig) -> Sweep:
    sweeper = config.hydra.sweeper
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    # A key that is given again takes the place of the first: the command line comes after the sweeper's own.
    parsed = parser.parse_overrides([*params, *map(str, config.hydra.overrides.task)])
    overrides = list({override.get_key_element(): override for override in parsed}.values())
    swept = {each.get_key_element().lstrip("+"): each for each in overrides if each.is_sweep_override()}
    values = {key: list(each.sweep_iterator()) if each.is_discrete_sweep() else [] for key, each in swept.items()}
    for key, each in swept.items():
        if each.is_discrete_sweep() and not values[key]:
            raise UserError(f"{each.input_line}: has no values, so there would be no job")
    if str(sweeper["_target_"]).endswith(f".{BasicSweeper.__name__}"):
        jobs = BasicSweeper.split_arguments(overrides, None)[0]
        return Sweep(jobs, values, len(jobs), is_search=False)
    fixed = [override for override in overrides if not override.is_sweep_override()]
    return Sweep(BasicSweeper.split_arguments(fixed, None)[0], values, int(sweeper.get("n_jobs") or 1), is_search=True)


def _first_possible(config: DictConfig, jobs: Sequence[Sequence[str]], check: Callable[[DictConfig], Config]) -> Config:
    """The config of the first job that can run; if none can, raises what is wrong with the first."""
    problem: UserError | None = None
    for overrides in jobs:
        try:
            return check(GlobalHydra.instance().config_loader().load_sweep_config(config, list(overrides)))
        except UserError as error:
            problem = problem or error
    assert problem is not None  # there is at least one job
    raise problem


def _compile(config: Config) -> None:
    """Have the compiled engine on disk before the jobs start, or each would compile it."""
    from eprop_cli.engines.base import make_engine
    from eprop_cli.training.base import initial_network

    with contextlib.suppress(UserError):  # the job will tell
        wiring, weights = initial_network(config)
        with contextlib.closing(make_engine(config, wiring)) as engine:
            engine.compile(weights)


def _claim(directory: Path) -> bool:
    """Make sure of a directory that is new, empty or of an earlier multirun; return whether it is not the last."""
    key = "hydra.sweep.dir"
    try:
        there = {path.name for path in directory.iterdir()} if directory.exists() else set()
        directory.mkdir(parents=True, exist_ok=True)
        for plan in directory.glob(f"{STATE}/*/{PLAN}"):
            if (earlier := Multirun(plan.parent)).plan.is_abandoned:
                earlier.remove()
    except OSError as error:
        raise ConfigError(key, directory, f"cannot be made or read ({error.strerror}); choose another") from error
    require(RUN not in there, key, directory, "is the directory of a run; choose another")
    require(not there or SWEEP in there, key, directory, "holds files, but no multirun's; choose another")
    return not there


def config_options(config: DictConfig) -> list[str]:
    """Options of eprop-run by which a config that Hydra composed is found again."""
    options = []
    for source in config.hydra.runtime.config_sources:
        if source.provider == "command-line":
            options += ["--config-dir", str(source.path)]
    name = config.hydra.job.config_name
    return options if name == "config" else [*options, "--config-name", str(name)]


def _stop(multirun: Multirun, number: int) -> None:
    """Handle a signal: the first stops the jobs, so that what they have is written; the second also stops waiting."""
    if not multirun.state.exists() or multirun.stopped is not None:
        raise KeyboardInterrupt
    # A job of a process that ignores SIGHUP would ignore it, too.
    multirun.stop(signal.SIGTERM if number == signal.SIGHUP else number)
    told = b"eprop-run: stopping when the running jobs have ended in order; again: at once\n"
    with contextlib.suppress(OSError):  # the terminal may be gone
        os.write(sys.stderr.fileno(), told)
