"""Run one experiment: train, write the run directory as it goes, draw the figures, say how it ended."""

import importlib.metadata
import logging
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean
from typing import Any

from eprop_cli import __version__
from eprop_cli.checkpoint import load_checkpoint, read_record, save_checkpoint
from eprop_cli.config import Config, to_dict
from eprop_cli.derived import Timing
from eprop_cli.errors import UserError, reason
from eprop_cli.progress import reporter
from eprop_cli.results import COMPLETED, FAILED, INTERRUPTED, SWEEP
from eprop_cli.training import make_trainer
from eprop_cli.training.base import TRAINING, Checkpoint, Record, Row, Trainer
from eprop_cli.writer import RunWriter

log = logging.getLogger(__name__)
log_to_file = logging.getLogger("eprop_cli.file")  # conf/hydra/job_logging keeps it off the terminal

PACKAGES = ("nest-simulator", "hydra-core", "omegaconf", "numpy", "pandas", "pyarrow", "matplotlib", "joblib", "numba")


def stopping() -> tuple[signal.Signals, ...]:
    """Signals to end in order at; SIGHUP, by which a terminal goes, only where it is not ignored, as after nohup."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *(() if ignored else (signal.SIGHUP,)))


class Interruption(BaseException):
    """One of the stopping() signals came."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    exit_status: 0 completed, 1 failed, 128 + signal interrupted.
    """

    status: str
    exit_status: int
    error: str | None = None


def run(config: Config, directory: Path) -> Ending:
    """Train as config says and leave everything in directory; whatever happens is told by the ending, not raised."""
    logging.raiseExceptions = False  # a full disk must not have the log add tracebacks to the terminal
    checkpoint, rows, record, clock = None, None, origin(to_dict(config)), _Clock()
    if config.resume:
        checkpoint, earlier = load_checkpoint(directory), read_record(directory)
        if earlier["status"] == COMPLETED and (why := _why_done(checkpoint, config.task.n_iter)):
            log.info("Nothing to do: %s is COMPLETED; %s", directory, why)
            return Ending(COMPLETED, 0)
        rows = int(checkpoint["rows"])
        record |= {"start": earlier["start"], "resumed": [*earlier.get("resumed", []), record["start"]]}
        record["seconds"] = clock.earlier = earlier.get("seconds") or {}
    with _interruptible() as interrupts:
        try:
            writer = RunWriter(directory, record, rows)
        except (OSError, UserError) as error:
            log.error("%s: nothing trained (%s)", FAILED, reason(error))
            return Ending(FAILED, 1, reason(error))
        ending = _work(config, writer, clock, checkpoint, interrupts)
        seconds = clock.split()
        try:
            writer.finish(ending.status, stop=_now(), error=ending.error, seconds=seconds)
        except OSError as error:
            ending = Ending(FAILED, 1, reason(error))
        _tell(ending, directory, writer.last_rows, _duration(seconds, clock.earlier))
    return ending


def _why_done(checkpoint: Checkpoint, n_iter: int) -> str:
    """Why there is no more to train; empty if there is."""
    if checkpoint["stopped"]:
        return f"it stopped early, in iteration {checkpoint['iteration']}"
    return "to train longer, raise task.n_iter" if checkpoint["iteration"] == n_iter else ""


class _Clock:
    """Where the time goes, in seconds; earlier: where it went before the run was resumed, unless it was killed then."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.build = self.simulate = 0.0
        self.earlier: dict[str, float] = {}

    def split(self) -> dict[str, float]:
        """Seconds spent building the network, simulating, and on all else."""
        other = time.perf_counter() - self.began - self.build - self.simulate
        seconds = {"build": self.build, "simulate": self.simulate, "other": other}
        return {key: round(self.earlier.get(key, 0.0) + value, 3) for key, value in seconds.items()}


def _duration(seconds: dict[str, float], earlier: dict[str, float]) -> str:
    """Seconds in all, and how many of them since the run was resumed."""
    total = sum(seconds.values())
    resumed = f" ({total - sum(earlier.values()):.1f} s since it was resumed)" if earlier else ""
    return f"{total:.1f} s{resumed}"


