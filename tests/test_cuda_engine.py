"""engine=cuda against engine=compiled: in Numba's simulator, and on a device if there is one."""

import os
import subprocess
import sys

import numpy as np
import pytest
import simulator  # noqa: F401  what it changes
from small import config

from eprop_cli.cli import eprop_verify
from eprop_cli.data import make_events
from eprop_cli.engines.base import same_results
from eprop_cli.engines.cuda import device
from eprop_cli.engines.cuda.engine import CudaEngine, CudaLearner
from eprop_cli.errors import ConfigError, TrainingError
from eprop_cli.models.base import GRADIENT
from eprop_cli.models.bsshslm_2020 import Bsshslm2020
from eprop_cli.models.eprop_iaf import EpropIaf
from eprop_cli.runs.checkpoint import load_checkpoint
from eprop_cli.runs.run import run
from eprop_cli.tasks.digits import DigitsTask
from eprop_cli.training.base import check_ready, make_trainer

on_device = pytest.mark.skipif(
    not device.SIMULATED and bool(device.why_not()),
    reason="no CUDA device; test_cuda_kernels runs this in the simulator",
)
# Each step of a neuron takes the simulator a millisecond or less.
SIZES = ("neuron.n_reg=2", "neuron.n_ad=2", "task.n_batch=2")
TINY = (
    *SIZES, "training=data_parallel", "training.n_iter_test=1", "task.n_iter=3",
    "training.do_early_stopping=true", "training.n_iter_validate_every=2",
    "training.n_iter_early_stop=1", "training.stop_crit=0.0", "training.checkpoint_every=1", "recording=none",
    "plots=none",
)  # fmt: skip
EVIDENCE = (
    "task.n_in=4", "task.n_cues=1", "task.input_spike_prob=0.3",
    "task.steps={cue: 6, spacing: 0, bg_noise: 2, recall: 4}",
)  # fmt: skip
SAMPLES = (
    "task=digits", f"task.name={__name__}:Few", "task.n_in=4", "task.n_out=2", "task.validation=0.375",
    "task.whole_split=true", "task.last_batch=short", "task.steps={sequence: 10, learning_window: 6}",
)  # fmt: skip
SQUARED = "neuron.out.loss=mean_squared_error"
SPARSE = "connectivity.rec_rec={rule: bernoulli, p: 0.6}"
# keys, and the largest difference that exp and log make
WAYS = {
    "entropy": ([*EVIDENCE, "optimizer=gradient_descent", "training.as_continuous=true"], 1e-12),
    "steps": (
        [*EVIDENCE, SQUARED, "optimizer.clip_norm=0.01", "optimizer.eta_factor.rec_out=2.0",
         "optimizer.bounds.rec_rec=[-2.0,2.0]", "optimizer.weight_decay=0.1"],
        0.0,
    ),
    "sparse": ([*EVIDENCE, SQUARED, SPARSE, "training.select_weights=best", "recording.iterations=[2]"], 0.0),
    "constraints": (  # the optimizer's steps are taken on the CPU
        [*EVIDENCE, SQUARED, SPARSE, "connectivity.feedback=symmetric", "connectivity.plastic.in_rec=false",
         "connectivity.excitatory_fraction.recurrent=0.5", "task.n_iter=2"],
        0.0,
    ),
    "samples": ([*SAMPLES, SQUARED, "training.select_weights=best", "training.as_continuous=true"], 0.0),
}  # fmt: skip


class Dots:
    """Samples whose input neurons fire up to three times in a step."""

    n_in, n_steps, n_classes = 4, 10, 2

    def __init__(self, n_samples):
        self.n_samples = n_samples

    def __len__(self):
        return self.n_samples

    def sample(self, index):
        step, neuron = np.nonzero(np.random.RandomState(index).rand(self.n_steps, self.n_in) < 0.4)
        return make_events(np.repeat(step, 1 + step % 3), np.repeat(neuron, 1 + step % 3)), index % 2


class Few(DigitsTask):
    """Batches of two, two and one in an epoch; and two and one to evaluate."""

    def sources(self):
        return {"training": Dots(8), "test": Dots(3)}


def trained(directory, *overrides):
    """Rows and weights of a run, and its checkpoint."""
    directory.mkdir(exist_ok=True)
    ending = run(config(*TINY, *overrides), directory)
    assert ending.exit_status == 0, ending.error
    rows = (directory / "metrics.csv").read_text().splitlines()
    return [row.split(",")[:-1] for row in rows], dict(np.load(directory / "weights.npz")), load_checkpoint(directory)


def assert_same(found, expected, tolerance):
    for one, other in zip(found[0], expected[0], strict=True):
        if tolerance:
            assert one[:2] == other[:2]
            values = ([float(value) for value in row[2:]] for row in (one, other) if row[0] != "iteration")
            np.testing.assert_allclose(*values, rtol=tolerance) if one[0] != "iteration" else None
        else:
            assert one == other
    for mine, others in zip(found[1:], expected[1:], strict=True):
        assert mine.keys() == others.keys()
        for name in mine:
            if mine[name].dtype.kind == "f":
                np.testing.assert_allclose(mine[name], others[name], rtol=0, atol=tolerance, err_msg=name)


