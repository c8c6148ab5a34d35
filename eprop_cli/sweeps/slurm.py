"""What SLURM does not say by itself: why jobs wait, that a time limit cannot be had; how what waits is cancelled."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eprop_cli.errors import require
from eprop_cli.sweeps.multirun import Multirun

LOOK, LOOK_STOPPING = 5.0, 0.5  # s between two looks at the queue
PATIENCE = 30  # s, that a command of SLURM's is given
NO_ACCOUNTING = "the cluster keeps no accounts: that a job was killed without a word shows late"
# What is to be done about reasons by which jobs wait for ever.
REMEDIES = {
    "PartitionTimeLimit": "lower hydra.launcher.timeout_min",
    "PartitionNodeLimit": "lower what a job asks for",
    "ReqNodeNotAvail": "the node is down or reserved",
    "BadConstraints": "no node has what hydra.launcher asks for",
    "AssocMaxJobsLimit": "the account's limit of jobs is reached",
    "JobHeldUser": "release it with scontrol release",
    "JobHeldAdmin": "ask those who run the cluster",
}


def is_slurm(launcher: str) -> bool:
    """Whether a launcher's jobs are SLURM's."""
    return launcher.endswith("SlurmLauncher")


def check_time_limit(launcher: Mapping[str, Any]) -> None:
    """Raise ConfigError for a time limit that the partition does not give: the jobs would wait for ever."""
    wanted, partition = launcher.get("timeout_min"), launcher.get("partition")
    limits = _limits()
    name = partition if partition is not None else next((name for name, (_, chosen) in limits.items() if chosen), None)
    if name not in limits or wanted is None:
        return
    most = limits[name][0]
    if most is not None:
        constraint = f"is beyond the time limit of partition {name} ({most:g} min); lower it, or choose another"
        require(wanted <= most, "hydra.launcher.timeout_min", wanted, constraint)


def watch(multirun: Multirun) -> None:
    """Tell why jobs of a multirun wait; when it is stopped, cancel those, and go on once the others have ended."""
    logging.getLogger("submitit").addFilter(_Once())
    before = _submitted(multirun.directory)
    threading.Thread(target=_watch, args=(multirun, before), daemon=True).start()


def _watch(multirun: Multirun, before: set[str]) -> None:
    told: set[str] = set()
    while multirun.state.exists():
        jobs = _submitted(multirun.directory) - before
        waiting = _waiting(jobs)
        if multirun.stopped is not None:
            if jobs and waiting:
                _call("scancel", "--state=PENDING", *sorted(jobs))
            if waiting is not None and not _queued(jobs):
                os.kill(os.getpid(), signal.SIGINT)  # submitit would wait for what it does not hear of any more
                return
            time.sleep(LOOK_STOPPING)
            continue
        for reason, count in (waiting or {}).items():
            if reason not in told and reason not in ("None", ""):
                remedy = f": {REMEDIES[reason]}" if reason in REMEDIES else ""
                print(f"eprop-run: {count} jobs wait in the queue ({reason}{remedy})", file=sys.stderr, flush=True)
                told.add(reason)
        until = time.monotonic() + LOOK
        while time.monotonic() < until and multirun.state.exists() and multirun.stopped is None:
            time.sleep(LOOK_STOPPING)


def _waiting(jobs: set[str]) -> Counter[str] | None:
    """How many of some jobs wait, by reason; None if SLURM does not say."""
    if not jobs:
        return Counter()
    out = _call("squeue", "-h", "-r", "-t", "PENDING", "-j", ",".join(sorted(jobs)), "-o", "%r")
    return None if out is None else Counter(out.split("\n")[:-1])


def _queued(jobs: set[str]) -> bool:
    """Whether any of some jobs has not ended."""
    return bool(jobs) and bool((_call("squeue", "-h", "-j", ",".join(sorted(jobs)), "-o", "%i") or "").strip())


def _submitted(directory: Path) -> set[str]:
    """Numbers of the jobs and job arrays that were submitted for a multirun."""
    found = (directory / ".submitit").glob("*_submission.sh")
    return {path.name.split("_")[0] for path in found if path.name.split("_")[0].isdecimal()}


def _limits() -> dict[str, tuple[float | None, bool]]:
    """Time limit (min; None: none) of each partition, and whether it is the default."""
    limits: dict[str, tuple[float | None, bool]] = {}
    for line in (_call("sinfo", "-h", "-o", "%P|%l") or "").splitlines():
        name, _, limit = line.partition("|")
        limits[name.rstrip("*")] = _minutes(limit), name.endswith("*")
    return limits


def _minutes(limit: str) -> float | None:
    """SLURM's [days-][hours:]minutes:seconds in minutes; None for "infinite"."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 1440 * days + 60 * hours + minutes + seconds / 60


def _call(*command: str) -> str | None:
    """What a command of SLURM's prints; None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return None
    # Of jobs that ended a while ago it knows nothing more.
    return done.stdout if done.returncode == 0 or "Invalid job id" in done.stderr else None


class _Once(logging.Filter):
    """Says once, in a line, what submitit says at each look where there is no accounting."""

    def __init__(self) -> None:
        super().__init__()
        self._told = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be seen."""
        if "sacct" not in record.getMessage():
            return True
        if not self._told:  # not by the record: there are several handlers, each of which would show it
            print(f"eprop-run: {NO_ACCOUNTING}", file=sys.stderr, flush=True)
        self._told = True
        return False
