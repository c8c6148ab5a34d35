"""The phases of a run, and the order in which batches take turns in them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eprop_cli.config.groups import Training

PHASES = TRAINING, VALIDATION, EARLY_STOPPING, TEST = "training", "validation", "early-stopping", "test"


@dataclass
class Progress:
    """How far the phases have come; what a checkpoint must keep of them."""

    iteration: int = 0  # training iterations begun
    stopped: bool = False  # early
    error: float = 0.0  # recall error of the batch evaluated last


def phases(training: Training, n_iter: int, progress: Progress) -> Iterator[str]:
    """Yield the phase of each batch in turn, by the rules of NEST's 3.10 tutorial.

    progress: where to begin; its counters are kept up to date here, its error by the caller. Where that error
        lags the batch presented last, as in a continuous simulation, the rules see the lagging one, as in the tutorial.
    """
    while progress.iteration < n_iter and not progress.stopped:
        if training.do_early_stopping and progress.iteration % training.n_iter_validate_every == 0:
            yield VALIDATION
            if progress.iteration > 0 and progress.error < training.stop_crit:
                errors = []
                for _ in range(training.n_iter_early_stop):
                    yield EARLY_STOPPING
                    errors.append(progress.error)
                progress.stopped = bool(np.mean(errors) < training.stop_crit)
        progress.iteration += 1
        yield TRAINING
    for _ in range(training.n_iter_test):
        yield TEST
