"""Where Hydra finds the launcher of eprop_cli.sweeps.

Every program that uses Hydra imports this, so what the launcher needs is imported where it is used.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LauncherOfTheRest(Launcher):
    """Passes on to the launcher that was chosen the jobs that are not COMPLETED."""

    def __init__(self, **_: Any) -> None:
        """Take the keys of the launcher that was chosen, which finds them in the config."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Set up the launcher that was chosen."""
        from eprop_cli.sweeps.launcher import chosen_launcher

        self._config, self._loader = config, hydra_context.config_loader
        self._chosen = chosen_launcher(hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """What the jobs returned, in their order."""
        from eprop_cli.sweeps.launcher import returned_before

        before = returned_before(self._config, self._loader, job_overrides, initial_job_idx)
        rest = [overrides for index, overrides in enumerate(job_overrides) if index not in before]
        launched = iter(self._chosen.launch(rest, initial_job_idx) if rest else ())
        return [before[index] if index in before else next(launched) for index in range(len(job_overrides))]
