"""The reference losses of NEST and TensorFlow for the tutorial (seed 1), through every way of training."""

import csv
import os

import pytest
from small import config

from eprop_cli.runs.run import run

NEST = {
    1: [0.741152550006, 0.740388187700, 0.665785233177, 0.663644193322, 0.729428962844],
    2: [0.702163370672, 0.735555303152, 0.740354864111, 0.683882815282, 0.707841122268],
}
TENSORFLOW = [0.741152524948, 0.740388214588, 0.665785133838, 0.663644134998, 0.729429066181]
PARALLEL = ["training=data_parallel", "training.as_continuous=true"]
COMPILED = [*PARALLEL, "engine=compiled"]
WAYS = {  # overrides and n_batch
    "continuous": ([], 2),
    "without recordings on two threads": (["engine.local_num_threads=2", "recording=none"], 2),
    "parallel": (PARALLEL, 2),
    "compiled": (COMPILED, 2),
    "compiled, one sequence": (COMPILED, 1),
}


def assert_the_reference(directory, n_batch):
    with (directory / "metrics.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["phase"] == "training"]
    assert losses == pytest.approx(NEST[n_batch], rel=1e-8)
    if n_batch == 1:
        assert losses == pytest.approx(TENSORFLOW, rel=1e-6)


@pytest.mark.nest
@pytest.mark.parametrize(("way", "n_batch"), WAYS.values(), ids=WAYS)
def test_losses_are_the_reference(way, n_batch, tmp_path):
    assert run(config(*way, f"task.n_batch={n_batch}", "plots=none"), tmp_path).exit_status == 0
    assert_the_reference(tmp_path, n_batch)


@pytest.mark.nest
def test_the_command_as_it_stands_gives_them_and_says_how_to_see_it_learn(tmp_path, eprop_run):
    done = eprop_run(env=os.environ | {"MPLCONFIGDIR": str(tmp_path / "fonts"), "COLUMNS": "80"})
    assert (done.returncode, done.stderr) == (0, "")
    (table,) = tmp_path.glob("outputs/*/*/metrics.csv")
    assert_the_reference(table.parent, 1)
    last = done.stdout.splitlines()[-1]
    assert last.startswith("Five sequences teach nothing yet")
    assert "eprop-run experiment=" in last
