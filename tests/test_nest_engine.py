import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from small import BARE, SMALL, Here, config

from eprop_cli.connectivity.base import PLASTIC
from eprop_cli.connectivity.mask import all_dense
from eprop_cli.engines.nest import engine as nest_engine
from eprop_cli.engines.nest import workers
from eprop_cli.engines.nest.engine import ETA, REPORTING, NestEngine
from eprop_cli.engines.nest.kernel import start_kernel
from eprop_cli.engines.nest.network import build_network, force_final_update, present, read_weights
from eprop_cli.errors import TrainingError
from eprop_cli.training.base import initial_weights, make_task, make_trainer

pytestmark = pytest.mark.nest

PARALLEL = (*SMALL, *BARE, "training=data_parallel", "training.n_iter_test=1")
ACTIVE = ("task.input_spike_prob=1", "neuron.rec.t_ref=1", "synapse.weight_scale.in_rec=10")


def first_batch(*overrides):
    """A config, initial weights and the first training batch."""
    settings = config(*PARALLEL, *overrides)
    rng = np.random.RandomState(settings.seed)
    return settings, initial_weights(settings, rng), make_task(settings, rng).batch_at(rng, "training", 0)


def train(*overrides):
    """Rows without their seconds, and weights."""
    trainer = make_trainer(config(*PARALLEL, *overrides))
    try:
        rows = [{**record.row.flat(), "seconds": None} for record in trainer.records()]
    finally:
        trainer.close()
    return rows, trainer.weights()


def assert_same(found, expected):
    """Rows and weights bit for bit."""
    assert found[0] == expected[0]
    for projection, weights in expected[1].items():
        np.testing.assert_array_equal(found[1][projection], weights, err_msg=projection)


# Batches of 3: as many workers as sequences is the most there can be.
TWENTY = ("task.n_batch=3", "task.n_iter=20")


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same(monkeypatch):
    given = [*TWENTY, "training.as_continuous=true"]
    with monkeypatch.context() as patch:
        patch.setattr(nest_engine, "Workers", Here)
        expected = train(*given)
    assert len({row["loss"] for row in expected[0]}) == 21
    for n_workers in (2, 3):
        assert_same(train(*given, f"engine.n_workers={n_workers}"), expected)


def test_any_number_of_shares_gives_the_same(nest_here):
    expected = train(*TWENTY)
    for n_workers in (2, 3):
        assert_same(train(*TWENTY, f"engine.n_workers={n_workers}"), expected)


def test_shares_are_of_neighbours_in_the_batchs_order(monkeypatch):
    shares = []

    class Looking(Here):
        def map(self, function, items, builds):
            shares.extend(len(item.sequences) for item in items)
            shares.append(builds)
            return super().map(function, items, builds)

    monkeypatch.setattr(nest_engine, "Workers", Looking)
    settings, weights, batch = first_batch("task.n_batch=5", "engine.n_workers=2")
    outcome = NestEngine(settings).evaluate(weights, batch)
    assert shares == [3, 2, 3]
    monkeypatch.setattr(nest_engine, "Workers", Here)
    alone, _, _ = first_batch("task.n_batch=5")
    np.testing.assert_array_equal(outcome.readout, NestEngine(alone).evaluate(weights, batch).readout)


@pytest.mark.parametrize("overrides", [(), ACTIVE], ids=["initial", "very active"])
def test_gradients_do_not_depend_on_how_they_are_read(overrides, nest_here):
    settings, weights, batch = first_batch(*overrides)
    gradients = NestEngine(settings).gradient(weights, batch, None, False).gradients
    nest = start_kernel(settings)
    wiring = all_dense(settings.sizes)
    network = build_network(nest, settings, wiring, weights, REPORTING, dynamics=False)
    present(network, batch, 0)
    force_final_update(network, network.timing.sequence)
    nest.Simulate(network.timing.ms(network.timing.sequence + network.timing.lead))
    updated = read_weights(nest, network, wiring, weights)
    for projection in PLASTIC:
        np.testing.assert_array_equal(gradients[projection], (weights[projection] - updated[projection]) / ETA)
        assert np.isfinite(gradients[projection]).all()
        assert gradients[projection].any()


