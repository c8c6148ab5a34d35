"""Many runs at once: all that there is of multiruns, by this one door. Only cli/ knows it.

What this takes to import is imported where it is used: eprop-run --help needs none of it.
"""

import sys
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path

from hydra.core.utils import JobRuntime
from omegaconf import DictConfig, OmegaConf

from eprop_cli.errors import reason
from eprop_cli.sweeps.callback import MULTIRUN


def jobs_at_once(threads: int, workers: int) -> int:
    """As many jobs as there are cores for; at least one."""
    from eprop_cli.sweeps import core_count

    return core_count.jobs_at_once(threads, workers)


def is_sweep(directory: Path) -> bool:
    """Whether a multirun was begun in a directory."""
    from eprop_cli.sweeps import record

    return record.is_sweep(directory)


def arguments_to_resume(
    directory: Path,
    options: Sequence[str],
    overrides: Sequence[str],
    allowed: Collection[str],
    named: Collection[str] = (),
) -> list[str]:
    """Arguments that the multirun in a sweep directory was given, then the new ones.

    allowed: modules that it may name. named: those of them that these arguments name.
    """
    from eprop_cli.sweeps import resume

    return resume.arguments_to_resume(directory, options, overrides, allowed, named)


def watch(directory: Path, once: bool) -> int:
    """Tell how the runs in a directory are getting on, until all have ended; returns the exit status."""
    from eprop_cli.sweeps import watching

    return watching.follow(directory, once)


def run_job(composed: DictConfig) -> float | None:
    """Run a job and return its objective; None if it has none."""
    from eprop_cli.sweeps import job

    return job.run_job(composed)


def has_begun() -> bool:
    """Whether this process has begun a multirun."""
    return OmegaConf.select(JobRuntime.instance().conf, MULTIRUN) is not None


def end(problem: BaseException | None) -> int:
    """Tell what kept the multirun from coming to its end, and what became of its jobs; returns the exit status."""
    from eprop_cli.config.composition import BAD_INPUTS
    from eprop_cli.config.refusal import refuse
    from eprop_cli.sweeps.closing import close, why_broken_off
    from eprop_cli.sweeps.multirun import Multirun
    from eprop_cli.sweeps.watching import end as end_watch

    end_watch()
    multirun = Multirun(Path(OmegaConf.select(JobRuntime.instance().conf, MULTIRUN)))
    if isinstance(problem, BAD_INPUTS) and not multirun.outcomes:
        multirun.undo(multirun.plan.fresh)
        refuse(problem)
    if isinstance(problem, Exception) and multirun.stopped is None:
        known = why_broken_off(problem, multirun.directory)
        print(f"eprop-run: {known or f'the multirun broke off: {reason(problem)}'}", file=sys.stderr)
        if known is None and not isinstance(problem, BAD_INPUTS):
            traceback.print_exception(problem)
    return close(multirun, problem)
