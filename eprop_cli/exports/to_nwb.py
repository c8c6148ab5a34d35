"""A run's recordings in Neurodata Without Borders: sequences are trials on the task's time."""

from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pynwb import NWBHDF5IO, NWBFile, TimeSeries

from eprop_cli.exports.recorded import Recorded, Sequence, Signal
from eprop_cli.runs.reader import Run

FILES = ("recording.nwb",)
SI = {"mV": ("volts", 1e-3), "pA": ("amperes", 1e-12), "1/mV": ("1/volts", 1e3), "": ("1", 1.0)}
MS = 1e-3  # s


def write(run: Run, into: Path) -> None:
    """Write units (neurons) with their spikes, a time series per dynamic variable, trials (sequences) and windows."""
    recorded = Recorded(run)
    record, config = run.record, run.config
    file = NWBFile(
        session_description="Recorded sequences of a training run with e-prop, simulated; its config is in notes",
        identifier=f"{record.get('host')} {record.get('start')} {run.directory.resolve().name}",
        session_start_time=datetime.fromisoformat(str(record["start"])),
        notes="\n".join(f"{key}: {value}" for key, value in config.items()),
        source_script="eprop-export --to nwb",
        source_script_file_name="eprop-export",
    )
    sequences = list(recorded.sequences())
    per_batch = int(config["task"]["n_batch"])
    starts = [((each.iteration - 1) * per_batch + each.index) * recorded.duration for each in sequences]
    _add_trials(file, sequences, starts, recorded.duration)
    _add_units(file, sequences, starts, recorded.duration)
    _add_signals(file, sequences, starts)
    with NWBHDF5IO(into / FILES[0], "w") as output:
        output.write(file)


def _add_trials(file: Any, sequences: list[Sequence], starts: list[float], duration: float) -> None:
    file.add_trial_column("iteration", "training iteration, from 1")
    file.add_trial_column("sequence", "index in the batch")
    windows = [
        (start, row) for start, each in zip(starts, sequences, strict=True) for row in each.windows.to_dict("records")
    ]
    for start, each in zip(starts, sequences, strict=True):
        stop = start + duration
        file.add_trial(start_time=start * MS, stop_time=stop * MS, iteration=each.iteration, sequence=each.index)
    if windows:
        file.add_epoch_column("kind", "what the stretch is, such as a cue")
        for start, row in windows:
            begin, end = (start + float(row[name]) for name in ("start", "stop"))
            file.add_epoch(start_time=begin * MS, stop_time=end * MS, kind=str(row["kind"]))


def _add_units(file: Any, sequences: list[Sequence], starts: list[float], duration: float) -> None:
    trains: dict[tuple[str, int], list[Any]] = defaultdict(list)
    seen: dict[tuple[str, int], list[list[float]]] = defaultdict(list)
    for start, each in zip(starts, sequences, strict=True):
        for population, neurons in each.spikes.items():
            for neuron, times in enumerate(neurons):
                trains[population, neuron].append(start + times)
                seen[population, neuron].append([start * MS, (start + duration) * MS])
    if trains:
        file.add_unit_column("population", "in: input; others as in the run")
        file.add_unit_column("neuron", "index within the population")
    for (population, neuron), parts in trains.items():
        times = np.concatenate(parts) * MS
        intervals = np.array(seen[population, neuron])
        file.add_unit(spike_times=times, obs_intervals=intervals, population=population, neuron=neuron)


def _add_signals(file: Any, sequences: list[Sequence], starts: list[float]) -> None:
    found: dict[tuple[str, str], list[tuple[float, Signal]]] = defaultdict(list)
    for start, each in zip(starts, sequences, strict=True):
        for signal in each.signals:
            found[signal.population, signal.name].append((start, signal))
    for (population, name), parts in found.items():
        unit, conversion = SI[parts[0][1].unit]
        neurons = ", ".join(map(str, parts[0][1].neurons))
        series = TimeSeries(
            name=f"{population}_{name}",
            description=f"{name} of the neurons {neurons} of population {population}, a column each",
            data=np.concatenate([signal.values for _, signal in parts]),
            timestamps=np.concatenate([start + signal.times for start, signal in parts]) * MS,
            unit=unit,
            conversion=conversion,
        )
        file.add_acquisition(series)
