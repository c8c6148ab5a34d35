"""The run directory of a job: what it is called, what an earlier multirun left there, what becomes of it.

Hydra begins each job in a directory of the multirun's own, never in the run directory: so what an earlier job left is
looked at before anything is written.
"""

import hashlib
import itertools
import json
import logging
import math
import os
import platform
import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eprop_cli.config.config import Config
from eprop_cli.config.moved import MOVED
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
    PRUNED,
    RUN,
    RUNNING,
    WEIGHTS,
    natural,
    write_text,
)
from eprop_cli.runs.reader import Run
from eprop_cli.runs.record import describe, start
from eprop_cli.runs.writer import header
from eprop_cli.schema import flatten, to_dict

log = logging.getLogger(__name__)
MAX_NAME = 120  # characters of a job directory, without what is added to tell it from others
OLD, REFUSED = ".old-", ".refused"  # what follows the name of a directory beside that of a job
UNTRAINED = {".hydra", LOG, RESERVE, RUN, METRICS, WEIGHTS, CHECKPOINT}  # what is there without training


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


def is_completed(directory: Path, or_pruned: bool = False) -> bool:
    """Whether a directory holds a run that is COMPLETED, or, if that counts, PRUNED; raises nothing."""
    try:
        return Run(directory).status in (COMPLETED, *([PRUNED] if or_pruned else ()))
    except UserError:
        return False


def check_same(directory: Path, config: Config) -> None:
    """Raise ConfigError if the run in a directory computes something else than a config would."""
    new, old = flatten(to_dict(config)), flatten(Run(directory).record["config"])
    for key in sorted(new.keys() | old.keys()):
        if not _is_how(key) and new.get(key) != old.get(key):
            remedy = "move it away or choose another hydra.sweep.dir"
            raise ConfigError(key, new.get(key), f"{directory} holds a run with {old.get(key)}; {remedy}")


def objective(directory: Path, config: Config) -> float | None:
    """What the run in a directory returns to a search; None if that is not a number."""
    better = {column.name: column.better for column in config.columns}
    value = parse_objective(config.objective, better).value(Run(directory).metrics)
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class JobDirectory:
    """Where a job runs, and where it began.

    path: its run directory. scratch: where Hydra began it; becomes the run directory of a run that begins anew.
    command: what to type to run the job alone.
    """

    path: Path
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
                shutil.rmtree(self.path)
            else:
                check_same(self.path, config)
                if record["status"] == COMPLETED:
                    return None
                try:
                    check_resume(config, self.path)
                except UserError as error:
                    self._move_aside(str(error))
                else:
                    self._note(record | {"status": RUNNING, "pid": os.getpid(), "host": platform.node()})
                    return replace(config, resume=str(self.path))
        self._enter(self.path, **describe(config), status=RUNNING)
        return config

    def refuse(self, composed: DictConfig, error: str) -> None:
        """Leave a record of why the job was not run: in its run directory, or beside it where that holds something."""
        directory = self.path
        try:
            if record := self._record():
                self._check_ended(record)
                if self._is_untrained(record):
                    shutil.rmtree(directory)
                else:
                    directory = self._refused
        except UserError:
            directory = self._refused
        plain = _plain(composed)
        self._enter(directory, config=plain, seed=plain.get("seed"), status=FAILED, error=error)

    def conclude(self, reason: str, status: str = FAILED) -> tuple[str, str | None]:
        """Status and error of the run that has ended; reason and status are for one that could not say so itself."""
        record = Run(self.path).record
        if record["status"] == RUNNING:
            record |= {"status": status, "error": reason}
            self._note(record)
        return record["status"], record["error"]

    @property
    def _refused(self) -> Path:
        return self.path.with_name(self.path.name + REFUSED)

    def _record(self) -> dict[str, Any] | None:
        """What an earlier run says of itself; None if there was none. Raises UserError if something else is there."""
        free = not self.path.exists() or not any(self.path.iterdir())
        return None if free else Run(self.path).record

    def _is_untrained(self, record: dict[str, Any]) -> bool:
        """Whether an earlier run left nothing but the fact that it was there."""
        metrics = self.path / METRICS
        trained = metrics.exists() and len(metrics.read_text().splitlines()) > 1
        others = {path.name for path in self.path.iterdir()} - UNTRAINED
        return record["status"] != COMPLETED and not trained and not others

    def _check_ended(self, record: dict[str, Any]) -> None:
        """Raise UserError if the run may still be going on."""
        job = os.environ.get("SLURM_JOB_ID")
        requeued = job is not None and record.get("slurm_job") == job
        if record["status"] == RUNNING and not requeued and not Run(self.path).killed:
            where = f"process {record.get('pid')} on {record.get('host')}"
            remedy = f"if it is not, set its status in {RUN} to {INTERRUPTED}"
            raise UserError(f"{self.path}: is still running ({where}); {remedy}")

    def _move_aside(self, reason: str) -> None:
        names = (self.path.with_name(f"{self.path.name}{OLD}{number}") for number in itertools.count(1))
        aside = next(path for path in names if not path.exists())
        self.path.rename(aside)
        log.info("Beginning again; what was there is kept in %s (%s)", aside, reason)

    def _enter(self, directory: Path, **record: Any) -> None:
        """Turn the scratch directory into a run directory; of several processes one can."""
        record = start(self.command) | record
        write_text(self.scratch / RUN, json.dumps(record, indent=2) + "\n")
        write_text(self.scratch / METRICS, header(column["name"] for column in record["columns"]))
        try:
            self.scratch.rename(directory)
        except OSError as error:
            raise UserError(f"{directory}: cannot be made ({error.strerror})") from error

    def _note(self, record: dict[str, Any]) -> None:
        write_text(self.path / RUN, json.dumps(record, indent=2) + "\n")


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
    key = MOVED.get(key, key)
    return f"{key}.".startswith(tuple(f"{how.rstrip('.')}." for how in HOW_KEYS))
