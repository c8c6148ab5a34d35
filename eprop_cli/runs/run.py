"""Run one experiment: train, write the run directory as it goes, draw the figures, say how it ended."""

import contextlib
import json
import logging
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from eprop_cli.config.config import Config
from eprop_cli.config.files import conf_dir, read_keys
from eprop_cli.errors import TrainingError, UserError, reason
from eprop_cli.loggers.base import Loggers
from eprop_cli.models.draws import drawn_values
from eprop_cli.phases import TRAINING
from eprop_cli.registry import variant
from eprop_cli.reports.page import try_page
from eprop_cli.runs.checkpoint import (
    CHECKPOINT,
    drop_large_checkpoint,
    load_checkpoint,
    read_record,
    save_checkpoint,
)
from eprop_cli.runs.code import checksums, keep_sources, own_sources
from eprop_cli.runs.files import COMPLETED, FAILED, INSTALLED, INTERRUPTED, LOG, PRUNED, RUN, write_text
from eprop_cli.runs.interrupts import Interruption, Interrupts, interruptible, interruption_behind
from eprop_cli.runs.progress import describe_metrics, reporter
from eprop_cli.runs.reader import Run
from eprop_cli.runs.record import changed, changed_versions, now, origin
from eprop_cli.runs.writer import RunWriter
from eprop_cli.schema import flatten, to_dict
from eprop_cli.training.base import Record, Trainer, draw_parameters, make_trainer
from eprop_cli.training.diagnoses import Diagnoses, Notice, before, recorded
from eprop_cli.values import Checkpoint, Row
from eprop_cli.versions import installed_packages

