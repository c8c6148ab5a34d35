"""What weights have to keep to while they change: which of them learn, Dale's law, and symmetric feedback."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eprop_cli.connectivity.base import FEEDBACK, PLASTIC, clear, ends
from eprop_cli.connectivity.mask import Wiring
from eprop_cli.connectivity.projections import SYMMETRIC, Connectivity
from eprop_cli.errors import require
from eprop_cli.values import Weights

EXCITATORY, INHIBITORY = 1.0, -1.0


@dataclass(frozen=True)
class Constraints:
    """The constraints of a config.

    stretches: of neurons of in and rec: start, stop, sign of their outgoing weights.
    """

    connectivity: Connectivity
    stretches: Mapping[str, tuple[tuple[int, int, float], ...]]
    wiring: Wiring

    @cached_property
    def learning(self) -> tuple[str, ...]:
        """The projections whose weights change."""
        return tuple(name for name in PLASTIC if getattr(self.connectivity.plastic, name))

    @property
    def none(self) -> bool:
        """Whether all weights learn and may become anything; feedback stays as it is."""
        return self.learning == PLASTIC and not self.stretches and self.connectivity.feedback != SYMMETRIC

    def begin(self, weights: Weights) -> Weights:
        """Weights that were drawn, with the signs that they are to have.

        Inhibitory ones grow by the factor by which there are fewer of them, so that both balance.
        """
        for population, stretches in self.stretches.items():
            n = {sign: sum(stop - start for start, stop, s in stretches if s == sign) for sign in (1.0, -1.0)}
            factor = n[EXCITATORY] / n[INHIBITORY] if n[EXCITATORY] and n[INHIBITORY] else 1.0
            for projection in _from(population):
                for start, stop, sign in stretches:
                    part = self._part(weights, projection, start, stop)
                    np.multiply(np.abs(part), factor * sign if sign < 0 else sign, out=part)
        return self.keep(clear(weights))

    def check(self, weights: Weights, source: str) -> None:
        """Raise ConfigError for trained weights that have other signs."""
        for population, stretches in self.stretches.items():
            for projection in _from(population):
                parts = [(self._part(weights, projection, start, stop), sign) for start, stop, sign in stretches]
                kept = all(bool((part * sign >= 0).all()) for part, sign in parts)
                constraint = f"has weights of {projection} with both signs from one neuron; leave"
                constraint += f" connectivity.excitatory_fraction.{NAMES[population]} out"
                require(kept, "synapse.weights_from", source, constraint)

    def keep(self, weights: Weights) -> Weights:
        """Set what has left its bounds back onto them, in place; returns the weights."""
        for population, stretches in self.stretches.items():
            for projection in _from(population):
                for start, stop, sign in stretches:
                    part = self._part(weights, projection, start, stop)
                    (np.maximum if sign > 0 else np.minimum)(part, 0.0, out=part)
        if self.connectivity.feedback == SYMMETRIC:
            forward = weights["rec_out"]
            weights[FEEDBACK] = np.ascontiguousarray(forward.T) if self._order is None else forward[self._order]
        return weights

    @cached_property
    def _order(self) -> NDArray[np.int64] | None:
        """The order in which the feedback takes the values of rec_out; None of matrices."""
        mask = self.wiring["rec_out"]
        return None if mask.is_dense else mask.transposed()[1]

    def _part(self, weights: Weights, projection: str, start: int, stop: int) -> NDArray[np.float64]:
        """The weights from some neurons, as a view."""
        values, mask = weights[projection], self.wiring[projection]
        if mask.row is None:
            return values[:, start:stop]
        return values[mask.row[start] : mask.row[stop]]


def make_constraints(
    connectivity: Connectivity, populations: Mapping[str, Mapping[str, int]], wiring: Wiring
) -> Constraints:
    """The constraints of a network. populations: of in and rec, sizes by name; each has its share of either sign."""
    stretches = {}
    for population, sizes in populations.items():
        fraction = getattr(connectivity.excitatory_fraction, NAMES[population])
        if fraction is None:
            continue
        begin, found = 0, []
        for size in sizes.values():
            middle = begin + round(fraction * size)
            found += [(begin, middle, EXCITATORY), (middle, begin + size, INHIBITORY)]
            begin += size
        stretches[population] = tuple(found)
    return Constraints(connectivity, stretches, wiring)


NAMES = {"in": "inputs", "rec": "recurrent"}


def _from(population: str) -> tuple[str, ...]:
    return tuple(name for name in PLASTIC if ends(name)[0] == population)
