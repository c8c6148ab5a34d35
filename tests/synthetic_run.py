"""Run directories written without simulating, for tests of what reads them."""

from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from small import compose

from eprop_cli.config.load import load
from eprop_cli.models.bsshslm_2020 import RECORDABLES
from eprop_cli.runs.files import COMPLETED
from eprop_cli.runs.writer import RunWriter
from eprop_cli.schema import to_dict
from eprop_cli.tasks import make_task
from eprop_cli.training.base import initial_weights
from eprop_cli.values import Row

SMOKE = ("experiment=smoke", "task.n_iter=3")


def training_rows(n, start=0.8):
    return [Row(i, "training", start - 0.01 * i, 0.25, 0.75, 10.0, 12.5, 0.5) for i in range(1, n + 1)]


def write_run(directory, *overrides, rows=None, status=COMPLETED, error=None, **record):
    """A run of smoke with changes; its weights rise by 0.5 pA in training, its recordings are noise."""
    given = [*SMOKE, *overrides]
    composed = compose(*given)
    config = load(composed)
    directory = Path(directory)
    (directory / ".hydra").mkdir(parents=True)
    (directory / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(composed))
    (directory / ".hydra" / "overrides.yaml").write_text(OmegaConf.to_yaml(given))
    origin = {"start": "2026-01-31T12:00:00.000+00:00", "seed": config.seed, "pid": 1, "host": "elsewhere"}
    writer = RunWriter(directory, origin | {"config": to_dict(config)} | record)
    rows = training_rows(config.task.n_iter) if rows is None else rows
    for row in rows:
        writer.row(row)
    _write_recordings(writer, config, [1, config.task.n_iter])
    _write_weights(writer, config)
    writer.finish(status, error=error, seconds={"build": 0.25, "simulate": 1.0, "other": 0.5})
    return directory


def _write_recordings(writer, config, iterations):
    rng = np.random.RandomState(config.seed)
    task = make_task(config.task)
    sizes = {"reg": config.recording.n_record, "ad": config.recording.n_record, "out": config.task.n_out}
    for iteration in iterations:
        batch = task.batch(rng)
        recording = {}
        for population, signals in RECORDABLES.items():
            sequence, time, neuron = (
                axis.ravel()
                for axis in np.indices((config.task.n_batch, config.task.sequence_steps, sizes[population]))
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
        writer.recording(iteration, recording, batch, config.kernel.resolution)


def _write_weights(writer, config):
    rng = np.random.RandomState(config.seed)
    before = initial_weights(config, rng)
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
