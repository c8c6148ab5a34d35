"""The phases of a run, and the order in which batches take turns in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

PHASES = TRAINING, VALIDATION, EARLY_STOPPING, TEST = "training", "validation", "early-stopping", "test"


class Plan(Protocol):
    """When to validate, stop and test: what phases() needs of a training config."""

    do_early_stopping: bool
    n_iter_validate_every: int
    n_iter_early_stop: int
    n_iter_test: int


@dataclass
class Progress:
    """How far the phases have come; what a checkpoint must keep of them."""

    iteration: int = 0  # training iterations begun
    stopped: bool = False  # early
    metric: float = 0.0  # training.stop_metric of the batch evaluated last


@dataclass(frozen=True)
class Criterion:
    """When a metric is good enough: below crit, or above it where higher is better."""

    crit: float
    higher_is_better: bool = False

    def met(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value > self.crit if self.higher_is_better else value < self.crit


def phases(plan: Plan, criterion: Criterion, n_iter: int, progress: Progress) -> Iterator[str]:
    """Yield the phase of each batch in turn, by the rules of NEST's 3.10 tutorial.

    progress: where to begin; its counters are kept up to date here, its metric by the caller. Where that metric
        lags the batch presented last, as in a continuous simulation, the rules see the lagging one, as in the tutorial.
    """
    while progress.iteration < n_iter and not progress.stopped:
        if plan.do_early_stopping and progress.iteration % plan.n_iter_validate_every == 0:
            yield VALIDATION
            if progress.iteration > 0 and criterion.met(progress.metric):
                values = []
                for _ in range(plan.n_iter_early_stop):
                    yield EARLY_STOPPING
                    values.append(progress.metric)
                progress.stopped = criterion.met(fmean(values))
        progress.iteration += 1
        yield TRAINING
    for _ in range(plan.n_iter_test):
        yield TEST
