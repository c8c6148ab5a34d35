"""Run one job of a multirun: find out what is left to do in its directory, do it, and tell what became of it."""

import contextlib
import copy
import logging
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from eprop_cli.config.config import Config
from eprop_cli.config.load import load
from eprop_cli.errors import UserError
from eprop_cli.runs.files import COMPLETED, FAILED, INTERRUPTED, LOG, RUNNING, write_text
from eprop_cli.runs.log import stop_writing_in
from eprop_cli.schema import to_dict
from eprop_cli.sweeps.fork_server import JobRequest, run_forked
from eprop_cli.sweeps.job_directory import JobDirectory, job_name, objective
from eprop_cli.sweeps.multirun import SKIPPED, JobOutcome, Multirun, MultirunPlan
from eprop_cli.sweeps.paths import find_modules_in, with_absolute_paths

log = logging.getLogger(__name__)
log_to_file = logging.getLogger("eprop_cli.file")
POLL = 1.0  # s, between two looks at whether the process that started the jobs is gone


def run_job(composed: DictConfig) -> float | None:
    """Run a job and return its objective; None if it has none, for whatever reason, or if there is no search.

    The others go on. Raises KeyboardInterrupt in the process that starts the jobs if no others are to go on.
    """
    logging.raiseExceptions = False  # as in eprop_run, which this process may not have seen
    hydra = HydraConfig.get()
    scratch = Path(hydra.runtime.output_dir)
    multirun = Multirun(scratch.parent)
    plan = multirun.plan
    overrides = [str(override) for override in hydra.overrides.task]
    outcome = JobOutcome(int(hydra.job.num), job_name(overrides, plan.swept), job=os.environ.get("SLURM_JOB_ID"))
    if not plan.is_mine:
        for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all; the stop file is enough here
            signal.signal(number, signal.SIG_IGN)
        if plan.tied:
            _end_with_starter(plan)
    returned = None
    find_modules_in(plan.modules_in)
    if multirun.stopped is None:
        directory = JobDirectory(multirun.directory / outcome.name, scratch, ["eprop-run", *plan.options, *overrides])
        try:
            status, error, returned = _attempt(directory, composed, multirun, outcome)
        except Exception as problem:  # whatever it is, it is this job's own
            log_to_file.exception("the job failed")
            status, error = FAILED, f"{type(problem).__name__}: {problem}"
            with contextlib.suppress(UserError, OSError):  # there may be no run directory yet
                status, error = directory.conclude(error)
        outcome = replace(outcome, status=status, error=error)
        if not plan.tied:  # in the log of a cluster's job; the one who started it tells of the others
            log.info("#%d %s: %s%s", outcome.num, outcome.name, status, f" ({error})" if error else "")
    multirun.note(outcome)
    stop_writing_in(scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    if plan.is_mine and multirun.stopped is not None:
        raise KeyboardInterrupt
    return returned


def _attempt(
    directory: JobDirectory, composed: DictConfig, multirun: Multirun, outcome: JobOutcome
) -> tuple[str, str | None, float | None]:
    """Do what is left to do of a job: its status, error and objective; outcome: as far as it is known."""
    try:
        config = load(with_absolute_paths(composed, multirun.plan.beginning))
        ready = directory.take(config)
    except UserError as error:
        log.error("%s", error)
        directory.refuse(composed, str(error))
        return FAILED, str(error), None
    status, problem = SKIPPED, None
    if ready is not None:
        multirun.note(replace(outcome, status=RUNNING))  # not before: until then its run says how an earlier one ended
        request = _request(ready, directory, str(directory.path / LOG), multirun.plan.modules_in)
        ended = run_forked(request, lambda: multirun.stopped)
        killed = f"was killed by {signal.Signals(-ended).name}" if ended < 0 else f"ended with status {ended}"
        stopped = multirun.stopped is not None
        status, problem = directory.conclude(f"its process {killed}", INTERRUPTED if stopped else FAILED)
    wanted = multirun.plan.objective is not None and status in (COMPLETED, SKIPPED)
    return status, problem, objective(directory.path, config) if wanted else None


def _request(config: Config, directory: JobDirectory, output: str, modules_in: str | None) -> JobRequest:
    """What the job's process has to do, with Hydra's logging as if Hydra had begun the job in its run directory."""
    hydra: Any = copy.deepcopy(HydraConfig.instance().cfg)
    OmegaConf.set_readonly(hydra.hydra, False)
    hydra.hydra.runtime.output_dir = str(directory.path)
    if config.resume is None and hydra.hydra.output_subdir is not None:
        write_text(directory.path / hydra.hydra.output_subdir / "hydra.yaml", OmegaConf.to_yaml(hydra))
    logs: Any = OmegaConf.to_container(hydra.hydra.job_logging, resolve=True)
    pruner: Any = OmegaConf.to_container(hydra.hydra.sweeper.get("pruner") or OmegaConf.create(), resolve=True)
    return JobRequest(
        *(to_dict(config), str(directory.path), logs, hydra.hydra.verbose, directory.command),
        output=output,
        working_directory=os.getcwd(),
        modules_in=modules_in,
        pruner=pruner if pruner.get("_target_") else None,
    )


def _end_with_starter(plan: MultirunPlan) -> None:
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
