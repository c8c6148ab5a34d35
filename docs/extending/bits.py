"""A loss: cross-entropy in bits, with one more metric. `neuron.out.loss=bits:Bits`."""

import math

import numpy as np

from eprop_cli.columns import HIGHER, Column
from eprop_cli.losses import CrossEntropy, Metric, Signal


def confidence(readout: Signal, target: Signal) -> float:
    """Mean probability of the readout that should win."""
    return float(np.mean(np.sum(readout * target, axis=0)))


class Bits(CrossEntropy):
    """Cross-entropy to base 2: 1 is chance between two readouts."""

    name, unit = "bits", "bits"

    @staticmethod
    def value(readout: Signal, target: Signal) -> float:
        """Nats to bits."""
        return CrossEntropy.value(readout, target) / math.log(2.0)

    def metrics(self, n_out: int, has_classes: bool) -> tuple[Metric, ...]:
        """The usual columns and confidence."""
        column = Column("confidence", "probability of the right readout", better=HIGHER, least=0.0, most=1.0)
        return (*super().metrics(n_out, has_classes), Metric(column, confidence))