def test_a_gradient_is_the_mean_of_its_sequences(nest_here):
    settings, weights, batch = first_batch("task.n_batch=3")
    together = NestEngine(settings).gradient(weights, batch, None, False)
    settings.task.n_batch = 1
    alone = [
        NestEngine(settings).gradient(weights, nest_engine._sequence(batch, index), None, False) for index in range(3)
    ]
    for projection in PLASTIC:
        mean = sum(outcome.gradients[projection] for outcome in alone) / 3
        np.testing.assert_array_equal(together.gradients[projection], mean)
    np.testing.assert_array_equal(together.readout, np.concatenate([outcome.readout for outcome in alone], axis=1))


def test_a_batch_leaves_no_trace_in_the_next(nest_here):
    settings, weights, batch = first_batch("task.n_batch=2", *ACTIVE)
    engine = NestEngine(settings)
    first, evaluated = engine.gradient(weights, batch, None, False), engine.evaluate(weights, batch)
    again = engine.gradient(weights, batch, None, False)
    for projection in PLASTIC:
        np.testing.assert_array_equal(again.gradients[projection], first.gradients[projection])
    np.testing.assert_array_equal(evaluated.readout, engine.evaluate(weights, batch).readout)


def test_weights_are_recorded_across_both_populations():
    trainer = make_trainer(
        config(*SMALL, "task.n_iter=2", "recording.n_record_w=6")
    )  # of 4 regular, 4 adaptive neurons
    changes = [record.weight_changes for record in trainer.records()]
    found = {}
    for table in changes:
        columns = (table[key] for key in ("projection", "pre", "post", "weight"))
        found |= {(str(name), int(pre), int(post)): weight for name, pre, post, weight in zip(*columns, strict=True)}
    assert {post for name, _, post in found if name == "in_rec"} == set(range(6))
    assert {pre for name, pre, _ in found if name == "rec_out"} == set(range(6))
    weights = trainer.weights()
    assert all(weight == weights[name][post, pre] for (name, pre, post), weight in found.items())


def test_what_nest_refuses_is_told_in_one_line(nest_here):
    settings, weights, batch = first_batch()
    settings.neuron.reg.t_ref = -1.0
    with pytest.raises(TrainingError, match=r"^NEST: .* t_ref ≥ 0 required\.$"):
        NestEngine(settings).evaluate(weights, batch)


def test_a_worker_that_dies_changes_nothing(monkeypatch, caplog):
    given = ["task.n_batch=2", "task.n_iter=3", "engine.n_workers=2"]
    with monkeypatch.context() as patch:
        patch.setattr(nest_engine, "Workers", Here)
        expected = train(*given)
    trainer = make_trainer(config(*PARALLEL, *given))
    rows = []
    try:
        for record in trainer.records():
            rows.append({**record.row.flat(), "seconds": None})
            if record.row.iteration == 1:
                os.kill(next(iter(trainer._engine._workers._executor._processes)), signal.SIGKILL)
    finally:
        trainer.close()
    assert_same((rows, trainer.weights()), expected)
    assert caplog.messages == ["A worker died; the iteration is run again on fresh ones (retry 1)"]


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same(nest_here, monkeypatch):
    from distributed import LocalCluster

    given = ["task.n_batch=4", "task.n_iter=5"]
    expected = train(*given)
    monkeypatch.setattr(nest_engine, "Workers", workers.Workers)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        dask = ["engine.n_workers=2", "engine.backend=dask", f"engine.scheduler={cluster.scheduler_address}"]
        assert_same(train(*given, *dask), expected)


def test_where_it_only_simulates_nest_is_imported_without_tables_and_plots():
    code = (
        "import sys; from eprop_cli.engines.nest.kernel import import_nest, only_simulate; only_simulate(); "
        "import_nest(); found = {'pandas', 'matplotlib'} & set(sys.modules); import pandas, matplotlib; print(found)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
