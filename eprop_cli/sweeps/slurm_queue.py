"""Tell submitit how jobs stand by SLURM's queue: accounts are not kept everywhere, and it looks at them seldom."""

import time
from collections.abc import Iterable

from submitit import SlurmJob
from submitit.slurm.slurm import SlurmInfoWatcher

from eprop_cli.sweeps.slurm import GONE, Queued, look

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

    @classmethod
    def of_submitit(cls) -> "Queue":
        """The one that has taken over."""
        assert isinstance(SlurmJob.watcher, cls)
        return SlurmJob.watcher

    def numbers(self) -> set[str]:
        """Those of the jobs and job arrays that were submitted."""
        return _numbers(self._registered)

    def update(self) -> None:
        """Look."""
        self._last_status_check = time.time()
        found = look(_numbers(self._registered - self._finished))
        if found is None or any(job.goes_on for job in found.values()):
            return
        for job in self._registered - self._finished:
            self._info_dict[job] = {"State": found.get(job, Queued(GONE, "")).state}
            self._finished.add(job)


def _numbers(jobs: Iterable[str]) -> set[str]:
    return {job.split("_")[0] for job in jobs}
