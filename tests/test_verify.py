import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small import BARE, ONLINE, SMALL, Here

from eprop_cli.cli import eprop_verify as verify
from eprop_cli.cli.eprop_verify import TOLERANCES, Compared, compose_for_both, tolerances, within, worst
from eprop_cli.engines.compiled.engine import CompiledEngine
from eprop_cli.errors import TrainingError

OWN_TASK = Path(__file__).parent.parent / "docs" / "own_task"
QUANTITIES = [
    "loss", "readout signal", "evaluation", "spikes", "dynamic variables",
    "gradient in_rec", "gradient rec_rec", "gradient rec_out", "weights in_rec", "weights rec_rec", "weights rec_out",
]  # fmt: skip


@pytest.fixture
def main(monkeypatch, capsys):
    """Run eprop-verify here and return exit status, standard output and standard error."""
    monkeypatch.setattr("eprop_cli.engines.nest.engine.Workers", Here)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["eprop-verify", *arguments])
        with pytest.raises(SystemExit) as ending:
            verify.main()
        return ending.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def spoil(monkeypatch):
    """Let a function change what the compiled engine returns from gradient() or evaluate()."""

    def change(method, function):
        original = getattr(CompiledEngine, method)
        monkeypatch.setattr(CompiledEngine, method, lambda *arguments: function(original(*arguments)))

    return change


def verdicts(output):
    """Quantity -> agree or DIFFER."""
    lines = [line.split() for line in output.splitlines()[2:]]
    return {" ".join(words[:-4]): words[-1] for words in lines}


@pytest.mark.nest
def test_the_engines_agree_and_leave_nothing(tmp_path):
    program = Path(sys.executable).with_name("eprop-verify")
    ending = subprocess.run([program, *SMALL, "task.n_batch=2"], cwd=tmp_path, capture_output=True, text=True)
    assert (ending.returncode, ending.stderr) == (0, "")
    assert ending.stdout.splitlines()[0] == "engines nest and compiled, seed 1, iterations 3, n_batch 2"
    assert verdicts(ending.stdout) == dict.fromkeys(QUANTITIES, "agree")
    assert not list(tmp_path.iterdir())


@pytest.mark.nest
def test_models_whose_weights_change_at_every_spike_are_compared_in_one_simulation(main):
    status, output, error = main(*ONLINE)
    assert (status, error) == (0, "")
    kept = [name for name in QUANTITIES if name != "evaluation" and not name.startswith("gradient")]
    assert verdicts(output) == dict.fromkeys(kept, "agree")


@pytest.mark.nest
@pytest.mark.parametrize(
    "overrides",
    [
        ["training.as_continuous=true", "seed=5"],
        ["neuron.out.loss=mean_squared_error", "synapse.average_gradient=false"],
        ["engine=compiled", "optimizer=gradient_descent"],
        ["--iterations", "2", "task.input_spike_prob=0"],
    ],
    ids=str,
)
def test_the_engines_agree_on_other_configs(overrides, main):
    status, output, error = main(*SMALL, *overrides)
    assert (status, error) == (0, "")
    assert verdicts(output) == dict.fromkeys(QUANTITIES, "agree")


@pytest.mark.nest
def test_what_is_not_recorded_is_not_compared(main):
    _, output, _ = main(*SMALL, *BARE)
    assert list(verdicts(output)) == [quantity for quantity in QUANTITIES if quantity != "dynamic variables"]


@pytest.mark.nest
@pytest.mark.parametrize(
    ("size", "differing"),
    [(1e-14, set()), (1e-11, {"gradient rec_out"}), (math.nan, {"gradient rec_out", "weights rec_out"})],
)
def test_a_gradient_beyond_tolerance_is_told(size, differing, main, spoil):
    def change(outcome):
        gradients = outcome.gradients | {"rec_out": outcome.gradients["rec_out"] * (1 + size)}
        return dataclasses.replace(outcome, gradients=gradients)

    spoil("gradient", change)
    status, output, _ = main(*SMALL, "--iterations", "1")
    told = {quantity for quantity, verdict in verdicts(output).items() if verdict == "DIFFER"}
    assert told == differing
    assert status == bool(differing)


@pytest.mark.nest
def test_one_spike_too_many_is_told(main, spoil):
    def change(outcome):
        spikes = {key: np.append(values, values[-1:]) for key, values in outcome.recording["spikes"].items()}
        spikes["time"][-1] -= 1.0
        return dataclasses.replace(outcome, recording=outcome.recording | {"spikes": spikes})

    spoil("gradient", change)
    status, output, _ = main(*SMALL, "--iterations", "1")
    assert status == 1
    (row,) = [line.split() for line in output.splitlines() if "DIFFER" in line]
    assert (row[0], row[2]) == ("spikes", "1")


