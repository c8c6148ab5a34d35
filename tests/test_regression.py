"""NEST's regression tutorials: the losses of its scripts, to the last digit, and what a regression's run holds."""

import json
from pathlib import Path

import numpy as np
import pytest
from small import BARE, config

from eprop_cli.engines.nest.shipped import find_script, losses
from eprop_cli.errors import ConfigError
from eprop_cli.runs.comparison import summarise
from eprop_cli.runs.reader import Run
from eprop_cli.runs.run import run
from eprop_cli.training.base import check_ready, draw_parameters, initial_weights, make_task

KNOWN = json.loads((Path(__file__).parent / "known_answers.json").read_text())["runs"]
LONG = 50  # iterations, from which a test takes long
FIRST = 2  # iterations that NEST computes of the longer ones
COMPILED = ("training=data_parallel", "engine=compiled")
WAYS = {"continuous": (), "compiled": (*COMPILED, "training.as_continuous=true")}
TINY = ("experiment=handwriting", "neuron.n_ad=10", "task.n_in=10", "task.steps.data_point=1", "task.n_iter=2")
NUMPY = "neuron.ad.tau_m={distribution: normal, mean: 30, std: 2, generator: numpy}"
# Besides the known answers: numbers changed in the scripts themselves.
OTHERS = {
    "sine_waves": (
        {"seed": 2, "task.n_batch": 2, "task.n_iter": 3, "task.steps.sequence": 200, "task.periods": "[100, 50, 33]"},
        {"seed": 7, "task.n_iter": 4, "task.steps.sequence": 90, "task.input_spike_prob": 0.3, "optimizer.eta": 1e-3},
    ),
    "lemniscate": (
        {"seed": 3, "task.n_batch": 2, "task.n_iter": 3, "task.steps.sequence": 150},
        {"seed": 11, "task.n_iter": 4, "task.steps.sequence": 90, "task.input_spike_prob": 0.3, "optimizer.eta": 1e-2},
    ),
    "handwriting": (
        {"seed": 5, "task.n_iter": 4, "task.steps.data_point": 1, "task.input_spike_prob": 0.2},
        {"seed": 6, "task.n_batch": 2, "task.n_iter": 2, "task.steps.data_point": 2, "optimizer.eta": 1e-3},
    ),
}


def trained(directory, *overrides):
    """The table of a run."""
    directory.mkdir()
    ending = run(config(*overrides), directory)
    assert ending.exit_status == 0, ending.error
    return Run(directory).metrics


def relative(found, expected):
    return np.max(np.abs(np.divide(found, expected) - 1))


def takes_long(known, way):
    """Of the larger networks, NEST simulates only the batches of several sequences, which show more."""
    return known["n_iter"] >= LONG or (way == "continuous" and known["n_batch"] == 1 and known["task"] != "sine_waves")


@pytest.mark.nest
@pytest.mark.parametrize(
    ("known", "way"),
    [pytest.param(known, way, marks=[pytest.mark.slow] * takes_long(known, way)) for known in KNOWN for way in WAYS],
    ids=lambda value: value if isinstance(value, str) else f"{value['task']}-{value['seed']}-{value['n_iter']}",
)
def test_known_answers(known, way, tmp_path):
    n_iter = min(known["n_iter"], FIRST) if way == "continuous" else known["n_iter"]  # compiled: all of them
    keys = [f"seed={known['seed']}", f"task.n_batch={known['n_batch']}", f"task.n_iter={n_iter}"]
    metrics = trained(tmp_path / "run", f"experiment={known['task']}", *keys, *BARE, *WAYS[way])
    assert relative(metrics["loss"], known["loss"][:n_iter]) < 1e-10
    for k, values in enumerate(known["loss_per_readout"] or ()):
        expected = np.reshape(values, (known["n_iter"], known["n_batch"])).mean(axis=1)[:n_iter]
        assert relative(metrics[f"loss_{k}"], expected) < 1e-10


