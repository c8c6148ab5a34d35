"""Run one job of a multirun: find out what is left to do in its directory, do it, and tell what became of it.

Hydra begins each job in a directory of the multirun's own, never in the run directory: so what an earlier job left is
looked at before anything is written.
"""

import contextlib
import copy
import hashlib
import itertools
import json
import logging
import math
import os
import platform
import re
import shutil
import signal
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eprop_cli.config.config import Config
from eprop_cli.config.load import load
from eprop_cli.errors import ConfigError, UserError
from eprop_cli.objectives import parse_objective
from eprop_cli.runs.checkpoint import CHECKPOINT, HOW_KEYS, check_resume
from eprop_cli.runs.directory import RESERVE
from eprop_cli.runs.files import (
    COMPLETED,
    FAILED,
    INTERRUPTED,
    LOG,
    METRICS,
    RUN,
    RUNNING,
    WEIGHTS,
    natural,
    write_text,
)
from eprop_cli.runs.format import migrated
from eprop_cli.runs.reader import Run
from eprop_cli.runs.record import describe, start
from eprop_cli.schema import flatten, to_dict
from eprop_cli.sweeps.multirun import SKIPPED, Multirun, Outcome, Plan
from eprop_cli.sweeps.process import Errand, run_apart

log = logging.getLogger(__name__)
log_to_file = logging.getLogger("eprop_cli.file")
POLL = 1.0  # s, between two looks at whether the process that started the jobs is gone
MAX_NAME = 120  # characters of a job directory, without what is added to tell it from others
OLD, REFUSED = ".old-", ".refused"  # what follows the name of a directory beside that of a job
UNTRAINED = {".hydra", LOG, RESERVE, RUN, METRICS, WEIGHTS, CHECKPOINT}  # what is there without training


def job(composed: DictConfig) -> float | None:
    """Run a job and return its objective; None if it has none, for whatever reason: the others go on.

    Raises KeyboardInterrupt in the process that starts the jobs if no others are to go on.
    """
    logging.raiseExceptions = False  # as in begin(), which this process may not have seen
    hydra = HydraConfig.get()
    scratch = Path(hydra.runtime.output_dir)
    multirun = Multirun(scratch.parent)
    plan = multirun.plan
    overrides = [str(override) for override in hydra.overrides.task]
    outcome = Outcome(int(hydra.job.num), job_name(overrides, plan.swept))
    if not plan.is_mine:
        for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all; the stop file is enough here
            signal.signal(number, signal.SIG_IGN)
        if plan.tied:
            _end_with_starter(plan)
    objective = None
    if multirun.stopped is None:
        multirun.note(replace(outcome, status=RUNNING))
        place = Place(multirun.directory / outcome.name, scratch, ["eprop-run", *plan.options, *overrides])
        try:
            status, error, objective = _attempt(place, composed, multirun, quiet=not plan.is_mine)
        except Exception as problem:  # whatever it is, it is this job's own
            log_to_file.exception("the job failed")
            status, error = FAILED, f"{type(problem).__name__}: {problem}"
            with contextlib.suppress(UserError, OSError):  # there may be no run directory yet
                status, error = place.conclude(error)
        outcome = replace(outcome, status=status, error=error)
        if status == SKIPPED or not plan.is_mine:
            log.info("#%d %s: %s%s", outcome.num, outcome.name, status, f" ({error})" if error else "")
    multirun.note(outcome)
    shutil.rmtree(scratch, ignore_errors=True)
    if plan.is_mine and multirun.stopped is not None:
        raise KeyboardInterrupt
    return objective


def job_runs(sweep: Path) -> list[Run]:
    """The runs of a sweep directory, one for each job, those that were moved aside left out; in their natural order."""
    found = [path.parent for path in sweep.glob(f"*/{RUN}")]
    shown = [path for path in found if not re.search(rf"{re.escape(OLD)}\d+$", path.name)]
    return [Run(path) for path in sorted(shown, key=natural)]


