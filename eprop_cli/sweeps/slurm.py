"""What SLURM does not say by itself: why jobs wait, that they are gone, that a time limit cannot be had."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eprop_cli.errors import UserError, require
from eprop_cli.runs.files import FAILED, INTERRUPTED, RUNNING
from eprop_cli.sweeps.job_directory import JobDirectory
from eprop_cli.sweeps.multirun import Multirun

LOOK, LOOK_STOPPING = 5.0, 0.5  # s between two looks at the queue
PATIENCE = 30  # s, that a command of SLURM's is given
LATE = 10.0  # s, that files of a job which has ended are given to be seen here
# What is to be known about reasons by which jobs wait, for ever if nothing is done.
REMEDIES = {
    "BeginTime": "SLURM will run them again, in a while",
    "PartitionTimeLimit": "lower hydra.launcher.timeout_min",
    "PartitionNodeLimit": "lower what a job asks for",
    "ReqNodeNotAvail": "the node is down or reserved",
    "BadConstraints": "no node has what hydra.launcher asks for",
    "AssocMaxJobsLimit": "the account's limit of jobs is reached",
    "JobHeldUser": "release it with scontrol release",
    "JobHeldAdmin": "ask those who run the cluster",
}
GONE, OUT_OF_MEMORY = "unknown to SLURM", "OUT_OF_MEMORY"
# States of jobs that do not go on, and what is to be done about those that ended so before they could say it.
ENDED = {
    OUT_OF_MEMORY: "raise hydra.launcher.mem_gb",
    "TIMEOUT": "raise hydra.launcher.timeout_min",
    "NODE_FAIL": "the node was lost",
    "FAILED": "out of memory? see its logs and hydra.launcher.mem_gb",
    "CANCELLED": "",
    "COMPLETED": "",
    "BOOT_FAIL": "",
    "DEADLINE": "",
    "PREEMPTED": "",
    GONE: "",
}
# States of jobs that may have run out of memory: without cgroups SLURM says so in their logs only.
UNCLEAR = ("FAILED", "CANCELLED", GONE)
MEMORY = re.compile(r"exceeded (job |step )?memory limit|oom.kill event", re.IGNORECASE)
LOGS = ".submitit"  # in the sweep directory, as conf/hydra/launcher has it


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


def ended_so(sweep: Path, job: str, state: str, memory: str = "") -> str:
    """How a job ended, and what is to be done about it.

    job: its number in the array, by which its logs are called. memory: that it was given.
    """
    if state in UNCLEAR and _ran_out_of_memory(sweep, job):
        state = OUT_OF_MEMORY
    how = f"{state} with {memory}" if state == OUT_OF_MEMORY and memory else state
    return f"{how}: {ENDED[state]}" if ENDED.get(state) else how


@dataclass(frozen=True)
class Queued:
    """A job in SLURM's queue, or that was in there some minutes ago.

    state: SLURM's. number: its own, which a job array's differ in. reason: why it waits. memory: that it was given.
    """

    state: str
    number: str
    reason: str = "None"
    memory: str = ""

    @property
    def goes_on(self) -> bool:
        """Whether it waits or runs, also again, as it does when its node is lost or its time limit is reached."""
        return self.state not in ENDED


def look(numbers: Collection[str]) -> dict[str, Queued] | None:
    """Each of some jobs and job arrays by its number in the array, as 7_0; None if SLURM does not say."""
    if not numbers:
        return {}
    out = _call("squeue", "-h", "-r", "-t", "all", "-j", ",".join(sorted(numbers)), "-o", "%i|%T|%A|%r|%m")
    if out is None:
        return None
    lines = [line.split("|") for line in out.splitlines() if line.count("|") == 4]
    return {job: Queued(*rest) for job, *rest in lines}


def wait(multirun: Multirun, numbers: Callable[[], set[str]]) -> None:
    """Wait for jobs that SLURM runs again, of which the launcher has heard that they were interrupted.

    watch() notes what becomes of them.
    """
    while any(outcome.status in (INTERRUPTED, FAILED, RUNNING) for outcome in multirun.outcomes):
        jobs = look(numbers())
        ended = jobs is not None and not any(job.goes_on for job in jobs.values())
        if ended and not any(outcome.status == RUNNING for outcome in multirun.outcomes):
            return
        time.sleep(LOOK_STOPPING if ended else 2 * LOOK_STOPPING)


def _watch(multirun: Multirun, numbers: Callable[[], set[str]]) -> None:
    told: set[str] = set()
    ended: dict[str, float] = {}
    while multirun.state.exists():
        submitted = numbers()
        jobs = look(submitted)
        waiting = _waiting(jobs or {})
        if multirun.stopped is not None:
            if waiting:
                _call("scancel", "--state=PENDING", *sorted(submitted))
            if jobs is not None and not any(job.goes_on for job in jobs.values()):
                os.kill(os.getpid(), signal.SIGINT)  # submitit would wait for what it does not hear of any more
                return
            time.sleep(LOOK_STOPPING)
            continue
        for reason, count in waiting.items():
            if reason not in told and reason not in ("None", ""):
                remedy = f": {REMEDIES[reason]}" if reason in REMEDIES else ""
                jobs_wait = "1 job waits" if count == 1 else f"{count} jobs wait"
                print(f"eprop-run: {jobs_wait} in the queue ({reason}{remedy})", file=sys.stderr, flush=True)
                told.add(reason)
        if jobs is not None:
            _note(multirun, jobs, ended)
        until = time.monotonic() + LOOK
        while time.monotonic() < until and multirun.state.exists() and multirun.stopped is None:
            time.sleep(LOOK_STOPPING)


def _waiting(jobs: Mapping[str, Queued]) -> Counter[str]:
    """How many of some jobs wait, by reason."""
    return Counter(job.reason for job in jobs.values() if job.state == "PENDING")


def _note(multirun: Multirun, jobs: Mapping[str, Queued], ended: dict[str, float]) -> None:
    """Note what the queue says of jobs that cannot say it themselves: they are gone, or they will run again.

    ended: when it was first seen that a job has, by its own number. A run of a job that is gone has FAILED: on another
    machine nothing else tells. One that SLURM runs again goes on, whatever it said when it was interrupted.
    """
    now = time.monotonic()
    names = {job.number: name for name, job in jobs.items()}
    for outcome in multirun.outcomes:
        if outcome.job is None:
            continue
        name = names.get(outcome.job, outcome.job)
        job = jobs.get(name, Queued(GONE, outcome.job))
        if job.state == "PENDING" and outcome.status in (INTERRUPTED, FAILED):
            multirun.note(replace(outcome, status=RUNNING, error=None))
        if outcome.status != RUNNING or job.goes_on:
            ended.pop(outcome.job, None)
        elif now - ended.setdefault(outcome.job, now) >= LATE:
            directory = JobDirectory(multirun.directory / outcome.name, multirun.state, [])
            how = ended_so(multirun.directory, name, job.state, job.memory)
            try:
                status, error = directory.conclude(f"job {outcome.job} ended without a word ({how})")
            except (UserError, OSError) as problem:
                status, error = FAILED, str(problem)
            multirun.note(replace(outcome, status=status, error=error))


def _ran_out_of_memory(sweep: Path, job: str) -> bool:
    """Whether SLURM has said so in the logs of a job."""
    for path in (sweep / LOGS).glob(f"{job}_*_log.err"):
        with contextlib.suppress(OSError):
            return MEMORY.search(path.read_text(errors="replace")) is not None
    return False


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
