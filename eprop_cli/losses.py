"""Losses, with the metrics that each brings: pure functions of readout and target signals.

Every function takes readout, target: float64 (n_out, n_batch, n_steps), restricted to the learning window.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from eprop_cli.columns import HIGHER, LOWER, Column

Signal = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A column, and how it is computed from readout and target signals."""

    column: Column
    value: Callable[[Signal, Signal], float]


class Loss:
    """What training makes small. The learning signal of e-prop is readout - target, whichever link is chosen.

    softmax: whether the readout signals are the softmax of the readouts' potentials, or these themselves.
    needs_classes: whether targets must be probabilities that add up to 1.
    symbols: of the target, readout and error signal on the axes of figures.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    unit: ClassVar[str] = ""
    softmax: ClassVar[bool]
    needs_classes: ClassVar[bool] = False
    symbols: ClassVar[dict[str, str]]

    @staticmethod
    def value(readout: Signal, target: Signal) -> float:
        """The loss of a batch."""
        raise NotImplementedError

    def metrics(self, n_out: int, has_classes: bool) -> tuple[Metric, ...]:
        """The loss and what else is worth knowing. has_classes: whether the task asks which readout is the largest."""
        loss = Metric(Column("loss", self.label, self.unit, LOWER), self.value)
        return (loss, *(CLASSIFICATION if has_classes else regression(self, n_out)))


class CrossEntropy(Loss):
    """Cross-entropy of a softmax over the readouts (Bellec et al. 2020, Methods)."""

    name, label, softmax, needs_classes = "cross_entropy", "cross-entropy", True, True
    symbols: ClassVar = {"target": "$\\pi_k^*$", "readout": "$\\pi_k$", "error": "$\\pi_k-\\pi_k^*$"}

    @staticmethod
    def value(readout: Signal, target: Signal) -> float:
        """Mean over batch and time of -sum_k pi*_k log pi_k (NEST's tutorial; Bellec et al. 2020, Methods)."""
        # A softmax can saturate to exactly 0; where the target is 0 too, the term is 0, else the loss is infinite.
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(target == 0, 0.0, target * np.log(readout))
        return float(-np.mean(np.sum(terms, axis=0)))


class MeanSquaredError(Loss):
    """Half the squared error of the readouts' potentials."""

    name, label, unit, softmax = "mean_squared_error", "squared error", "mV² steps", False
    symbols: ClassVar = {"target": "$y_k^*$ (mV)", "readout": "$y_k$ (mV)", "error": "$y_k-y_k^*$ (mV)"}

    @staticmethod
    def value(readout: Signal, target: Signal) -> float:
        """Half the squared error, summed over time, averaged over readouts and batch (NEST's regression tutorials)."""
        return float(0.5 * np.mean(np.sum((readout - target) ** 2, axis=2)))


def accuracy(readout: Signal, target: Signal) -> float:
    """Fraction of sequences in which the readout that is largest on average is the one that should be."""
    return float(np.mean(readout.mean(axis=2).argmax(axis=0) == target.mean(axis=2).argmax(axis=0)))


def recall_error(readout: Signal, target: Signal) -> float:
    """Fraction of sequences in which another readout is the largest."""
    return 1.0 - accuracy(readout, target)


def confusion(readout: Signal, target: Signal) -> NDArray[np.int64]:
    """How many sequences of each class were taken for which, int (n_out, n_out): actual, then predicted class."""
    counts = np.zeros((len(readout),) * 2, dtype=np.int64)
    np.add.at(counts, (target.mean(axis=2).argmax(axis=0), readout.mean(axis=2).argmax(axis=0)), 1)
    return counts


def nrmse(readout: Signal, target: Signal) -> float:
    """Root of the mean squared error over the target's standard deviation; 1 is what a constant at its mean gives.

    Of several readouts the root mean square of theirs; those whose target is constant are left out.
    """
    error = np.mean((readout - target) ** 2, axis=(1, 2))
    variance = np.var(target, axis=(1, 2))
    varies = variance > 0
    return float(np.sqrt(np.mean(error[varies] / variance[varies]))) if varies.any() else 0.0


def correlation(readout: Signal, target: Signal) -> float:
    """Pearson's correlation of readout and target over batch and time, averaged over readouts; 0 if one is constant."""
    y, t = (values.reshape(len(values), -1) for values in (readout, target))
    y, t = y - y.mean(axis=1, keepdims=True), t - t.mean(axis=1, keepdims=True)
    norm = np.sqrt(np.sum(y**2, axis=1) * np.sum(t**2, axis=1))
    shared = np.sum(y * t, axis=1)
    return float(np.mean(np.divide(shared, norm, out=np.zeros_like(norm), where=norm > 0)))


CLASSIFICATION = (
    Metric(Column("accuracy", "accuracy", "fraction of sequences", HIGHER, 0.0, 1.0), accuracy),
    Metric(Column("recall_error", "recall error", "fraction of sequences", LOWER, 0.0, 1.0), recall_error),
)


def regression(loss: Loss, n_out: int) -> tuple[Metric, ...]:
    """The loss of each readout where there are several, and what compares across tasks."""
    several = range(n_out) if n_out > 1 else ()
    each = [
        Metric(Column(f"loss_{k}", f"{loss.label}, readout {k}", loss.unit, LOWER), partial(_of_readout, loss.value, k))
        for k in several
    ]
    return (
        *each,
        Metric(Column("nrmse", "nRMSE", "of the target's std", LOWER, 0.0), nrmse),
        Metric(Column("correlation", "correlation with the target", "", HIGHER, -1.0, 1.0), correlation),
    )


def firing_rate(n_spikes: float, n_neurons: int, duration: float) -> float:
    """Mean firing rate in spikes/s of n_neurons that fired n_spikes in duration ms."""
    return n_spikes / (n_neurons * duration) * 1000.0


def _of_readout(value: Callable[[Signal, Signal], float], k: int, readout: Signal, target: Signal) -> float:
    return value(readout[k : k + 1], target[k : k + 1])
