"""Where Hydra tells that a multirun begins."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobRuntime
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

MULTIRUN = "multirun"  # in Hydra's JobRuntime: where the multirun that has begun keeps what its jobs share


class SweepCallback(Callback):
    """Checks the jobs and claims the directory before Hydra makes anything."""

    def __init__(
        self, stamp: str, beginning: str | None, trusted: Sequence[str] | None = None, code: str | None = None
    ) -> None:
        """stamp: tells multiruns in one sweep directory apart. beginning: directory where relative paths begin.

        Of a multirun that is resumed: trusted: what its config may name besides what is ours; null: whatever it does.
        code: where one of its runs keeps modules of the user's that are found nowhere else.
        """
        self._beginning, self._trusted, self._code = beginning, trusted, code

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Exit with one line unless all of the jobs can begin."""
        # A run that is none of a sweep's begins sooner without these.
        from eprop_cli.config.refusal import exiting
        from eprop_cli.runs.beginning import check_subdir
        from eprop_cli.sweeps.preparation import prepare

        with exiting():
            check_subdir(config.hydra)
            multirun = prepare(config, self._beginning, self._trusted, self._code)
        JobRuntime.instance().set(MULTIRUN, str(multirun.state))
