"""What SLURM does not say by itself: why jobs wait, that they are gone, that a time limit cannot be had."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from eprop_cli.errors import UserError, require
from eprop_cli.runs.files import RUNNING
from eprop_cli.sweeps.job_directory import JobDirectory
from eprop_cli.sweeps.multirun import Multirun

LOOK, LOOK_STOPPING = 5.0, 0.5  # s between two looks at the queue
PATIENCE = 30  # s, that a command of SLURM's is given
LATE = 10.0  # s, that files of a job which has ended are given to be seen here
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
GONE = "unknown to SLURM"
# States of jobs that do not go on, and what is to be done about those that ended so before they could say it.
ENDED = {
    "OUT_OF_MEMORY": "raise hydra.launcher.mem_gb",
    "TIMEOUT": "raise hydra.launcher.timeout_min",
    "NODE_FAIL": "the node was lost",
    "FAILED": "out of memory? see hydra.launcher.mem_gb",
    "CANCELLED": "",
    "COMPLETED": "",
    "BOOT_FAIL": "",
    "DEADLINE": "",
    "PREEMPTED": "",
    GONE: "",
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


def watch(multirun: Multirun, numbers: Callable[[], set[str]]) -> None:
    """Tell why jobs of a multirun wait or are gone; when it is stopped, cancel those that wait.

    It goes on once the others have ended. numbers: gives those of all jobs and job arrays that it has submitted.
    """
    threading.Thread(target=_watch, args=(multirun, numbers), daemon=True).start()


def ended_so(state: str) -> str:
    """A state in which a job ended, and what is to be done about it."""
    return f"{state}: {ENDED[state]}" if ENDED.get(state) else state


def states(numbers: Collection[str]) -> dict[str, tuple[str, str]] | None:
    """State and own number of each job, by its number in the array, as 7_0; None if SLURM does not say."""
    if not numbers:
        return {}
    out = _call("squeue", "-h", "-r", "-t", "all", "-j", ",".join(sorted(numbers)), "-o", "%i|%T|%A")
    if out is None:
        return None
    lines = [line.split("|") for line in out.splitlines() if line.count("|") == 2]
    return {job: (state, number) for job, state, number in lines}


def _watch(multirun: Multirun, numbers: Callable[[], set[str]]) -> None:
    told: set[str] = set()
    ended: dict[str, float] = {}
    while multirun.state.exists():
        jobs = numbers()
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
        _note_gone(multirun, states(jobs), ended)
        until = time.monotonic() + LOOK
        while time.monotonic() < until and multirun.state.exists() and multirun.stopped is None:
            time.sleep(LOOK_STOPPING)


def _note_gone(multirun: Multirun, found: Mapping[str, tuple[str, str]] | None, ended: dict[str, float]) -> None:
    """Have runs FAILED whose jobs SLURM says have ended, but that did not get to say so themselves.

    ended: when that was first seen, by a job's own number. On another machine nothing else tells that they are gone.
    """
    now = time.monotonic()
    by_number = {number: state for state, number in (found or {}).values() if state in ENDED}
    for outcome in multirun.outcomes:
        state = by_number.get(outcome.job or "")
        if outcome.status != RUNNING or outcome.job is None or state is None:
            ended.pop(outcome.job or "", None)
        elif now - ended.setdefault(outcome.job, now) >= LATE:
            directory = JobDirectory(multirun.directory / outcome.name, multirun.state, [])
            try:
                status, error = directory.conclude(f"job {outcome.job} ended without a word ({ended_so(state)})")
            except (UserError, OSError):
                continue
            multirun.note(replace(outcome, status=status, error=error))


def _waiting(jobs: set[str]) -> Counter[str] | None:
    """How many of some jobs wait, by reason; None if SLURM does not say."""
    if not jobs:
        return Counter()
    out = _call("squeue", "-h", "-r", "-t", "PENDING", "-j", ",".join(sorted(jobs)), "-o", "%r")
    return None if out is None else Counter(out.split("\n")[:-1])


def _queued(jobs: set[str]) -> bool:
    """Whether any of some jobs has not ended."""
    return bool(jobs) and bool((_call("squeue", "-h", "-j", ",".join(sorted(jobs)), "-o", "%i") or "").strip())


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
