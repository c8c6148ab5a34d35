"""What numbers of a run mean nothing, told once each: weights at their bounds, silence, a loss that does not move."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eprop_cli.config.config import Config as RunConfig
from eprop_cli.connectivity.base import PLASTIC
from eprop_cli.phases import TRAINING
from eprop_cli.training.base import Record, Trainer, check_finite
from eprop_cli.values import Row, Weights

MOST_RATE = 400.0  # spikes/s, more than neurons of a brain do
MOST = 0.5  # of weights at their bounds, or of time steps in which readouts cannot go on, that nothing is learned by
MOST_MOMENT = 1e20  # of a gradient; a synapse with such a one takes no step to speak of any more
SOON = 10  # iterations, after which weights must have changed, and a loss at all
LONG, PART = 50, 5  # iterations from which on a loss must have fallen, from their first fifth to their last
SAME = 1e-6  # relative difference of losses that have not moved
SURE = 2.0  # standard errors by which means must differ, unless they do by this part
FALLEN = 0.01


@dataclass(frozen=True)
class Notice:
    """Something about a run that its numbers would hide.

    kind: what it is; of each kind there is one. iteration: training iterations done when it was seen.
    text: what is the case and what to look at, in a line.
    """

    kind: str
    iteration: int
    text: str

    def __str__(self) -> str:
        return f"iteration {self.iteration}: {self.text}"


class Diagnoses:
    """Looks at a run after each training iteration, and says what it sees once.

    notices: all so far. earlier, rows: those of a run that is resumed, and its rows until then.
    """

    def __init__(self, config: RunConfig, earlier: Iterable[Notice] = (), rows: Iterable[Row] = ()) -> None:
        self.notices = list(earlier)
        self._config = config
        self._learns = config.optimizer.eta > 0
        self._learning = tuple(name for name in PLASTIC if getattr(config.connectivity.plastic, name))
        self._labels = {f"rate_{each.name}": each.label for each in config.model.populations}
        self._losses: list[float] = []
        self._iteration = 0
        self._silent: set[str] = set()  # populations, in the iteration before
        for row in rows:
            self._of_row(row)

    def look(self, record: Record, trainer: Trainer) -> list[Notice]:
        """What is new in a record; raises TrainingError for weights that nothing can be computed with."""
        n = len(self.notices)
        if record.row.phase != TRAINING:
            return []
        self._of_row(record.row)
        if record.at_limit >= MOST:
            self._of_readouts(record.at_limit)
        if self._iteration % trainer.look_every == 0:
            self._of_synapses(trainer, trainer.present())
        return self.notices[n:]

    def conclude(self, trainer: Trainer) -> list[Notice]:
        """What is new now that training is over."""
        n = len(self.notices)
        if self._iteration:
            weights = trainer.present()
            self._of_synapses(trainer, weights)
            self._of_changes(trainer.initial, weights)
            self._of_the_whole_loss()
        return self.notices[n:]

    def _add(self, kind: str, text: str) -> None:
        if all(notice.kind != kind for notice in self.notices):
            self.notices.append(Notice(kind, self._iteration, text))

    def _of_row(self, row: Row) -> None:
        if row.phase != TRAINING:
            return
        self._iteration = row.iteration
        self._losses.append(row.metrics["loss"])
        rates = {label: row.metrics[name] for name, label in self._labels.items()}
        silent = {label for label, rate in rates.items() if rate == 0}
        if lasting := [label for label in rates if label in silent and (label in self._silent or row.iteration == 1)]:
            remedy = "raise synapse.weight_scale or lower neuron.*.V_th; a neuron that never fires learns nothing"
            self._add("silent", f"no {' or '.join(lasting)} neuron fires; {remedy}")
        self._silent = silent
        if fast := {label: rate for label, rate in rates.items() if rate > MOST_RATE}:
            told = _listed([f"{rate:.0f} spikes/s ({label})" for label, rate in fast.items()])
            remedy = "see neuron.*.t_ref and V_th, synapse.weight_scale and c_reg"
            self._add("fast", f"neurons fire nearly without pause, {told}; {remedy}")
        if self._learns and len(self._losses) == SOON and _range(self._losses) <= SAME * abs(self._losses[0]):
            text = f"the training loss has not moved in {SOON} iterations; raise optimizer.eta, or see the firing rates"
            self._add("loss", text)

    def _of_readouts(self, fraction: float) -> None:
        told = f"in {fraction:.0%} of the learning window"
        if self._config.loss.softmax and getattr(self._config.neuron.out, "V_min", None) is None:
            remedy = "nothing can be learned there; lower optimizer.eta, or see the weights onto readouts"
            self._add("saturated", f"the readouts' softmax is exactly 0 or 1 {told}; {remedy}")
        else:
            remedy = "raise neuron.out.V_min, or set it to null"
            self._add("saturated", f"the readouts are clamped at V_min {told}; {remedy}")

    def _of_synapses(self, trainer: Trainer, weights: Weights) -> None:
        check_finite(weights, self._learning, f" by iteration {self._iteration}")
        optimizer = self._config.optimizer
        bound = {}
        for name in self._learning:
            low, high = optimizer.bounds_of(name)
            at = np.count_nonzero((weights[name] <= low) | (weights[name] >= high))
            bound[name] = at / max(1, weights[name].size)
        if at_bounds := [f"{name} ({part:.0%})" for name, part in bound.items() if part >= MOST]:
            remedy = "lower optimizer.eta, or widen its Wmin and Wmax or bounds"
            self._add("bounds", f"most weights are at their bounds, of {_listed(at_bounds)}; {remedy}")
        if self._iteration == SOON:
            self._of_changes(trainer.initial, weights)
        moments = trainer.moments().values()
        frozen = {
            name: sum(np.count_nonzero(~(np.abs(each[name]) < MOST_MOMENT)) for each in moments)
            for name in self._learning
        }
        if counts := [name for name, count in frozen.items() if count]:
            remedy = "lower neuron.*.tau_m, or set optimizer.clip_norm"
            text = f"synapses of {_listed(counts)} learn no more, as their gradients were all but infinite; {remedy}"
            self._add("frozen", text)

    def _of_changes(self, before: Weights, after: Weights) -> None:
        if (
            self._learns
            and self._learning
            and all(np.array_equal(before[name], after[name]) for name in self._learning)
        ):
            eta = self._config.optimizer.eta
            text = f"no weight has changed; raise optimizer.eta ({eta:g}), or see whether neurons fire"
            self._add("unchanged", text)

    def _of_the_whole_loss(self) -> None:
        losses, n = self._losses, len(self._losses) // PART
        # Weights that were trained before may have nothing left to learn.
        if not self._learns or len(losses) < LONG or self._config.synapse.weights_from is not None:
            return
        first, last = np.array(losses[:n]), np.array(losses[-n:])
        error = math.sqrt((first.var(ddof=1) + last.var(ddof=1)) / n)
        if first.mean() - last.mean() <= min(SURE * error, FALLEN * abs(first.mean())):
            means = f"{first.mean():.4g} in the first {n} iterations, {last.mean():.4g} in the last"
            remedy = "see optimizer.eta, the firing rates and the figure of the weights"
            self._add("loss", f"the training loss has not fallen ({means}); {remedy}")


def recorded(notices: Iterable[Notice]) -> list[dict[str, Any]]:
    """Notices as run.json has them."""
    return [asdict(notice) for notice in notices]


def before(entries: Iterable[Mapping[str, Any]], iteration: int) -> list[Notice]:
    """Those among the entries of a run.json that were seen until an iteration."""
    return [Notice(**entry) for entry in entries if entry["iteration"] <= iteration]


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
