"""Run directories written without simulating, for tests of what reads them."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from small import compose, config

from eprop_cli.columns import rate_column
from eprop_cli.formats import FORMAT
from eprop_cli.losses import CrossEntropy, MeanSquaredError
from eprop_cli.phases import TRAINING
from eprop_cli.runs.files import COMPLETED
from eprop_cli.runs.record import describe
from eprop_cli.runs.writer import RunWriter
from eprop_cli.training.base import initial_weights, make_task
from eprop_cli.values import Row

SMOKE = ("experiment=smoke", "task.n_iter=3")
RATES = (rate_column("reg", "regular"), rate_column("ad", "adaptive"))
COLUMNS = (*(metric.column for metric in CrossEntropy().metrics(2, True)), *RATES)
REGRESSION = (*(metric.column for metric in MeanSquaredError().metrics(1, False)), *RATES)
NAMES = [column.name for column in COLUMNS]


def batch_row(iteration, phase, *values):
    """A row of evidence accumulation: loss, accuracy, recall error, two firing rates, and seconds."""
    *metrics, seconds = values
    return Row(iteration, phase, dict(zip(NAMES, metrics, strict=True)), seconds)


def regression_row(iteration, phase, *values):
    """A row of a regression: loss, nRMSE, correlation, two firing rates, and seconds."""
    *metrics, seconds = values
    return Row(iteration, phase, dict(zip([column.name for column in REGRESSION], metrics, strict=True)), seconds)


def training_rows(n, start=0.8):
    return [batch_row(i, "training", start - 0.01 * i, 0.25, 0.75, 10.0, 12.5, 0.5) for i in range(1, n + 1)]


def written_columns(columns):
    """Columns as run.json has them."""
    return [asdict(column) for column in columns]


def write_run(directory, *overrides, rows=None, status=COMPLETED, error=None, **record):
    """A run of smoke with changes; its weights rise by 0.5 pA in training, its recordings are noise."""
    given = [*SMOKE, *overrides]
    settings = config(*given)
    directory = Path(directory)
    (directory / ".hydra").mkdir(parents=True)
    (directory / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(compose(*given)))
    (directory / ".hydra" / "overrides.yaml").write_text(OmegaConf.to_yaml(given))
    origin = {"format": FORMAT, "start": "2026-01-31T12:00:00.000+00:00", "pid": 1, "host": "elsewhere"}
    writer = RunWriter(directory, origin | describe(settings) | record)
    rows = training_rows(settings.task.n_iter) if rows is None else rows
    for row in rows:
        writer.row(row)
    _write_recordings(writer, settings, [1, settings.task.n_iter])
    _write_weights(writer, settings)
    writer.finish(status, error=error, seconds={"build": 0.25, "simulate": 1.0, "other": 0.5})
    return directory


def _write_recordings(writer, settings, iterations):
    rng = np.random.RandomState(settings.seed)
    task = make_task(settings, rng)
    model = settings.model
    recordables = {p.name: p.recordables for p in model.populations} | {"out": model.readout_recordables}
    sizes = dict.fromkeys(recordables, settings.recording.n_record) | {"out": settings.task.n_out}
    for index, iteration in enumerate(iterations):
        batch = task.batch_at(rng, TRAINING, index)
        recording = {}
        for population, signals in recordables.items():
            sequence, time, neuron = (
                axis.ravel()
                for axis in np.indices((settings.task.n_batch, settings.task.sequence_steps, sizes[population]))
            )
            recording[population] = {"sequence": sequence, "time": time * 1.0, "neuron": neuron}
            recording[population] |= {signal: rng.randn(len(time)) for signal in signals}
        sequence, time, neuron = np.nonzero(batch.spikes)
        populations = np.array(["in", "reg", "ad"])[np.arange(len(time)) % 3]
        recording["spikes"] = {
            "sequence": sequence,
            "time": time * 1.0,
            "population": populations,
            "neuron": np.where(populations == "in", neuron, neuron % 10),
        }
        writer.recording(iteration, recording, batch, settings.kernel.resolution)


def _write_weights(writer, settings):
    rng = np.random.RandomState(settings.seed)
    before = initial_weights(settings, rng)
    writer.weights(before, {name: values + 0.5 for name, values in before.items()})
    changes = {
        "projection": np.array(["in_rec", "in_rec", "rec_out"]),
        "pre": np.array([1, 1, 0]),
        "post": np.array([2, 2, 1]),
        "time": np.array([250.0, 450.0, 300.0]),
        "weight": np.array([0.125, 0.25, -0.5]),
    }
    writer.weight_changes(changes)
    writer.save_weight_changes()
