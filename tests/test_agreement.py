"""engine=nest and engine=compiled give the same: losses, readouts, gradients, recordings."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from small import BARE, SMALL, config

from eprop_cli.connectivity.base import PLASTIC
from eprop_cli.engines.base import make_engine
from eprop_cli.training.base import initial_weights, make_task, make_trainer

pytestmark = [pytest.mark.nest, pytest.mark.usefixtures("nest_here")]

ENGINES = ("nest", "compiled")
TOLERANCE = 1e-12
PARALLEL = ("training=data_parallel", "training.n_iter_test=0")


@dataclass(frozen=True)
class Case:
    """One batch of the small network.

    drive: factor on the initial weights of recurrent neurons. steps: in which all input neurons fire, instead of
    background activity alone. following: as for Engine.gradient(); "some": every other input neuron.
    """

    overrides: tuple[str, ...] = ()
    seed: int = 1
    drive: float = 1.0
    steps: tuple[int, ...] | None = None
    following: str | None = None
    silent: bool = False

    def batch(self):
        settings = config(*SMALL, *PARALLEL, "recording=full", *self.overrides)
        rng = np.random.RandomState(self.seed)
        weights = initial_weights(settings, rng)
        weights |= {name: self.drive * weights[name] for name in ("in_rec", "rec_rec")}
        batch = make_task(settings, rng).batch_at(rng, "training", 0)
        if self.steps is not None:
            spikes = batch.spikes.copy()
            spikes[:, :3] = spikes[:, -3:] = False
            spikes[:, self.steps] = True
            batch = replace(batch, spikes=spikes)
        following = None if self.following is None else np.arange(batch.spikes.shape[2]) % 2 == 0
        return settings, weights, batch, following


def case(*overrides, **options):
    return Case(overrides, **options)


TAU_M = ("neuron.reg.tau_m=[10, 20, 30, 40]", "neuron.ad.tau_m=[5, 15, 25, 100]")
ADAPT = ("neuron.ad.adapt_tau=[20, 100, 500, 2000]", "neuron.ad.adapt_beta_scale=5")
FLUSH = "neuron.rec.flush_event_send_interval=100"
EDGES = {"first": (1,), "second": (2,), "last": (-1,), "dropped": (0,), "both ends": (0, 1, 2, -2, -1)}
CASES = {
    "initial": case(),
    **{f"seed {seed}": case("task.n_batch=3", seed=seed) for seed in (2, 3, 4, 5)},
    "mean squared error": case("neuron.out.loss=mean_squared_error", "task.n_batch=2"),
    **{
        function: case(f"neuron.rec.surrogate_gradient_function={function}")
        for function in ("exponential", "fast_sigmoid_derivative", "arctan_derivative")
    },
    "two surrogate gradients": case("neuron.ad.surrogate_gradient_function=exponential"),
    "arrival at the beginning": case("neuron.rec.regular_spike_arrival=false", drive=10.0),
    "arrival at the beginning, readouts at the end": case(
        "neuron.reg.regular_spike_arrival=false", "neuron.out.regular_spike_arrival=true", drive=5.0
    ),
    "time constants of each neuron": case(*TAU_M, *ADAPT),
    "no adaptive neurons": case("neuron.n_ad=0"),
    "no regular neurons": case("neuron.n_reg=0"),
    "gradients not averaged": case("synapse.average_gradient=false"),
    "E_L": case("neuron.rec.E_L=-0.3", "neuron.rec.V_m=0.1", "neuron.out.E_L=0.2", "neuron.out.V_m=0.5"),
    "I_e": case("neuron.rec.I_e=0.3", "neuron.rec.C_m=3", "neuron.out.I_e=0.1", "neuron.out.C_m=2"),
    "V_min": case("neuron.rec.V_min=-0.1", "neuron.out.V_min=-0.05"),
    "V_min above rest": case("neuron.rec.V_min=0.1", "neuron.out.V_min=0.05"),
    "V_m": case("neuron.rec.V_m=0.3", "neuron.out.V_m=0.4", "neuron.ad.adaptation=2"),
    "resolution 0.5": case("kernel.resolution=0.5"),
    "resolution 0.2": case("kernel.resolution=0.2", "recording.interval=1"),
    "refractory for a step": case("neuron.rec.t_ref=1"),
    "refractory for long": case("neuron.rec.t_ref=40"),
    "learning all along": case("task.steps.learning_window=100"),
    "learning in the last step": case("task.steps.learning_window=1"),
    "readouts not recorded": case("recording.readout=false"),
    "spikes not recorded": case("recording.spikes=false"),
    "neurons not recorded": case("recording.n_record=0"),
    "every tenth step recorded": case("recording.interval=10"),
    "silent": case("task.input_spike_prob=0", silent=True),
    "very active": case("neuron.rec.t_ref=1", "task.input_spike_prob=1", drive=20.0),
    **{f"inputs fire in step {name}": case("task.n_batch=2", steps=steps) for name, steps in EDGES.items()},
    **{
        f"inputs fire in step {name}, truncated": case("task.n_batch=2", steps=steps, following="some")
        for name, steps in EDGES.items()
    },
    "truncated": case("task.n_batch=2", following="some"),
    "very active, truncated": case("neuron.rec.t_ref=1", "task.n_batch=2", drive=20.0, following="some"),
}


@dataclass(frozen=True)
class Outcomes:
    """What each engine made of a batch, with and without learning."""

    learning: dict = field(default_factory=dict)
    evaluation: dict = field(default_factory=dict)


def on(engine, settings):
    """The config with another engine."""
    return replace(settings, engine=config("training=data_parallel", f"engine={engine}").engine)


def simulate(settings, weights, batch, following=None, record=True):
    outcomes = Outcomes()
    for name in ENGINES:
        engine = make_engine(on(name, settings))
        outcomes.learning[name] = engine.gradient(weights, batch, following, record)
        outcomes.evaluation[name] = engine.evaluate(weights, batch)
        engine.close()
    return outcomes


def relative(values, others):
    """Largest difference in units of the largest value."""
    difference, largest = np.abs(values - others).max(), np.abs(values).max()
    return difference / largest if difference else 0.0


@pytest.fixture(scope="module")
def outcomes():
    """Outcomes by the name of the case, each simulated once."""
    found = {}

    def of(name):
        if name not in found:
            found[name] = simulate(*CASES[name].batch())
        return found[name]

    return of


@pytest.mark.parametrize("name", CASES)
def test_gradients_agree(name, outcomes):
    nest, compiled = (outcomes(name).learning[engine].gradients for engine in ENGINES)
    for projection in PLASTIC:
        assert relative(nest[projection], compiled[projection]) <= TOLERANCE, projection
        assert nest[projection].any() != CASES[name].silent, projection


@pytest.mark.parametrize("name", CASES)
def test_readouts_and_spike_counts_agree_also_without_learning(name, outcomes):
    learning, evaluation = outcomes(name).learning, outcomes(name).evaluation
    first = learning["nest"]
    for other in (learning["compiled"], *evaluation.values()):
        np.testing.assert_allclose(other.readout, first.readout, rtol=0, atol=TOLERANCE)
        assert other.n_spikes == first.n_spikes
    assert any(first.n_spikes.values()) != CASES[name].silent


@pytest.mark.parametrize("name", CASES)
def test_recordings_agree(name, outcomes):
    nest, compiled = (outcomes(name).learning[engine].recording for engine in ENGINES)
    assert nest.keys() == compiled.keys()
    for table, columns in nest.items():
        assert list(columns) == list(compiled[table])
        for column, values in columns.items():
            assert values.dtype == compiled[table][column].dtype, (table, column)
            if column in ("sequence", "time", "population", "neuron"):
                np.testing.assert_array_equal(values, compiled[table][column], err_msg=f"{table} {column}")
            else:
                assert relative(values, compiled[table][column]) <= TOLERANCE, (table, column)


@pytest.mark.parametrize("engine", ENGINES)
def test_only_inputs_that_fire_in_step_1_of_the_next_sequence_lose_a_term(engine):
    settings, weights, batch, following = CASES["truncated"].batch()
    made = make_engine(on(engine, settings))
    whole, truncated = (made.gradient(weights, batch, given, False).gradients for given in (None, following))
    made.close()
    lost = (whole["in_rec"] != truncated["in_rec"]).any(axis=0)
    np.testing.assert_array_equal(lost, batch.spikes[1, 1] | following)
    assert 1e-6 < relative(whole["in_rec"], truncated["in_rec"]) < 0.1
    for projection in ("rec_rec", "rec_out"):
        np.testing.assert_array_equal(whole[projection], truncated[projection])


@pytest.mark.parametrize("iterations", [0, 40], ids=["initial", "trained"])
def test_the_tutorials_network_agrees(iterations):
    settings = config(*PARALLEL, *BARE, "engine=compiled", f"task.n_iter={iterations}", "task.n_batch=2")
    trainer = make_trainer(settings)
    for _ in trainer.records():
        pass
    trainer.close()
    settings.recording.spikes = True
    rng = np.random.RandomState(7)
    batch = make_task(settings, rng).batch_at(rng, "training", 0)
    found = simulate(settings, trainer.weights(), batch, rng.rand(40) < 0.5)
    nest, compiled = (found.learning[engine] for engine in ENGINES)
    for projection in PLASTIC:
        assert relative(nest.gradients[projection], compiled.gradients[projection]) <= TOLERANCE, projection
    np.testing.assert_equal(nest.recording["spikes"], compiled.recording["spikes"])
    for outcome in (compiled, *found.evaluation.values()):
        np.testing.assert_allclose(outcome.readout, nest.readout, rtol=0, atol=TOLERANCE)


def trained(*overrides):
    """Losses of 20 iterations, and the weights after them."""
    trainer = make_trainer(config(*overrides, "task.n_iter=20", *BARE))
    try:
        losses = [record.row.metrics["loss"] for record in trainer.records()]
    finally:
        trainer.close()
    assert len(losses) == 20
    return np.array(losses), trainer.weights()


RUNS = {
    **{f"seed {seed}": (f"seed={seed}",) for seed in (1, 2, 3, 5)},
    "batch of 3": ("task.n_batch=3",),
    "mean squared error": (
        "neuron.out.loss=mean_squared_error",
        "synapse.average_gradient=false",
        "optimizer.eta=1e-4",
    ),
    "gradient descent": ("optimizer=gradient_descent",),
    "time constants of each neuron": (*TAU_M, *ADAPT),
    "rarely active": ("seed=2", "task.n_batch=3", "neuron.rec.V_th=0.9", "synapse.weight_scale.in_rec=0.5", FLUSH),
}


@pytest.mark.parametrize("as_continuous", ["true", "false"])
@pytest.mark.parametrize("name", RUNS)
def test_losses_agree_all_along(name, as_continuous):
    overrides = [*SMALL, *PARALLEL, *RUNS[name], f"training.as_continuous={as_continuous}"]
    (nest, nest_weights), (compiled, compiled_weights) = (trained(*overrides, f"engine={name}") for name in ENGINES)
    np.testing.assert_allclose(compiled, nest, rtol=TOLERANCE)
    assert len(set(nest)) == 20
    for projection in PLASTIC:
        assert relative(nest_weights[projection], compiled_weights[projection]) <= 1e-10, projection


@pytest.mark.parametrize("name", RUNS)
def test_as_continuous_gives_the_losses_of_the_continuous_simulation(name):
    overrides = [*SMALL, *RUNS[name]]
    continuous, continuous_weights = trained(*overrides)
    (_, whole_weights), (losses, weights) = (
        trained(*overrides, *PARALLEL, "engine=compiled", f"training.as_continuous={value}")
        for value in ("false", "true")
    )
    np.testing.assert_allclose(losses, continuous, rtol=1e-10)
    for projection in ("rec_rec", "rec_out"):
        assert relative(continuous_weights[projection], weights[projection]) <= 1e-10, projection
    # What inputs lose at the end depends on a batch that a continuous simulation of this length does not have.
    assert relative(whole_weights["in_rec"], weights["in_rec"]) > 1e-8


@pytest.mark.slow
def test_as_continuous_gives_the_losses_of_the_continuous_simulation_of_the_tutorial():
    overrides = ["seed=5"]
    continuous, _ = trained(*overrides)
    for engine in ENGINES:
        losses, _ = trained(*overrides, *PARALLEL, f"engine={engine}", "training.as_continuous=true")
        np.testing.assert_allclose(losses, continuous, rtol=1e-10, err_msg=engine)
    whole, _ = trained(*overrides, *PARALLEL, "engine=compiled")
    assert np.abs(whole / continuous - 1).max() > 1e-3  # the lost terms matter