@pytest.mark.nest
def test_an_evaluation_that_differs_is_told(main, spoil):
    spoil("evaluate", lambda outcome: dataclasses.replace(outcome, readout=outcome.readout + 1e-9))
    status, output, _ = main(*SMALL, "--iterations", "1")
    assert status == 1
    assert [quantity for quantity, verdict in verdicts(output).items() if verdict == "DIFFER"] == ["evaluation"]


@pytest.mark.parametrize(("error", "line"), [(TrainingError("NEST: no"), "NEST: no"), (SystemExit(0), "SystemExit: 0")])
def test_an_engine_or_task_that_fails_is_told_in_one_line(main, monkeypatch, error, line):
    def fail(config, n_iter):
        raise error

    monkeypatch.setattr(verify, "compare_engines", fail)
    assert main(*SMALL)[0::2] == (1, f"eprop-verify: {line}\n")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["task.n_itr=3"], "task.n_itr: there is no such key; closest: task.n_iter (training iterations)"),
        (["task.n_in=41"], "task.n_in=41: must be a multiple of n_input_symbols (4)"),
        (["task.n_iter=0"], "task.n_iter=0: must be at least 1 to compare anything"),
        (
            ["training=continuous"],
            "training=continuous: must be data_parallel, which both engines compute; leave it out",
        ),
        (["resume=there"], "resume=there: goes with eprop-run; for trained weights, synapse.weights_from"),
        (["--config-dir", "nowhere"], "--config-dir nowhere: is not a directory"),
        (["--iterations", "0"], "argument --iterations: must be a whole number from 1; see eprop-verify --help"),
    ],
    ids=str,
)
def test_bad_input_gets_one_line(overrides, line, main):
    assert main(*overrides) == (2, "", f"eprop-verify: {line}\n")


def test_files_of_ones_own_are_found(monkeypatch):
    monkeypatch.chdir(OWN_TASK)
    overrides = ["task=sine_wave", "neuron.out.loss=mean_squared_error", "synapse.average_gradient=false"]
    config = compose_for_both(overrides, Path("conf"))
    assert (config.task.name, config.training.name) == ("sine_wave:SineWave", "data_parallel")


def test_the_worst_of_all_iterations_is_shown_in_order():
    rows = [
        Compared("weights in_rec", 2.0, 0.0),
        Compared("loss", 1.0, 1e-13),
        Compared("loss", 3.0, 1e-14),
        Compared("weights in_rec", 1.0, math.nan),
        Compared("weights in_rec", 1.0, 0.0),
    ]
    loss, weights = worst(iter(rows))
    assert loss == Compared("loss", 3.0, 1e-13)
    assert within(loss, TOLERANCES)
    assert (weights.quantity, weights.largest) == ("weights in_rec", 2.0)
    assert not within(weights, TOLERANCES)


REGRESSIONS = {
    "sine_waves": ("task.steps.sequence=150", "neuron.n_reg=10"),
    "lemniscate": ("task.steps.sequence=150", "neuron.n_ad=10"),
    "handwriting": ("task.steps.data_point=1", "neuron.n_ad=10"),
}


@pytest.mark.nest
@pytest.mark.parametrize("experiment", REGRESSIONS)
def test_the_engines_agree_on_regressions(experiment, main):
    """The network of each as shipped, but for fewer neurons and shorter sequences; parameters per neuron included."""
    status, output, error = main(f"experiment={experiment}", *REGRESSIONS[experiment], "task.n_in=20", "task.n_batch=2")
    assert (status, error) == (0, "")
    assert verdicts(output) == dict.fromkeys(QUANTITIES, "agree")


def test_gradients_have_room_for_the_rounding_of_long_sums():
    few = tolerances(compose_for_both([*SMALL, "task.n_batch=1"], None))
    assert few == TOLERANCES
    many = tolerances(compose_for_both(["experiment=lemniscate", "task.steps.sequence=1000", "task.n_batch=2"], None))
    grown = {name for name in many if many[name] != TOLERANCES[name]}
    assert grown == {"gradient in_rec", "gradient rec_rec", "gradient rec_out"}
    assert many["gradient in_rec"] == pytest.approx(20 * TOLERANCES["gradient in_rec"])