@pytest.mark.nest
@pytest.mark.parametrize(
    ("task", "numbers"),
    [
        pytest.param(task, numbers, marks=[pytest.mark.slow] * (task == "lemniscate" or place > 0))
        for task, settings in OTHERS.items()
        for place, numbers in enumerate(settings)
    ],
    ids=lambda value: value if isinstance(value, str) else f"seed {value['seed']}",
)
def test_other_numbers_are_those_of_the_script_with_these_numbers(task, numbers, tmp_path):
    (tmp_path / "script").mkdir()
    expected = [loss for _, loss in losses(find_script(task), numbers, tmp_path / "script")]
    assert len(expected) == numbers["task.n_iter"]
    assert len(set(expected)) == len(expected)
    for name, way in WAYS.items():
        keys = [f"{key}={value}" for key, value in numbers.items()]
        metrics = trained(tmp_path / name, f"experiment={task}", *keys, *BARE, *way)
        assert relative(metrics["loss"], expected) < 1e-10, name


def batch_of(*overrides):
    settings = config(*overrides)
    rng = np.random.RandomState(settings.seed)
    initial_weights(settings, rng)
    return make_task(settings, rng).batch_at(rng, "training", 0)


def test_task_seed_keeps_the_problem_in_a_sweep_over_seeds():
    first, second = batch_of("experiment=sine_waves"), batch_of("experiment=sine_waves", "seed=2")
    kept = batch_of("experiment=sine_waves", "seed=2", "task.seed=1")
    np.testing.assert_array_equal(kept.targets, first.targets)
    np.testing.assert_array_equal(kept.spikes, second.spikes)
    assert (first.targets != second.targets).any()
    assert (first.spikes != second.spikes).any()


def test_fresh_noise_comes_with_the_same_target():
    settings = config("experiment=lemniscate", "task.frozen_input=false", "task.n_batch=2")
    rng = np.random.RandomState(1)
    task = make_task(settings, rng)
    one, other = (task.batch_at(rng, "training", index) for index in range(2))
    assert (one.spikes[0] != one.spikes[1]).any()
    assert (one.spikes != other.spikes).any()
    np.testing.assert_array_equal(one.targets, other.targets)


@pytest.mark.nest
def test_both_engines_and_a_resumed_run_have_the_same_values_per_neuron(tmp_path):
    for generator in ((), (NUMPY,)):
        place = tmp_path / str(len(generator))
        place.mkdir()
        for name, way in {"continuous": (), "compiled": COMPILED}.items():
            trained(place / name, *TINY, *BARE, *generator, *way)
        values = Run(place / "compiled").parameters["neuron.ad.tau_m"]
        assert len(set(values)) == 10
        np.testing.assert_array_equal(values, Run(place / "continuous").parameters["neuron.ad.tau_m"])
        resumed = config(*TINY, *BARE, *generator, *COMPILED, "task.n_iter=4", f"resume={place / 'compiled'}")
        assert run(resumed, place / "compiled").exit_status == 0
        whole = trained(place / "whole", *TINY, *BARE, *generator, *COMPILED, "task.n_iter=4")
        np.testing.assert_array_equal(values, Run(place / "compiled").parameters["neuron.ad.tau_m"])
        assert Run(place / "compiled").metrics["loss"].tolist() == whole["loss"].tolist()


def test_values_that_a_run_kept_are_taken_again():
    kept = np.linspace(20.0, 40.0, 10)
    assert list(draw_parameters(config(*TINY), {"neuron.ad.tau_m": kept}).neuron.ad.tau_m) == list(kept)


CARELESS = {
    "task.file=nowhere.txt": "task.file=nowhere.txt: no such file, neither beside your config nor in the working",
    "task.file=three.txt": "must have two finite numbers a line, and at least two lines",
    "task.file=words.txt": "must be a text file with two numbers a line",
    "task.file=still.txt": "must move in both coordinates",
    "task.n_out=3": "task.n_out=3: must be 2 in this task, the coordinates of a point",
    "task.input_spike_prob=1.5": "task.input_spike_prob=1.5: ",
    "task.steps.data_point=0": "task.steps.data_point=0: must be at least 1 time step",
    "training.do_early_stopping=true": "has nothing to validate on, as every batch of this task is the same",
    "objective=test_nrmse": "objective=test_nrmse: needs a test; set training.n_iter_test",
    "objective=accuracy": "objective=accuracy: must be a metric (loss, loss_0, loss_1, nrmse, correlation",
    "neuron.out.loss=cross_entropy": "neuron.out.loss=cross_entropy: does not fit task=handwriting",
}


