"""Where a run stands, from its files alone, whoever runs it and wherever."""

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from eprop_cli.columns import Column, judged
from eprop_cli.errors import UserError
from eprop_cli.phases import TRAINING
from eprop_cli.runs.files import FAILED, LOG, METRICS, RUNNING
from eprop_cli.runs.reader import Run

KILLED = "KILLED"  # what a run that is gone cannot say itself
RECENT = 10  # batches whose mean duration says how long the rest will take
QUIET = 120.0  # s without a row, or this many times what a batch takes, after which it is said
SLOW = 5.0


@dataclass(frozen=True)
class Standing:
    """A run at some moment.

    status: as in run.json, or KILLED. iteration, n_iter: of training. result: its last metrics, in words. left: s until
    training ends; None if that is not known. silent: s since the last row, where that is long. job: where it runs.
    """

    directory: Path
    status: str
    iteration: int = 0
    n_iter: int = 0
    result: str = ""
    left: float | None = None
    silent: float | None = None
    job: str = ""
    error: str = ""

    @property
    def is_running(self) -> bool:
        """Whether it goes on, as far as can be told."""
        return self.status == RUNNING

    @property
    def part(self) -> float:
        """How much of it is done, from 0 to 1."""
        return min(1.0, self.iteration / self.n_iter) if self.is_running and self.n_iter else float(not self.is_running)

    @property
    def log(self) -> Path:
        """The file with all that it says."""
        return self.directory / LOG

    def words(self, brief: bool = False) -> str:
        """In one line; brief: of a run that goes on, no more than its loss."""
        if not self.is_running:
            detail = f" ({self.error})" if self.error else f", {self.result}" if self.result else ""
            return f"{self.status}{detail}"
        parts = [f"iteration {self.iteration}/{self.n_iter}", self.result.split(", ")[0] if brief else self.result]
        parts += [f"{duration(self.left)} left"] if self.left is not None and not brief else []
        parts += [f"nothing new for {duration(self.silent)}"] if self.silent is not None else []
        return ", ".join(part for part in parts if part)


def standing(directory: Path) -> Standing:
    """Where a run stands; one that cannot be read has FAILED."""
    try:
        run = Run(directory)
        record = run.record
        columns = run.columns
        n_iter = int(record["config"]["task"]["n_iter"])
    except (UserError, KeyError, TypeError, ValueError) as error:
        return Standing(directory, FAILED, error=str(error))
    status = KILLED if run.killed else str(record["status"])
    iteration, seconds, means = _rows(directory / METRICS)
    path = directory / METRICS
    silent = time.time() - path.stat().st_mtime if path.exists() else 0.0
    usual = fmean(seconds) if seconds else 0.0
    is_long = status == RUNNING and silent > max(QUIET, SLOW * usual)
    return Standing(
        *(directory, status, iteration, n_iter, _words(columns, means)),
        left=usual * (n_iter - iteration) if seconds and not is_long else None,
        silent=silent if is_long else None,
        job=_job(record),
        error=str(record.get("error") or ""),
    )


def duration(seconds: float) -> str:
    """A duration that is about right."""
    if seconds < 90:
        return f"~{seconds:.0f} s"
    if seconds < 5400:
        return f"~{seconds / 60:.0f} min"
    return f"~{seconds / 3600:.0f} h" if seconds < 172_800 else f"~{seconds / 86400:.0f} days"


def _rows(path: Path) -> tuple[int, list[float], dict[str, float]]:
    """The last training iteration, seconds of the last training batches, and means over the last rows of a phase."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]  # the last may be being written
        trained = [row for row in rows if row["phase"] == TRAINING]
        last = [row for row in rows if (row["phase"], row["iteration"]) == (rows[-1]["phase"], rows[-1]["iteration"])]
        names = [name for name in (last[0] if last else {}) if name not in ("phase", "iteration", "seconds")]
        means = {name: fmean(float(row[name]) for row in last) for name in names}
        seconds = [float(row["seconds"]) for row in trained[-RECENT:]]
        return int(trained[-1]["iteration"]) if trained else 0, seconds, means
    except (OSError, ValueError, KeyError, csv.Error):
        return 0, [], {}


def _words(columns: Sequence[Column], means: Mapping[str, float]) -> str:
    """The metrics by which it is judged."""
    names = {each.name: "loss" if each.name == "loss" else each.short for each in judged(columns)}
    return ", ".join(f"{word} {means[name]:.4g}" for name, word in names.items() if name in means)


def _job(record: Mapping[str, Any]) -> str:
    """Where a run runs: job of a cluster or process, and machine."""
    number = f"job {record['slurm_job']}" if record.get("slurm_job") else f"process {record.get('pid')}"
    return f"{number} on {record.get('host')}"