log = logging.getLogger(__name__)
MANY_CLASSES = 3  # from which on it is worth knowing which one was taken for which
log_to_file = logging.getLogger("eprop_cli.file")  # conf/hydra/job_logging keeps it off the terminal


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    exit_status: 0 completed or pruned, 1 failed, 128 + signal interrupted. cause: what was raised, if anything.
    """

    status: str
    exit_status: int
    error: str | None = None
    cause: BaseException | None = field(default=None, compare=False, repr=False)


def run(
    config: Config,
    directory: Path,
    *,
    command: Sequence[str] | None = None,
    report: Callable[[Row], None] | None = None,
    is_hopeless: Callable[[Row], bool] | None = None,
    like: Path | None = None,
) -> Ending:
    """Train as config says and leave everything in directory; whatever happens is told by the ending, not raised.

    command: what run.json calls the command; this process's by default. report: takes each row once it is written, in
    place of what shows the progress. is_hopeless: takes each row after that, also those of before a run was resumed;
    the run ends PRUNED at the first for which it is true.
    like: the run that this one is to be like; what else differs is told.
    """
    sources = own_sources(config)
    checkpoint, rows, record, clock = None, None, origin(config, command, checksums(sources)), _Clock()
    changes: list[str] = []
    notices: list[Notice] = []
    if like is not None:
        record["like"] = str(like)
        if others := changed(Run(like).record, record):
            log.warning("Besides its config, this is other than in %s: %s", like, ", ".join(others))
    if config.resume:
        checkpoint, earlier = load_checkpoint(directory, config), read_record(directory)
        if earlier["status"] == COMPLETED and (why := _why_done(checkpoint, config.task.n_iter)):
            log.info("Nothing to do: %s is COMPLETED; %s", directory, why)
            return Ending(COMPLETED, 0)
        rows = int(checkpoint["rows"])
        changes = changed_versions(earlier, record)
        record |= {"start": earlier["start"], "sessions": [*earlier.get("sessions", []), *record["sessions"]]}
        record |= {"like": earlier["like"]} if earlier.get("like") else {}
        record["seconds"] = clock.earlier = earlier.get("seconds") or {}
        notices = before(earlier.get("warnings") or [], int(checkpoint["iteration"]))
        record["warnings"] = recorded(notices)
    with interruptible() as interrupts:
        try:
            writer = RunWriter(directory, record, rows)
            keep_sources(directory, sources)
            write_text(directory / INSTALLED, "\n".join(installed_packages()) + "\n")
        except (OSError, UserError) as error:
            log.error("%s: nothing trained (%s)", FAILED, reason(error))
            return Ending(FAILED, 1, reason(error), error)
        _log_origin(record)
        if changes:
            log.warning("The run goes on with other versions than it had: %s", ", ".join(changes))
        loggers, diagnoses = Loggers(config.logger), Diagnoses(config, notices, writer.earlier)
        ending = _work(config, writer, clock, checkpoint, interrupts, report, diagnoses, loggers, is_hopeless)
        loggers.end(ending.status)
        seconds = clock.split()
        try:
            writer.finish(ending.status, stop=now(), error=ending.error, seconds=seconds)
        except OSError as error:
            ending = Ending(FAILED, 1, reason(error), error)
        if ending.status == COMPLETED and not config.training.keep_checkpoint:
            drop_large_checkpoint(directory)
        if config.report:
            try_page(directory)
        _tell(ending, config, directory, writer.last_rows, _duration(seconds, clock.earlier), diagnoses.notices)
    return ending


def _log_origin(record: Mapping[str, Any]) -> None:
    """Have the log say what runs, with what and how: it may be all that is sent along with a question."""
    log_to_file.info("command: %s", shlex.join(map(str, record["command"])))
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    log_to_file.info("versions: %s", f"{versions}, commit {record['git_commit']}" if record["git_commit"] else versions)
    keys = flatten(record["config"])
    log_to_file.info("config:\n%s", "\n".join(f"  {key}={json.dumps(value)}" for key, value in keys.items()))


def _why_done(checkpoint: Checkpoint, n_iter: int) -> str:
    """Why there is no more to train; empty if there is."""
    if checkpoint["stopped"]:
        return f"it stopped early, in iteration {checkpoint['iteration']}"
    had = json.loads(str(checkpoint["config"]))["task"]["n_iter"]
    return "to train longer, raise task.n_iter" if had == n_iter else ""


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


def _work(
    config: Config,
    writer: RunWriter,
    clock: _Clock,
    checkpoint: Checkpoint | None,
    interrupts: Interrupts,
    report: Callable[[Row], None] | None,
    diagnoses: Diagnoses,
    loggers: Loggers,
    is_hopeless: Callable[[Row], bool] | None,
) -> Ending:
    """Train and draw; interrupts are held back afterwards."""
    try:
        interrupts.release()
        with np.errstate(all="ignore"):  # what comes of it is diagnosed
            _train(config, writer, clock, checkpoint, interrupts, report, diagnoses, loggers, is_hopeless)
        _draw(config, writer.directory)
        interrupts.hold()
    except Interruption as interruption:
        return _interrupted(interruption)
    except _Hopeless:
        interrupts.hold()
        return Ending(PRUNED, 0)
    except BaseException as error:  # a task of the user's may raise SystemExit
        interrupts.hold()
        if (cause := interruption_behind(error)) is not None:
            return _interrupted(cause)
        log_to_file.exception("the run failed")
        return Ending(FAILED, 1, reason(error), error)
    return Ending(COMPLETED, 0)


class _Hopeless(Exception):  # noqa: N818 - nothing went wrong
    """A search has seen enough of the run."""


def _interrupted(interruption: Interruption) -> Ending:
    return Ending(INTERRUPTED, 128 + interruption.number, f"interrupted by {interruption}", interruption)


def _train(
    config: Config,
    writer: RunWriter,
    clock: _Clock,
    checkpoint: Checkpoint | None,
    interrupts: Interrupts,
    report: Callable[[Row], None] | None,
    diagnoses: Diagnoses,
    loggers: Loggers,
    is_hopeless: Callable[[Row], bool] | None,
) -> None:
    done = 0 if checkpoint is None else int(checkpoint["iteration"])
    if checkpoint is not None:
        log.info("Resuming after iteration %d", done)
        timing = config.timing
        now = int(checkpoint.get("now", done * config.task.n_batch * timing.sequence))
        writer.earlier_weight_changes(timing.ms(now))
        if is_hopeless is not None:
            for row in writer.rows():
                is_hopeless(row)
    config = _with_drawn_parameters(config, writer)
    if not config.task.batches_differ:
        log.info("Every batch of task=%s is the same, so %s", config.task.name, _what_of_a_test(config))
    if warning := _of_resolution(config):
        log.warning(warning)
    with reporter(config, done) if report is None else contextlib.nullcontext(report) as reported:
        trainer = make_trainer(config, checkpoint)
        loggers.begin(writer.directory, flatten(to_dict(config)), done)
        clock.build = time.perf_counter() - clock.began
        trainer.hold = interrupts.hold
        keeper = _Keeper(config, writer, trainer, diagnoses)
        interrupts.patient = True
        try:
            for record in trainer.records():
                interrupts.hold()
                clock.simulate = trainer.simulating
                keeper.take(record)
                reported(record.row)
                loggers.row(record.row)
                hopeless = is_hopeless is not None and is_hopeless(record.row)
                interrupts.release()
                if hopeless:
                    raise _Hopeless
            interrupts.hold()
            keeper.conclude()
        finally:
            interrupts.hold()
            interrupts.patient = False
            trainer.close()
            keeper.finish()
        interrupts.release()


def _of_resolution(config: Config) -> str:
    """A line if a finer resolution has made sequences shorter, as steps are counted; empty if not."""
    resolution, steps = config.kernel.resolution, getattr(config.task, "steps", None)
    path = conf_dir() / "task" / f"{config.task.name}.yaml"
    if resolution == 1.0 or steps is None or not path.is_file():
        return ""
    own = {key.removeprefix("steps."): each.value for key, each in read_keys(path).items() if key.startswith("steps.")}
    if any(value.isdecimal() and getattr(steps, key) != int(value) for key, value in own.items()):
        return ""  # they were set
    names = ", ".join(f"task.steps.{key}" for key, value in own.items() if value.isdecimal())
    length = config.timing.ms(config.timing.sequence)
    return (
        f"kernel.resolution={resolution:g}: a sequence lasts {length:g} ms, as its parts are counted in time steps; "
        f"to keep the task, set {names} to {1 / resolution:g} times as many"
    )


def _what_of_a_test(config: Config) -> str:
    if config.training.n_iter_test:
        return "the test is on the sequence that was trained"
    return "there is nothing to validate or test on"


def _with_drawn_parameters(config: Config, writer: RunWriter) -> Config:
    """The config with parameters drawn for each neuron, which are kept: a run that goes on takes the same."""
    drawn = draw_parameters(config, Run(writer.directory).parameters)
    values = drawn_values(drawn.neuron)
    if values:
        writer.parameters(values)
    return drawn


class _Keeper:
    """Puts records and checkpoints where they belong."""

    def __init__(self, config: Config, writer: RunWriter, trainer: Trainer, diagnoses: Diagnoses) -> None:
        self._writer, self._trainer, self._diagnoses = writer, trainer, diagnoses
        self._resolution = config.kernel.resolution
        self._every, self._minutes = config.training.checkpoint_every, config.training.checkpoint_minutes
        self._saved = time.monotonic()
        self._checkpoint = trainer.commit()
        self._save()

    def take(self, record: Record) -> None:
        row = record.row
        self._writer.row(row)
        if record.weight_changes is not None:
            self._writer.weight_changes(record.weight_changes)
        if record.recording is not None:
            self._writer.recording(row.iteration, record.recording, record.batch, self._resolution)
        if record.confusion is not None and len(record.confusion) >= MANY_CLASSES:
            self._writer.confusion(row.iteration, row.phase, record.confusion)
        if row.phase == TRAINING:
            self._warn(self._diagnoses.look(record, self._trainer))  # before weights that are NaN get into a checkpoint
            self._checkpoint = self._trainer.commit()
            if self._is_time(row.iteration):
                self._save()

    def conclude(self) -> None:
        """Say what is to be said of a run whose training is over."""
        self._warn(self._diagnoses.conclude(self._trainer))

    def _warn(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            log.warning("%s", notice)
        if notices:
            self._writer.update(warnings=recorded(self._diagnoses.notices))

    def _is_time(self, iteration: int) -> bool:
        """Whether a checkpoint is due."""
        if self._minutes is None:
            return bool(iteration % self._every == 0)
        return bool(time.monotonic() - self._saved >= 60.0 * self._minutes)

    def finish(self) -> None:
        """Write what a run leaves however it ends; where the state is lost, the last checkpoint stays."""
        with contextlib.suppress(TrainingError):
            self._save()
        self._writer.weights(self._trainer.initial, self._trainer.weights(), self._trainer.wiring)
        self._writer.save_weight_changes()

    def _save(self) -> None:
        if self._checkpoint is not None:
            self._writer.settle()
            save_checkpoint(self._writer.directory, self._checkpoint)
            self._saved = time.monotonic()


def _draw(config: Config, directory: Path) -> None:
    plots = config.plots
    for name in plots.figures:
        variant("figure", name).write(Run(directory), plots.formats, plots.dpi, directory / "figures", plots)


def _tell(
    ending: Ending,
    config: Config,
    directory: Path,
    last_rows: Sequence[Row],
    duration: str,
    notices: Sequence[Notice],
) -> None:
    """The last lines on the terminal: result, files, what next."""
    shown = _from_here(directory)
    result = "nothing trained"
    if last_rows:
        iterations, phase = last_rows[-1].iteration, last_rows[-1].phase
        means = {name: fmean(row.metrics[name] for row in last_rows) for name in last_rows[-1].metrics}
        result = f"{iterations} iterations in {duration}, {phase} {describe_metrics(means, config.columns)}"
        if len(last_rows) > 1:
            result += f" (means of {len(last_rows)} batches)"
    log.info("%s: %s%s", ending.status, result, f" ({ending.error})" if ending.error else "")
    for notice in notices:
        log.info("Warning: %s", notice)
    log.info("Files: %s", shown)
    if ending.status in (INTERRUPTED, PRUNED):
        log.info(_how_to_go_on(config, directory))
    if ending.status == FAILED and (directory / LOG).exists():
        log.info("Log: %s", shown / LOG)
    compare = f"; eprop-compare {shlex.quote(str(shown.parent))}" if _has_siblings(directory) else ""
    log.info("Next: eprop-plot %s%s", shlex.quote(str(shown)), compare)


def _how_to_go_on(config: Config, directory: Path) -> str:
    """The command that continues a run, or why there is none."""
    if why_not := variant("training", config.training.name).not_resumable(config.engine.name):
        return f"It cannot be continued: {why_not}"
    if not (directory / CHECKPOINT).exists():
        return "Nothing was trained that could be continued"
    return f"Continue: eprop-run {shlex.quote(f'resume={_from_here(directory)}')}"


def _from_here(directory: Path) -> Path:
    """A directory as short as it can be given here."""
    cwd = Path.cwd()
    return directory.relative_to(cwd) if directory.is_relative_to(cwd) else directory


def _has_siblings(directory: Path) -> bool:
    """Whether runs are gathered where this one is: in outputs/<date>, as conf/ has it, or beside others."""
    place = directory.resolve().parent
    by_date = place.parent.name == "outputs" and re.fullmatch(r"\d{4}-\d\d-\d\d", place.name)
    return bool(by_date) or len(list(islice(place.glob(f"*/{RUN}"), 2))) > 1