def job_name(overrides: Sequence[str], swept: Collection[str]) -> str:
    """Name of a job's directory: its overrides in the order of their keys, "=" as "-", "__" in between.

    Keys that change nothing in what a run computes are left out, unless they are swept. Characters that Hydra or a
    shell would take for something else become "-" and long names are cut; a digest then keeps them apart.
    """
    shown = sorted(text for text in overrides if _key(text) in swept or not _is_how(_key(text)))
    plain = "__".join(text.replace("=", "-", 1) for text in shown) or "defaults"
    name = re.sub(r"[^\w.+-]", "-", plain, flags=re.ASCII)[:MAX_NAME]
    return name if name == plain else f"{name}-{hashlib.sha256(repr(shown).encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Place:
    """Where a job runs.

    directory: its run directory. scratch: where Hydra began it; becomes the run directory of a run that begins anew.
    command: what to type to run the job alone.
    """

    directory: Path
    scratch: Path
    command: list[str]

    def take(self, config: Config) -> Config | None:
        """Make the run directory ready and return the config to run there; None if it holds this run, COMPLETED.

        A run with a checkpoint goes on. What else an earlier run left is moved aside, or removed if it trained nothing.
        Raises UserError if the directory holds something else, and leaves that alone.
        """
        shutil.rmtree(self._refused, ignore_errors=True)
        if record := self._record():
            self._check_ended(record)
            if self._is_untrained(record):
                shutil.rmtree(self.directory)
            else:
                self._check_same(to_dict(config), record)
                if record["status"] == COMPLETED:
                    return None
                try:
                    check_resume(config, self.directory)
                except UserError as error:
                    self._move_aside(str(error))
                else:
                    self._note(record | {"status": RUNNING, "pid": os.getpid(), "host": platform.node()})
                    return replace(config, resume=str(self.directory))
        self._enter(self.directory, describe(config), status=RUNNING)
        return config

    def refuse(self, composed: DictConfig, error: str) -> None:
        """Leave a record of why the job was not run: in its run directory, or beside it where that holds something."""
        directory = self.directory
        try:
            if record := self._record():
                self._check_ended(record)
                if self._is_untrained(record):
                    shutil.rmtree(directory)
                else:
                    directory = self._refused
        except UserError:
            directory = self._refused
        config = _plain(composed)
        self._enter(directory, {"seed": config.get("seed"), "config": config}, status=FAILED, error=error)

    def conclude(self, reason: str, status: str = FAILED) -> tuple[str, str | None]:
        """Status and error of the run that has ended; reason and status are for one that could not say so itself."""
        record = Run(self.directory).record
        if record["status"] == RUNNING:
            record |= {"status": status, "error": reason}
            self._note(record)
        return record["status"], record["error"]

    @property
    def _refused(self) -> Path:
        return self.directory.with_name(self.directory.name + REFUSED)

    def _record(self) -> dict[str, Any] | None:
        """What an earlier run says of itself; None if there was none. Raises UserError if something else is there."""
        free = not self.directory.exists() or not any(self.directory.iterdir())
        return None if free else Run(self.directory).record

    def _is_untrained(self, record: dict[str, Any]) -> bool:
        """Whether an earlier run left nothing but the fact that it was there."""
        metrics = self.directory / METRICS
        trained = metrics.exists() and len(metrics.read_text().splitlines()) > 1
        others = {path.name for path in self.directory.iterdir()} - UNTRAINED
        return record["status"] != COMPLETED and not trained and not others

    def _check_ended(self, record: dict[str, Any]) -> None:
        """Raise UserError if the run may still be going on."""
        job = os.environ.get("SLURM_JOB_ID")
        requeued = job is not None and record.get("slurm_job") == job
        if record["status"] == RUNNING and not requeued and not Run(self.directory).killed:
            where = f"process {record.get('pid')} on {record.get('host')}"
            remedy = f"if it is not, set its status in {RUN} to {INTERRUPTED}"
            raise UserError(f"{self.directory}: is still running ({where}); {remedy}")

    def _check_same(self, wanted: dict[str, Any], record: dict[str, Any]) -> None:
        """Raise ConfigError if the run computes something else than the job would."""
        new, old = flatten(wanted), flatten(migrated(record, self.directory / RUN)["config"])
        for key in sorted(new.keys() | old.keys()):
            if not _is_how(key) and new.get(key) != old.get(key):
                remedy = "move it away or choose another hydra.sweep.dir"
                raise ConfigError(key, new.get(key), f"{self.directory} holds a run with {old.get(key)}; {remedy}")

    def _move_aside(self, reason: str) -> None:
        names = (self.directory.with_name(f"{self.directory.name}{OLD}{number}") for number in itertools.count(1))
        aside = next(path for path in names if not path.exists())
        self.directory.rename(aside)
        log.info("Beginning again; what was there is kept in %s (%s)", aside, reason)

    def _enter(self, directory: Path, described: dict[str, Any], **record: Any) -> None:
        """Turn the scratch directory into a run directory; of several processes one can."""
        record = start(self.command) | described | record
        write_text(self.scratch / RUN, json.dumps(record, indent=2) + "\n")
        write_text(
            self.scratch / METRICS,
            ",".join(["iteration", "phase", *(c["name"] for c in record["columns"]), "seconds"]) + "\n",
        )
        try:
            self.scratch.rename(directory)
        except OSError as error:
            raise UserError(f"{directory}: cannot be made ({error.strerror})") from error

    def _note(self, record: dict[str, Any]) -> None:
        write_text(self.directory / RUN, json.dumps(record, indent=2) + "\n")


