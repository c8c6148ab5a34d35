"""The worked examples of docs/extending.md: a variant of one's own of every group trains."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from small import BARE, SMALL, config

from eprop_cli.engines.base import make_engine
from eprop_cli.registry import VARIANTS
from eprop_cli.runs.reader import Run
from eprop_cli.tasks.base import CheckedTask
from eprop_cli.training.base import initial_weights, make_task

DOCS = Path(__file__).resolve().parent.parent / "docs"
EXAMPLES = DOCS / "extending"
COMPILED = ("training=data_parallel", "engine=compiled", "task.n_iter=3", "training.n_iter_test=1", *BARE)
# group -> what the page says to choose; the task goes by its own size.
CHOICES = {
    "task": [
        "task=sine_waves",
        "task.name=square_waves:SquareWaves",
        "task.steps.sequence=100",
        "task.periods=[50,20]",
    ],
    "loss": [*SMALL, "neuron.out.loss=bits:Bits"],
    "neuron": ["neuron=plain", "synapse=plain", "neuron.n_lif=8"],
    "synapse": [*SMALL, "synapse.name=family:PlainSynapses", "synapse.dtype_weights=float64"],
    "optimizer": [*SMALL, "optimizer=gradient_descent", "optimizer.name=signs:Signs"],
    "engine": [*SMALL, "engine.name=coarse:Coarse"],
    "training": [*SMALL, "training.name=averaged:Averaged"],
    "connectivity": [*SMALL, "connectivity.rec_rec={rule: ring:Ring, reach: 2}"],
    "logger": [*SMALL, "logger=[tensorboard,json_lines]"],
    "figure": [*SMALL, "plots.figures=[histogram:Histogram]"],
}


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def trained(eprop_run, directory, *overrides):
    """The run that a command in docs/extending leaves."""
    done = eprop_run("--config-dir", "conf", *COMPILED, *overrides, f"hydra.run.dir={directory}", cwd=EXAMPLES)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return Run(directory)


def test_there_is_an_example_of_every_group_and_the_page_names_it():
    page = (DOCS / "extending.md").read_text()
    assert set(CHOICES) == set(VARIANTS)
    linked = set(re.findall(r"\(extending/(\w+\.py)\)", page))
    assert linked == {path.name for path in EXAMPLES.glob("*.py")}
    for group, overrides in CHOICES.items():
        own = [override for override in overrides if re.search(r"\w:\w|=plain", override)]
        said = page.replace('"', "")
        missing = [
            override for override in own if override.replace("[", "[learning,") not in said and override not in said
        ]
        assert missing == [], group


@pytest.mark.parametrize("group", sorted(CHOICES))
def test_the_example_trains(eprop_run, tmp_path, group):
    run = trained(eprop_run, tmp_path / "run", *CHOICES[group])
    assert run.status == "COMPLETED"
    assert len(run.metrics) == 4
    assert np.isfinite(run.metrics["loss"]).all()
    weights = run.weights["rec_out"]
    assert (weights.before != weights.after).any()


def test_square_waves_are_square():
    task = CheckedTask(config(*CHOICES["task"]).task)
    rng = np.random.RandomState(1)
    task.prepare(rng)
    assert set(task.batch_at(rng, "training", 0).targets.ravel()) == {-1.0, 1.0}


def test_a_loss_in_bits_and_its_metric():
    given = config(*SMALL, "neuron.out.loss=bits:Bits")
    uniform, target = np.full((2, 3, 4), 0.5), np.zeros((2, 3, 4))
    target[0] = 1.0
    values = {metric.column.name: metric.value(uniform, target) for metric in given.metrics}
    assert values["loss"] == pytest.approx(1.0)
    assert values["confidence"] == 0.5


def test_an_average_of_weights(eprop_run, tmp_path):
    """After one iteration it is the weights themselves; later it is not."""
    plain, own = [
        trained(eprop_run, tmp_path / f"a{k}", *SMALL, *way) for k, way in enumerate([[], CHOICES["training"][-1:]])
    ]
    assert not np.array_equal(plain.weights["in_rec"].after, own.weights["in_rec"].after)
    assert plain.metrics["loss"][:3].tolist() == own.metrics["loss"][:3].tolist()
    assert not (tmp_path / "a1" / "checkpoint.npz").exists()
    again = eprop_run(f"resume={own.directory}", "--allow-module", "averaged", "task.n_iter=4", cwd=EXAMPLES)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == f"eprop-run: resume={own.directory}: the average is not kept; start again\n"


def test_the_family_has_its_own_population_in_every_file(eprop_run, tmp_path):
    overrides = ["recording=default", "recording.iterations=[last]", "plots=default", "task.n_iter=1"]
    run = trained(eprop_run, tmp_path / "run", *CHOICES["neuron"], *overrides)
    assert "rate_lif" in run.metrics
    assert set(run.recording("last")) == {"spikes", "lif", "out", "windows"}
    assert [group["name"] for group in json.loads((run.directory / "run.json").read_text())["populations"]] == ["lif"]
    assert (run.directory / "figures" / "dynamics_iteration_1.png").exists()


@pytest.mark.nest
def test_the_family_runs_on_nest_as_on_the_compiled_engine(eprop_run, tmp_path):
    both = [
        trained(eprop_run, tmp_path / engine, *CHOICES["neuron"], f"engine={engine}") for engine in ("nest", "compiled")
    ]
    nest, compiled = (run.metrics["loss"].to_numpy() for run in both)
    np.testing.assert_allclose(nest, compiled, rtol=1e-12)


def test_coarse_gradients_have_few_values(monkeypatch):
    given = config(*COMPILED, *CHOICES["engine"])
    rng = np.random.RandomState(1)
    weights = initial_weights(given, rng)
    batch = make_task(given, rng).batch_at(rng, "training", 0)
    engine = make_engine(given)
    gradients = engine.gradient(weights, batch, None, False).gradients
    engine.close()
    for gradient in gradients.values():
        levels = gradient / (np.abs(gradient).max() / 127)
        np.testing.assert_allclose(levels, np.round(levels), atol=1e-9)


def test_a_figure_is_drawn_by_the_run_and_again(eprop_run, tmp_path):
    run = trained(eprop_run, tmp_path / "run", *CHOICES["figure"])
    assert (run.directory / "figures" / "histogram.png").stat().st_size > 1000