@pytest.mark.parametrize("override", CARELESS)
def test_a_careless_user_is_told_key_value_and_remedy(override, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("three.txt").write_text("1 2 3\n4 5 6\n")
    Path("words.txt").write_text("one two\n")
    Path("still.txt").write_text("1 0\n2 0\n")
    with pytest.raises(ConfigError) as error:
        config("experiment=handwriting", override)
    assert CARELESS[override] in str(error.value)
    assert "\n" not in str(error.value)
    assert override.split("=")[0] in str(error.value)


def test_seed_0_is_none_of_nests():
    with pytest.raises(ConfigError) as error:
        check_ready(config("experiment=handwriting", "seed=0"))
    assert str(error.value) == "seed=0: must be at least 1, as neuron.ad.tau_m.generator=nest; or use numpy"
    assert check_ready(config(*TINY, NUMPY, "seed=0")).seed == 0


def test_a_file_in_the_working_directory_is_the_way_of_the_pen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pen.txt").write_text("1 2\n1 -2\n-1 1\n")
    settings = config(*TINY, "task.file=pen.txt", "task.steps.data_point=2")
    (x, y) = make_task(settings, np.random.RandomState(1)).batch_at(np.random.RandomState(1), "training", 0).targets
    assert x.shape == (1, 6)
    way = np.array([1, 2, 1]) / 2
    np.testing.assert_allclose(x[0, ::2], way - way.mean())
    way = np.array([2, 0, 1]) / 2
    np.testing.assert_allclose(y[0, ::2], way - way.mean())


@pytest.mark.nest
def test_a_silent_network_has_a_number_everywhere(tmp_path):
    metrics = trained(tmp_path / "run", *TINY, *BARE, NUMPY, *COMPILED, "task.input_spike_prob=0")
    assert list(metrics.columns) == [
        *("iteration", "phase", "loss", "loss_0", "loss_1", "nrmse", "correlation", "rate_ad", "seconds"),
    ]  # fmt: skip
    assert np.isfinite(metrics.drop(columns="phase").to_numpy(float)).all()
    assert "nan" not in (tmp_path / "run" / "metrics.csv").read_text()


def test_frozen_input_leaves_nothing_to_test_on_and_one_line_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    metrics = trained(tmp_path / "run", *TINY, *BARE, NUMPY, *COMPILED)
    assert set(metrics["phase"]) == {"training"}
    (line,) = [line for line in caplog.messages if "Every batch" in line]
    assert line == "Every batch of task=handwriting is the same, so there is nothing to validate or test on"
    caplog.clear()
    trained(tmp_path / "tested", *TINY, *BARE, NUMPY, *COMPILED, "training.n_iter_test=1")
    assert "Every batch of task=handwriting is the same, so the test is on the sequence that was trained" in caplog.text
    caplog.clear()
    fresh = ("task.frozen_input=false", "training.n_iter_test=1", "training.do_early_stopping=true")
    metrics = trained(tmp_path / "fresh", *TINY, *BARE, NUMPY, *COMPILED, *fresh)
    assert set(metrics["phase"]) == {"training", "validation", "test"}
    assert "Every batch" not in caplog.text


def test_the_table_of_regressions_has_no_empty_column(tmp_path):
    for seed in (1, 2):
        trained(tmp_path / str(seed), *TINY, *BARE, NUMPY, *COMPILED, f"seed={seed}")
    table = summarise([Run(tmp_path / str(seed)) for seed in (1, 2)])
    columns = [
        "run",
        "seed",
        "status",
        "iterations",
        "final_loss",
        "best_loss",
        "mean10_loss",
        "nrmse",
        "seconds",
        "error",
    ]
    assert list(table.columns) == columns
    assert not table.drop(columns="error").isna().any(axis=None)
    lasts = [Run(tmp_path / str(seed)).metrics["nrmse"].iloc[-1] for seed in (1, 2)]
    assert table["nrmse"].tolist() == lasts