class _Interrupts:
    """Raises the first of stopping() as an Interruption, if held back then on release; later ones are ignored."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._held = True

    def receive(self, number: int, _frame: Any) -> None:
        """Handle a signal."""
        if self._number is None:  # SLURM, for one, sends several; the end that follows is to be whole
            self._number = number
            if not self._held:
                raise Interruption(number)

    def hold(self) -> None:
        """Do not raise for the time being: files are written."""
        self._held = True

    def release(self) -> None:
        """Raise from here on, and at once if a signal came meanwhile."""
        self._held = False
        if self._number is not None:
            raise Interruption(self._number)


@contextmanager
def _interruptible() -> Iterator[_Interrupts]:
    """Heed the stopping() signals, which are held back at first."""
    interrupts = _Interrupts()
    before = {number: signal.signal(number, interrupts.receive) for number in stopping()}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(
    config: Config, writer: RunWriter, clock: _Clock, checkpoint: Checkpoint | None, interrupts: _Interrupts
) -> Ending:
    """Train and draw; interrupts are held back afterwards."""
    try:
        interrupts.release()
        _train(config, writer, clock, checkpoint, interrupts)
        _draw(config, writer.directory)
        interrupts.hold()
    except Interruption as interruption:
        return _interrupted(interruption)
    except BaseException as error:  # a task of the user's may raise SystemExit
        interrupts.hold()
        if (cause := _interruption(error)) is not None:
            return _interrupted(cause)
        log_to_file.exception("the run failed")
        return Ending(FAILED, 1, reason(error))
    return Ending(COMPLETED, 0)


def _interrupted(interruption: Interruption) -> Ending:
    return Ending(INTERRUPTED, 128 + interruption.number, f"interrupted by {interruption}")


def _interruption(error: BaseException | None) -> Interruption | None:
    """The interruption that an error took the place of: libraries may fail when left in mid-work."""
    while error is not None and not isinstance(error, Interruption):
        error = error.__context__
    return error


def _train(
    config: Config, writer: RunWriter, clock: _Clock, checkpoint: Checkpoint | None, interrupts: _Interrupts
) -> None:
    done = 0 if checkpoint is None else int(checkpoint["iteration"])
    if checkpoint is not None:
        log.info("Resuming after iteration %d", done)
        timing = Timing.of(config.task, config.kernel)
        writer.earlier_weight_changes(timing.ms(done * timing.iteration))
    with reporter(config, done) as report:
        trainer = make_trainer(config, checkpoint)
        clock.build = time.perf_counter() - clock.began
        keeper = _Keeper(config, writer, trainer)
        try:
            for record in trainer.records():
                interrupts.hold()
                clock.simulate = trainer.simulating
                keeper.take(record)
                report(record.row)
                interrupts.release()
        finally:
            interrupts.hold()
            trainer.close()
            keeper.finish()
        interrupts.release()


class _Keeper:
    """Puts records and checkpoints where they belong."""

    def __init__(self, config: Config, writer: RunWriter, trainer: Trainer) -> None:
        self._writer, self._trainer = writer, trainer
        self._resolution = config.kernel.resolution
        self._every = getattr(config.training, "checkpoint_every", 1)
        self._checkpoint = trainer.commit()
        self._save()

    def take(self, record: Record) -> None:
        row = record.row
        self._writer.row(row)
        if record.weight_changes is not None:
            self._writer.weight_changes(record.weight_changes)
        if record.recording is not None:
            self._writer.recording(row.iteration, record.recording, record.batch, self._resolution)
        if row.phase == TRAINING:
            self._checkpoint = self._trainer.commit()
            if row.iteration % self._every == 0:
                self._save()

    def finish(self) -> None:
        """Write what a run leaves however it ends."""
        self._save()
        self._writer.weights(self._trainer.initial, self._trainer.weights())
        self._writer.save_weight_changes()

    def _save(self) -> None:
        if self._checkpoint is not None:
            self._writer.settle()
            save_checkpoint(self._writer.directory, self._checkpoint)


def _draw(config: Config, directory: Path) -> None:
    if config.plots.figures:
        from eprop_cli.plots import draw_run  # matplotlib takes a while to import
        from eprop_cli.results import Run

        draw_run(Run(directory), config.plots.figures, config.plots.formats, config.plots.dpi, directory / "figures")


def _tell(ending: Ending, directory: Path, last_rows: Sequence[Row], duration: str) -> None:
    """The last lines on the terminal: result, files, what next."""
    shown = Path(directory)
    cwd = Path.cwd()
    if shown.is_relative_to(cwd):
        shown = shown.relative_to(cwd)
    result = "nothing trained"
    if last_rows:
        loss, error = (fmean(getattr(row, name) for row in last_rows) for name in ("loss", "recall_error"))
        iterations, phase = last_rows[-1].iteration, last_rows[-1].phase
        result = f"{iterations} iterations in {duration}, {phase} loss {loss:.4f}"
        if error == error:
            result += f", recall error {error:.3f}"
        if len(last_rows) > 1:
            result += f" (means of {len(last_rows)} batches)"
    log.info("%s: %s%s", ending.status, result, f" ({ending.error})" if ending.error else "")
    log.info("Files: %s", shown)
    compare = f"; eprop-compare {shlex.quote(str(shown.parent))}" if _has_siblings(directory) else ""
    log.info("Look further: eprop-plot %s%s", shlex.quote(str(shown)), compare)


def _has_siblings(directory: Path) -> bool:
    """Whether runs are gathered where this one is: in outputs/<date>, as conf/ has it, or in a sweep directory."""
    place = directory.resolve().parent
    by_date = place.parent.name == "outputs" and re.fullmatch(r"\d{4}-\d\d-\d\d", place.name)
    return bool(by_date) or (place / SWEEP).exists()


def origin(config: dict[str, Any]) -> dict[str, Any]:
    """What run.json says of a run that begins here and now; config: as to_dict() gives it."""
    return {
        "status": None,
        "start": _now(),
        "stop": None,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "seed": config.get("seed"),
        "pid": os.getpid(),
        "host": platform.node(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "git_commit": _git_commit(),
        "versions": _versions(),
        "seconds": None,
        "last_row": None,
        "error": None,
        "config": config,
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "eprop-cli": __version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _git_commit() -> str | None:
    """Commit of the checkout that eprop-cli runs from; None for an installed package."""
    checkout = Path(__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