@on_device
@pytest.mark.parametrize("way", WAYS)
def test_a_run_is_that_of_the_compiled_engine(way, tmp_path):
    overrides, tolerance = WAYS[way]
    found = trained(tmp_path / "cuda", *overrides, "engine=cuda")
    assert_same(found, trained(tmp_path / "compiled", *overrides, "engine=compiled"), tolerance)
    rows = [dict(zip(found[0][0], row, strict=True)) for row in found[0][1:]]
    assert [row["phase"] for row in rows].count("validation") == (1 if "n_iter=2" in " ".join(overrides) else 2)
    assert all(float(row["rate_reg"]) > 0 and float(row["rate_ad"]) > 0 for row in rows)


@on_device
@pytest.mark.parametrize(("first", "second", "task"), [("cuda", "compiled", EVIDENCE), ("compiled", "cuda", SAMPLES)])
def test_a_run_goes_on_on_the_other_engine(first, second, task, tmp_path):
    whole = trained(tmp_path / "whole", *task, SQUARED, "engine=compiled")
    trained(tmp_path / "run", *task, SQUARED, f"engine={first}", "task.n_iter=2", "training.n_iter_test=0")
    resumed = [*task, SQUARED, f"engine={second}", f"resume={tmp_path / 'run'}"]
    assert_same(trained(tmp_path / "run", *resumed), whole, 0.0)


@on_device
def test_weights_that_are_not_the_learners_do_not_stay(tmp_path):
    trainer = make_trainer(config(*TINY, *EVIDENCE, SQUARED, "engine=cuda", "training.do_early_stopping=false"))
    records = trainer.records()
    next(records)
    learner = trainer._learner
    assert isinstance(learner, CudaLearner)
    batch = trainer._draw("validation")
    before = trainer._engine.evaluate(trainer.weights(), batch)
    assert learner.has(trainer.weights())
    others = {name: 2.0 * values for name, values in trainer.weights().items()}
    assert np.any(trainer._engine.evaluate(others, batch).readout != before.readout)
    assert not learner.has(trainer.weights())
    np.testing.assert_array_equal(trainer._engine.evaluate(trainer.weights(), batch).readout, before.readout)


@on_device
def test_a_lost_device_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    ending, message = None, "the device is lost (CUDA_ERROR_ECC_UNCORRECTABLE); resume=DIR goes on"
    steps = CudaLearner.step

    def step(learner):
        steps(learner)
        if learner.taken.step == 2:
            for method in ("weights", "state", "finite"):
                monkeypatch.setattr(CudaLearner, method, _raise(device.DeviceError(message)))

    monkeypatch.setattr(CudaLearner, "step", step)
    ending = run(config(*TINY, *EVIDENCE, SQUARED, "engine=cuda"), tmp_path)
    assert (ending.exit_status, ending.error) == (1, message)
    assert load_checkpoint(tmp_path)["iteration"] == 1
    monkeypatch.undo()
    whole = trained(tmp_path / "whole", *EVIDENCE, SQUARED, "engine=compiled")
    assert_same(trained(tmp_path, *EVIDENCE, SQUARED, "engine=compiled", f"resume={tmp_path}"), whole, 0.0)


def _raise(error):
    def function(*arguments):
        raise error

    return function


@on_device
@pytest.mark.nest
@pytest.mark.usefixtures("nest_here")
def test_nest_agrees(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["eprop-verify", "--iterations", "1", "engine=cuda", "seed=3", *EVIDENCE, *SIZES])
    with pytest.raises(SystemExit) as ending:
        eprop_verify.main()
    told = capsys.readouterr().out
    assert told.startswith("engines nest and cuda, seed 3, iterations 1, n_batch 2\n")
    assert (ending.value.code, told.count("  agree")) == (0, 11), told


def test_what_is_missing_is_said_in_one_line(monkeypatch):
    settings = config(*TINY, "engine=cuda")
    monkeypatch.setattr(device, "why_not", lambda: "CUDA driver library cannot be found.")
    with pytest.raises(
        ConfigError, match=r"^engine=cuda: needs a CUDA device and its driver \(CUDA driver .*; install"
    ):
        check_ready(settings)
    monkeypatch.setattr(device, "why_not", lambda: "")
    monkeypatch.setattr(device, "check_arithmetic", _raise(OSError("libnvvm.so")))
    with pytest.raises(ConfigError, match=r"^engine=cuda: cannot use the CUDA device \(.*libnvvm.so\); pip install"):
        check_ready(settings)


def test_small_grids_are_not_warned_of():
    told = "import warnings, eprop_cli.engines.cuda.device; from numba.cuda.dispatcher import errors; warnings.warn("
    told += "errors.NumbaPerformanceWarning('Grid size 9 will likely result in GPU ... due to low occupancy.'))"
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    done = subprocess.run([sys.executable, "-c", told], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_device_error_ends_a_run_as_others_do():
    assert issubclass(device.DeviceError, TrainingError)


def test_it_is_for_gradients_only():
    assert CudaEngine.provides(Bsshslm2020) == {GRADIENT}
    assert CudaEngine.provides(EpropIaf) == frozenset()
    with pytest.raises(ConfigError, match="needs training=data_parallel"):
        config("engine=cuda", "training=continuous")


def test_which_engines_have_the_same_results_is_known_without_loading_them(monkeypatch):
    monkeypatch.setattr("eprop_cli.engines.base.variant", _raise(ConfigError("engine", "cuda", "is not installed")))
    assert same_results("cuda", "compiled")
    assert same_results("nest", "nest")
    assert not same_results("nest", "compiled")
