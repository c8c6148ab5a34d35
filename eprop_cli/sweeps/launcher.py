"""Keep from a launcher, whichever is chosen, the jobs that are COMPLETED: it would take a process for each."""

from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from eprop_cli.config.composed import without_hydra
from eprop_cli.config.load import load
from eprop_cli.errors import UserError
from eprop_cli.sweeps.job_directory import check_same, is_completed, job_name, objective
from eprop_cli.sweeps.multirun import SKIPPED, JobOutcome, Multirun
from eprop_cli.sweeps.paths import with_absolute_paths
from eprop_cli.sweeps.slurm import is_slurm, wait

LAUNCHER_OF_THE_REST = "hydra_plugins.eprop_cli.LauncherOfTheRest"


def launch_only_the_rest(config: DictConfig) -> None:
    """Have Hydra use our launcher, which uses the one in the config."""
    config.hydra.launcher["_target_"] = LAUNCHER_OF_THE_REST


def chosen_launcher(hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> Launcher:
    """The launcher that was chosen, which gets back its place in the config."""
    config.hydra.launcher["_target_"] = Multirun.of(config).plan.launcher
    return Plugins.instance().instantiate_launcher(hydra_context, task_function, config)


def wait_for_the_launched(config: DictConfig) -> None:
    """Wait for jobs of which the launcher has heard, but that are to run again."""
    multirun = Multirun.of(config)
    if is_slurm(multirun.plan.launcher):
        from eprop_cli.sweeps.slurm_queue import Queue

        wait(multirun, Queue.of_submitit().numbers)


def returned_before(
    config: DictConfig, loader: ConfigLoader, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
) -> dict[int, JobReturn]:
    """What the jobs returned that are COMPLETED, or PRUNED by their search, by their indices."""
    multirun = Multirun.of(config)
    plan, returned = multirun.plan, {}
    for index, overrides in enumerate(job_overrides):
        name = job_name(overrides, plan.swept)
        if not is_completed(multirun.directory / name, or_pruned=plan.n_jobs is None):
            continue
        try:
            composed = without_hydra(loader.load_sweep_config(config, list(overrides)))
            job = load(with_absolute_paths(composed, plan.beginning))
            check_same(multirun.directory / name, job)
            value = None if plan.objective is None else objective(multirun.directory / name, job)
        except UserError:  # the job will tell
            continue
        returned[index] = JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=value)
        # The launcher numbers the jobs that it gets; these are counted from the end.
        number = initial_job_idx + len(job_overrides) - len(returned)
        multirun.note(JobOutcome(number, name, SKIPPED))
    return returned
