"""What the jobs of a multirun share while they run: a plan, what became of each, the signal to stop.

Jobs may run in this process, in others or on other machines. What they share is a directory of small files.
"""

import contextlib
import json
import os
import platform
import shutil
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig

from eprop_cli.runs.files import is_alive, write_text

STATE, STOP, PLAN = ".jobs", "stop", "plan.json"
SKIPPED, NOT_STARTED = "SKIPPED", "NOT STARTED"  # what can become of a job besides the statuses of a run


@dataclass(frozen=True)
class MultirunPlan:
    """What is known before the jobs start.

    swept: keys with several values. options: those of eprop-run that each job needs. n_jobs: None if a search decides.
    pid, host: of the process that starts the jobs. tied: whether they are to end with it, as those of a cluster are
    not. fresh: whether it made the sweep directory. launcher: class of the launcher that was chosen. beginning: where
    relative paths begin; None: wherever a job is. modules_in: where modules of the user's are found, too.
    objective: of a search.
    """

    swept: list[str]
    options: list[str]
    n_jobs: int | None
    pid: int
    host: str
    tied: bool
    fresh: bool
    launcher: str
    beginning: str | None
    modules_in: str | None = None
    objective: str | None = None

    @property
    def is_mine(self) -> bool:
        """Whether this process is the one that starts the jobs."""
        return self.pid == os.getpid() and self.host == platform.node()

    @property
    def is_abandoned(self) -> bool:
        """Whether the jobs should have ended, as the process that started them is gone."""
        return self.tied and self.host == platform.node() and not is_alive(self.pid)


@dataclass(frozen=True)
class JobOutcome:
    """What became of a job; name: its directory within the sweep directory. job: its number on a cluster."""

    num: int
    name: str
    status: str = NOT_STARTED
    error: str | None = None
    job: str | None = None


@dataclass(frozen=True)
class Multirun:
    """A multirun by the directory that its jobs share: SWEEP_DIR/.jobs/STAMP, where Hydra begins them too."""

    state: Path

    @classmethod
    def of(cls, config: DictConfig) -> "Multirun":
        """The one that a config is of, as Hydra composes it."""
        return cls(Path(config.hydra.sweep.dir).absolute() / STATE / str(config.hydra.callbacks.sweep.stamp))

    @property
    def directory(self) -> Path:
        """The sweep directory; earlier multiruns may have been at work there."""
        return self.state.parent.parent

    @property
    def plan(self) -> MultirunPlan:
        """What is known before the jobs start."""
        return MultirunPlan(**json.loads((self.state / PLAN).read_text()))

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

    def note(self, outcome: JobOutcome) -> None:
        """Keep what became of a job."""
        write_text(self.state / f"{outcome.num}.json", json.dumps(asdict(outcome)))

    @property
    def outcomes(self) -> list[JobOutcome]:
        """What became of the jobs that were called, in their order."""
        found = [path for path in self.state.glob("*.json") if path.name != PLAN]
        return sorted((JobOutcome(**json.loads(path.read_text())) for path in found), key=lambda outcome: outcome.num)

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
