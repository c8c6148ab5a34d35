"""A way of training: test the average of all weights. `training=data_parallel training.name=averaged:Averaged`."""

from collections.abc import Iterator

from eprop_cli.phases import TRAINING
from eprop_cli.training.base import Record
from eprop_cli.training.data_parallel import DataParallel
from eprop_cli.values import Checkpoint, Weights


class Averaged(DataParallel):
    """Averages over iterations (Polyak & Juditsky 1992, Acceleration of stochastic approximation by averaging)."""

    _mean: Weights | None = None

    @classmethod
    def not_resumable(cls, engine: str) -> str:
        """Whatever the engine."""
        return "the average is not kept; start again"

    def records(self) -> Iterator[Record]:
        """Train as usual; the average follows."""
        for record in super().records():
            if record.row.phase == TRAINING:
                new, n = super().weights(), record.row.iteration
                old = new if self._mean is None else self._mean
                self._mean = {name: old[name] + (new[name] - old[name]) / n for name in new}
            yield record

    def commit(self) -> Checkpoint | None:
        """There is no state to go on from."""
        return None

    def weights(self) -> Weights:
        """What is tested and kept."""
        return super().weights() if self._mean is None else self._mean
