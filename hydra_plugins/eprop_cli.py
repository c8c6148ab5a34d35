"""Where Hydra finds the launcher and the sweeper of eprop_cli.sweeps.

Every program that uses Hydra imports this, so what they need is imported where it is used.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
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
        from eprop_cli.sweeps.launcher import returned_before, wait_for_the_launched

        before = returned_before(self._config, self._loader, job_overrides, initial_job_idx)
        rest = [overrides for index, overrides in enumerate(job_overrides) if index not in before]
        launched = iter(self._chosen.launch(rest, initial_job_idx) if rest else ())
        wait_for_the_launched(self._config)
        return [before[index] if index in before else next(launched) for index in range(len(job_overrides))]


class Search(Sweeper):
    """Runs the jobs that Optuna suggests."""

    def __init__(self, **_: Any) -> None:
        """Take the keys of the sweeper, which finds them in the config."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Set up the launcher, which is ours."""
        self._config = config
        self._launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Search; the arguments are in the config, too."""
        from eprop_cli.sweeps.search import search

        search(self._config, self._launcher)