def _attempt(
    place: Place, composed: DictConfig, multirun: Multirun, quiet: bool
) -> tuple[str, str | None, float | None]:
    """Do what is left to do of a job: its status, error and objective."""
    try:
        config = load(composed)
        ready = place.take(config)
    except UserError as error:
        log.error("%s", error)
        place.refuse(composed, str(error))
        return FAILED, str(error), None
    status, problem = SKIPPED, None
    if ready is not None:
        errand = _errand(ready, place)
        ended = run_apart(errand, lambda: multirun.stopped, place.directory / LOG if quiet else None)
        killed = f"was killed by {signal.Signals(-ended).name}" if ended < 0 else f"ended with status {ended}"
        stopped = multirun.stopped is not None
        status, problem = place.conclude(f"its process {killed}", INTERRUPTED if stopped else FAILED)
    objective = None
    if status in (COMPLETED, SKIPPED):
        better = {column.name: column.better for column in config.columns}
        value = parse_objective(config.objective, better).value(Run(place.directory).metrics)
        objective = value if math.isfinite(value) else None
    return status, problem, objective


def _errand(config: Config, place: Place) -> Errand:
    """What the process that trains has to do, with Hydra's logging as if Hydra had begun the job in its run directory."""  # noqa: E501
    hydra: Any = copy.deepcopy(HydraConfig.instance().cfg)
    OmegaConf.set_readonly(hydra.hydra, False)
    hydra.hydra.runtime.output_dir = str(place.directory)
    if config.resume is None and hydra.hydra.output_subdir is not None:
        write_text(place.directory / hydra.hydra.output_subdir / "hydra.yaml", OmegaConf.to_yaml(hydra))
    logs: Any = OmegaConf.to_container(hydra.hydra.job_logging, resolve=True)
    return Errand(to_dict(config), str(place.directory), logs, hydra.hydra.verbose, place.command)


def _end_with_starter(plan: Plan) -> None:
    """Have this process end, and with it what it started, once the one that started the jobs is gone.

    A process of joblib's would stay: waiting for another job, or for someone to take what the last one returned.
    """

    def wait() -> None:
        while not plan.is_abandoned:
            time.sleep(POLL)
        os._exit(1)

    name = f"end with {plan.pid}"
    if name not in {thread.name for thread in threading.enumerate()}:  # one job after another is run here
        threading.Thread(target=wait, name=name, daemon=True).start()


def _plain(composed: DictConfig) -> dict[str, Any]:
    """A config that may not be a valid one as plain values."""
    try:
        plain = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException:
        plain = OmegaConf.to_container(composed)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~")


def _is_how(key: str) -> bool:
    """Whether a key says how a run is carried out, not what it computes."""
    return f"{key}.".startswith(tuple(f"{how.rstrip('.')}." for how in HOW_KEYS))
