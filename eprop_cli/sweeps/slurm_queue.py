"""Tell submitit how jobs stand by SLURM's queue: accounts are not kept everywhere, and it looks at them seldom."""

import time
from collections.abc import Iterable

from submitit import SlurmJob
from submitit.slurm.slurm import SlurmInfoWatcher

from eprop_cli.sweeps.slurm import ENDED, GONE, states

DELAY = 30  # s between two looks at most


class Queue(SlurmInfoWatcher):
    """Has a job that left no result go on until all have ended: submitit waits for no other once it hears of one."""

    def __init__(self) -> None:
        super().__init__(delay_s=DELAY)

    @classmethod
    def take_over(cls) -> "Queue":
        """Have submitit ask it, in this process."""
        SlurmJob.watcher = queue = cls()
        return queue

    def numbers(self) -> set[str]:
        """Those of the jobs and job arrays that were submitted."""
        return _numbers(self._registered)

    def update(self) -> None:
        """Look."""
        self._last_status_check = time.time()
        found = states(_numbers(self._registered - self._finished))
        if found is None or any(state not in ENDED for state, _ in found.values()):
            return
        for job in self._registered - self._finished:
            state, _ = found.get(job, (GONE, ""))
            self._info_dict[job] = {"State": state}
            self._finished.add(job)


def _numbers(jobs: Iterable[str]) -> set[str]:
    return {job.split("_")[0] for job in jobs}
