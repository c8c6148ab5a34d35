"""What was recorded of a run, as formats of the field take it: spike trains, and signals with units."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from omegaconf import OmegaConf

from eprop_cli.config.config import Config
from eprop_cli.config.foreign import check_foreign, trusted
from eprop_cli.config.load import load
from eprop_cli.errors import UserError
from eprop_cli.losses import CrossEntropy
from eprop_cli.runs.allowed import allow
from eprop_cli.runs.reader import NeuronGroup, Run

UNITS = {
    "V_m": "mV",
    "V_th_adapt": "mV",
    "adaptation": "",
    "surrogate_gradient": "1/mV",
    "learning_signal": "pA",
    "readout_signal_unnorm": "",
}
SIGNALS = ("readout_signal", "target_signal", "error_signal")  # mV, or probabilities
PLACE = ("sequence", "time", "neuron")


@dataclass(frozen=True)
class Signal:
    """A dynamic variable of the recorded neurons of a population in one sequence.

    unit: mV, pA, 1/mV, or empty. times: float64 (n_times,), ms since the sequence began. values: float64 (n_times,
    n_neurons). neurons: their indices within the population.
    """

    population: str
    name: str
    unit: str
    times: NDArray[np.float64]
    values: NDArray[np.float64]
    neurons: list[int]


@dataclass(frozen=True)
class Sequence:
    """A recorded sequence. spikes: times (ms) of each neuron of each population that spikes were recorded of."""

    iteration: int
    index: int
    spikes: dict[str, list[NDArray[np.float64]]]
    signals: list[Signal]
    windows: pd.DataFrame


def typed(config: dict[str, Any]) -> Config:
    """A run's config in its typed form; raises UserError if this version cannot read it, or it names what is not ours.

    Modules of users' own are taken that were allowed in this project, as by eprop-run --allow-module.
    """
    check_foreign(config, trusted(allow(()), ()))
    return load(OmegaConf.create({"report": False} | config))  # runs begun before there was the key lack it


class Recorded:
    """All that was recorded of a run; raises UserError if that is nothing."""

    def __init__(self, run: Run) -> None:
        self.run = run
        if not run.recorded:
            raise UserError(f"{run.directory}: no iteration was recorded, so there are no spikes and dynamic variables")

    @cached_property
    def duration(self) -> float:
        """Of a sequence, in ms."""
        timing = typed(self.run.config).timing
        return timing.ms(timing.sequence)

    def sequences(self) -> Iterator[Sequence]:
        """The sequences of the recorded iterations, in their order."""
        populations = self.run.populations
        softmax = self.run.record["loss"]["name"] == CrossEntropy.name
        for iteration in self.run.recorded:
            tables = self.run.recording(iteration)
            found = {int(index) for table in tables.values() for index in table["sequence"].unique()}
            for index in sorted(found):
                own = {name: table[table["sequence"] == index] for name, table in tables.items()}
                windows = own.pop("windows", pd.DataFrame(columns=["kind", "start", "stop"]))
                spikes = _trains(own.pop("spikes"), populations) if "spikes" in own else {}
                signals = [each for name, table in own.items() for each in _signals(name, table, softmax)]
                yield Sequence(iteration, index, spikes, signals, windows)


def _trains(table: pd.DataFrame, populations: list[NeuronGroup]) -> dict[str, list[NDArray[np.float64]]]:
    groups = {key: rows["time"].to_numpy() for key, rows in table.groupby(["population", "neuron"], observed=True)}
    return {
        each.name: [np.asarray(groups.get((each.name, neuron), []), dtype=np.float64) for neuron in range(each.size)]
        for each in populations
    }


def _signals(population: str, table: pd.DataFrame, softmax: bool) -> Iterator[Signal]:
    for name in [column for column in table.columns if column not in PLACE]:
        values = table.pivot(index="time", columns="neuron", values=name)
        unit = ("" if softmax else "mV") if name in SIGNALS else UNITS.get(name)
        if unit is None:
            raise UserError(f"{population}: the unit of {name} is not known, and the format needs one")
        times = np.asarray(values.index, dtype=np.float64)
        yield Signal(population, name, unit, times, values.to_numpy(dtype=np.float64), list(map(int, values.columns)))
