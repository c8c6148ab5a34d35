"""A run's recordings in Neo's own file format, NIX."""

from pathlib import Path
from typing import Any

import neo
import nixio  # noqa: F401  what Neo writes NIX with
import quantities as pq

from eprop_cli.exports.recorded import Recorded, Sequence, Signal
from eprop_cli.runs.reader import Run

FILES = ("recording.nix",)


def write(run: Run, into: Path) -> None:
    """Write a block with a segment per recorded sequence: spike trains, signals, and windows as epochs."""
    recorded = Recorded(run)
    block = neo.Block(name=run.directory.resolve().name, description="times: ms since the sequence began")
    block.segments = [_segment(each, recorded.duration) for each in recorded.sequences()]
    with neo.NixIO(str(into / FILES[0]), mode="ow") as file:
        file.write_block(block)


def _segment(sequence: Sequence, duration: float) -> Any:
    numbers = {"iteration": sequence.iteration, "sequence": sequence.index}
    segment = neo.Segment(name=f"iteration {sequence.iteration}, sequence {sequence.index}", **numbers)
    for population, trains in sequence.spikes.items():
        for neuron, times in enumerate(trains):
            place: dict[str, Any] = {"population": population, "neuron": neuron}
            name = f"{population} {neuron}"
            segment.spiketrains.append(neo.SpikeTrain(times * pq.ms, t_stop=duration * pq.ms, name=name, **place))
    for signal in sequence.signals:
        segment.analogsignals.append(_signal(signal))
    windows = sequence.windows
    if len(windows):
        start = windows["start"].to_numpy(dtype=float)
        length = windows["stop"].to_numpy(dtype=float) - start
        labels = windows["kind"].astype(str).tolist()
        segment.epochs.append(neo.Epoch(start * pq.ms, length * pq.ms, labels, name="windows"))
    return segment


def _signal(signal: Signal) -> Any:
    step = float(signal.times[1] - signal.times[0]) if len(signal.times) > 1 else 1.0
    return neo.AnalogSignal(
        signal.values,
        units=pq.Quantity(1.0, signal.unit or "dimensionless"),
        t_start=float(signal.times[0]) * pq.ms,
        sampling_period=step * pq.ms,
        name=f"{signal.population} {signal.name}",
        population=signal.population,
        variable=signal.name,
        neurons=signal.neurons,
    )
