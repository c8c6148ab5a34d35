"""Evidence accumulation: which side of the track had more cues?

Task of Bellec et al. (2020), Fig. 3; draw order and probabilities of NEST's tutorial on it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eprop_cli.errors import require
from eprop_cli.schema import PROBABILITY, Rule, at_least, key, one_of
from eprop_cli.tasks.base import Task, TaskConfig
from eprop_cli.values import Batch, Window

LEFT, RIGHT, RECALL, NOISE = range(4)  # groups of input neurons, in the order of the input neurons
DRAWS = ("per_step", "per_spike")
STEPS = "time steps"
NOISE_FRACTION = 4.0  # background noise neurons fire with input_spike_prob over this


@dataclass(kw_only=True)
class Steps:
    """Durations in time steps."""

    cue: int = key(at_least(1, STEPS))
    spacing: int = key(at_least(0, STEPS))
    bg_noise: int = key(at_least(0, STEPS))
    recall: int = key(at_least(1, STEPS))
    learning_window: int = key(at_least(1, STEPS))


@dataclass(kw_only=True)
class EvidenceAccumulationConfig(TaskConfig):
    """Keys of conf/task/evidence_accumulation.yaml."""

    n_input_symbols: int = key(Rule("at least 4 (left, right, recall, noise)", lambda n: n >= 4))
    n_cues: int = key(Rule("odd and at least 1, so that one side has more cues", lambda n: n >= 1 and n % 2 == 1))
    prob_group: float = key(PROBABILITY)
    input_spike_prob: float = key(PROBABILITY)
    input_draws: str = key(one_of(DRAWS))
    steps: Steps

    def __post_init__(self) -> None:
        super().__post_init__()
        symbols = self.n_input_symbols
        require(self.n_out == 2, "task.n_out", self.n_out, "must be 2 in this task, one readout per side")
        require(self.n_in % symbols == 0, "task.n_in", self.n_in, f"must be a multiple of n_input_symbols ({symbols})")
        self.check_window("task.steps.learning_window")

    @property
    def sequence_steps(self) -> int:
        """Time steps of one sequence: cues, delay, recall."""
        return self.n_cues * (self.steps.cue + self.steps.spacing) + self.steps.bg_noise + self.steps.recall

    @property
    def learning_window_steps(self) -> int:
        """Time steps of the learning window."""
        return self.steps.learning_window


class EvidenceAccumulation(Task):
    """Draws batches of cue sequences; the target is the side that had more cues."""

    Config = EvidenceAccumulationConfig
    losses = ("cross_entropy", "mean_squared_error")
    has_classes = True
    config: EvidenceAccumulationConfig

    def batch(self, rng: np.random.RandomState) -> Batch:
        """Draw sides, cues and spikes, in the tutorial's order: all sides, all cues, all spikes."""
        c = self.config
        cues = self._cues(rng)
        spikes = self._spikes(rng, cues) if c.input_draws == "per_step" else self._sparse_spikes(rng, cues)
        winners = cues.sum(axis=1) > c.n_cues // 2
        targets = np.stack([~winners, winners]).astype(np.float64)
        shape = (c.n_out, c.n_batch, c.sequence_steps)
        return Batch(spikes, np.broadcast_to(targets[:, :, None], shape), tuple(map(self._windows, cues)))

    def _cues(self, rng: np.random.RandomState) -> NDArray[np.int64]:
        """Side of each cue, int (n_batch, n_cues): 0 left, 1 right."""
        c = self.config
        # Probability that a cue is on the left, in float32 as the TensorFlow original has it.
        prob_left = np.array([c.prob_group, 1 - c.prob_group], dtype=np.float32)
        favoured = rng.choice([0, 1], c.n_batch)
        p = np.stack([prob_left[favoured], prob_left[1 - favoured]], axis=1).astype(np.float64)
        threshold = p[:, 0] / p.sum(axis=1)
        right: NDArray[np.int64] = (rng.random_sample((c.n_batch, c.n_cues)) >= threshold[:, None]).astype(np.int64)
        return right

    def _spikes(self, rng: np.random.RandomState, cues: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Draw a random number for each neuron and time step; bool (n_batch, n_steps, n_in)."""
        c = self.config
        spikes = np.empty((c.n_batch, c.sequence_steps, c.n_in), dtype=bool)
        for sequence, sides in zip(spikes, cues, strict=True):  # one sequence at a time keeps the memory small
            probabilities = self._spike_probabilities(sides)
            np.greater(probabilities, rng.random_sample(probabilities.shape), out=sequence)
        return spikes

    def _spike_probabilities(self, sides: NDArray[np.int64]) -> NDArray[np.float64]:
        """Spike probability of each input neuron in each time step, float64 (n_steps, n_in)."""
        c = self.config
        size = c.n_in // c.n_input_symbols
        probabilities = np.zeros((c.sequence_steps, c.n_in))
        for window, side in zip(self._cue_slices(), sides, strict=True):
            probabilities[window, side * size : (side + 1) * size] = c.input_spike_prob
        probabilities[-c.steps.recall :, RECALL * size : (RECALL + 1) * size] = c.input_spike_prob
        probabilities[:, NOISE * size :] = c.input_spike_prob / NOISE_FRACTION
        return probabilities

    def _sparse_spikes(self, rng: np.random.RandomState, cues: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Draw only where the next spike is: as _spikes in distribution, not in the numbers drawn."""
        c, p = self.config, self.config.input_spike_prob
        size, n_batch, n_steps = c.n_in // c.n_input_symbols, c.n_batch, c.sequence_steps
        spikes = np.zeros((n_batch, n_steps, c.n_in), dtype=bool)
        starts = np.array([window.start for window in self._cue_slices()])
        sequence, cue, step, neuron = _successes(rng, p, (n_batch, c.n_cues, c.steps.cue, size))
        spikes[sequence, starts[cue] + step, cues[sequence, cue] * size + neuron] = True
        sequence, step, neuron = _successes(rng, p, (n_batch, c.steps.recall, size))
        spikes[sequence, n_steps - c.steps.recall + step, RECALL * size + neuron] = True
        sequence, step, neuron = _successes(rng, p / NOISE_FRACTION, (n_batch, n_steps, c.n_in - NOISE * size))
        spikes[sequence, step, NOISE * size + neuron] = True
        return spikes

    def _cue_slices(self) -> list[slice]:
        steps = self.config.steps
        starts = (i * (steps.cue + steps.spacing) + steps.spacing for i in range(self.config.n_cues))
        return [slice(start, start + steps.cue) for start in starts]

    def _windows(self, sides: NDArray[np.int64]) -> tuple[Window, ...]:
        c = self.config
        cues = [
            Window("right cue" if side else "left cue", window.start, window.stop)
            for window, side in zip(self._cue_slices(), sides, strict=True)
        ]
        end = c.sequence_steps
        return (
            *cues,
            Window("recall", end - c.steps.recall, end),
            Window("learning window", end - c.steps.learning_window, end),
        )


def _successes(rng: np.random.RandomState, p: float, shape: tuple[int, ...]) -> tuple[NDArray[np.intp], ...]:
    """Indices of the successes in an array of Bernoulli trials; the gaps between them are geometric."""
    n_trials = int(np.prod(shape))
    if p == 0:
        return np.unravel_index(np.empty(0, dtype=np.intp), shape)
    expected = n_trials * p
    n_drawn, found = int(expected + 5 * np.sqrt(expected)) + 1, np.empty(0, dtype=np.int64)
    while not len(found) or found[-1] < n_trials:  # nearly always once
        last = found[-1] if len(found) else -1
        gaps = np.minimum(rng.geometric(p, n_drawn), n_trials + 1)  # they can be beyond all numbers
        found = np.concatenate([found, last + np.cumsum(gaps)])
    return np.unravel_index(found[found < n_trials], shape)
