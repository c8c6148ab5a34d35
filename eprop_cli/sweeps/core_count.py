"""How many cores the jobs of a multirun take, and how many there are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import loky

from eprop_cli.config.config import Config
from eprop_cli.sweeps.engine_needs import cores_of_a_job

# Name of a launcher's class -> (jobs that it runs at once, cores that they share); the arguments are its own config and
# the number of jobs that there are to run at once.
LAUNCHERS: dict[str, Callable[[Mapping[str, Any], int], tuple[int, int]]] = {
    "BasicLauncher": lambda launcher, n_jobs: (1, n_cores()),
    "JoblibLauncher": lambda launcher, n_jobs: (min(counted_by_joblib(launcher["n_jobs"]), n_jobs), n_cores()),
    "LocalLauncher": lambda launcher, n_jobs: (n_jobs, n_cores()),
    "SlurmLauncher": lambda launcher, n_jobs: (1, launcher["cpus_per_task"] or 1),
}


def n_cores() -> int:
    """Cores that this process may use; containers, affinity and LOKY_MAX_CPU_COUNT count."""
    return int(loky.cpu_count())


def counted_by_joblib(n_jobs: int) -> int:
    """How many jobs at once joblib takes a number for, which may count back from all cores."""
    from joblib import effective_n_jobs

    return int(effective_n_jobs(n_jobs))


def jobs_at_once(threads: int, workers: int) -> int:
    """As many jobs as there are cores for; at least one."""
    return max(1, n_cores() // (threads * workers))


def jobs_sharing_cores(launcher: Mapping[str, Any], n_jobs: int) -> int:
    """How many of the jobs a launcher runs at once on cores that they share; 1 where that is not known."""
    kind = _kind(launcher)
    return LAUNCHERS[kind](launcher, n_jobs)[0] if kind in LAUNCHERS else 1


def shortage(config: Config, swept: Mapping[str, Sequence[Any]], launcher: Mapping[str, Any], n_jobs: int) -> str:
    """One line with the numbers if jobs that run at once want more cores than there are, else nothing.

    config: of one of the jobs. swept: values of the keys that have several. n_jobs: how many jobs might run at once.
    """
    kind = _kind(launcher)
    if kind not in LAUNCHERS:
        return ""
    n_at_once, cores = LAUNCHERS[kind](launcher, n_jobs)
    each = cores_of_a_job(config, swept)
    wanted = n_at_once * each
    if wanted <= cores:
        return ""
    parts = f"{n_at_once} at once x {each} each (engine.n_workers and threads)"
    remedy = "give hydra.launcher.cpus_per_task" if kind == "SlurmLauncher" else "hydra/launcher=parallel counts them"
    return f"the jobs want {wanted} cores ({parts}), but have {cores}; {remedy}"


def _kind(launcher: Mapping[str, Any]) -> str:
    return str(launcher["_target_"]).rsplit(".", 1)[-1]
