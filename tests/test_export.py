import re
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
from synthetic_run import write_run

from eprop_cli.cli import eprop_export
from eprop_cli.runs.reader import Run

SMALL = ("experiment=smoke", "plots=none", "recording.n_record=3", "recording.n_record_w=0")


@pytest.fixture
def export(in_lines):
    """Runs eprop-export; gives exit status, lines on stdout, lines on stderr."""
    return partial(in_lines, "eprop-export", eprop_export.export)


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", "recording.n_record=2", "task.n_in=4", "neuron.n_reg=5", "neuron.n_ad=3")


def trains(run, iteration, sequence, population, size):
    """Spike times of each neuron, as the run has them."""
    table = Run(run).spikes(iteration, sequence)
    own = table[table["population"] == population]
    return [sorted(own.loc[own["neuron"] == neuron, "time"]) for neuron in range(size)]


def signal(run, iteration, sequence, population, name):
    """float64 (n_times, n_neurons), as the run has it."""
    table = Run(run).dynamic_variables(population, iteration, sequence)
    return table.pivot(index="time", columns="neuron", values=name).to_numpy()


def test_neo(export, run):
    neo = pytest.importorskip("neo")
    assert export(run, "--to", "neo") == (0, [str(run / "recording.nix")], [])
    block = neo.NixIO(str(run / "recording.nix"), mode="ro").read_block()
    assert [each.name for each in block.segments] == [f"iteration {i}, sequence {s}" for i in (1, 3) for s in (0, 1)]
    segment = block.segments[3]
    found = [each for each in segment.spiketrains if each.annotations["population"] == "reg"]
    expected = trains(run, 3, 1, "reg", 5)
    assert sum(map(len, expected)) > 0
    assert [sorted(each.rescale("ms").magnitude) for each in found] == expected
    assert {float(each.t_stop.rescale("ms")) for each in found} == {200.0}
    (potential,) = (each for each in segment.analogsignals if each.name == "ad V_m")
    np.testing.assert_array_equal(potential.rescale("mV").magnitude, signal(run, 3, 1, "ad", "V_m"))
    assert float(potential.sampling_period.rescale("ms")) == 1.0
    units = {each.name.split()[1]: str(each.dimensionality) for each in segment.analogsignals}
    assert (units["learning_signal"], units["surrogate_gradient"]) == ("pA", "1/mV")
    assert (units["readout_signal"], units["V_th_adapt"]) == ("dimensionless", "mV")
    windows = Run(run).windows(3, 1)
    assert segment.epochs[0].labels.tolist() == windows["kind"].astype(str).tolist()


def test_elephant_reads_what_neo_holds(export, run):
    neo = pytest.importorskip("neo")
    statistics = pytest.importorskip("elephant.statistics")
    export(run, "--to", "neo")
    segment = neo.NixIO(str(run / "recording.nix"), mode="ro").read_block().segments[0]
    rates = [float(statistics.mean_firing_rate(train).rescale("Hz")) for train in segment.spiketrains]
    expected = [
        len(train) / 0.2 for each, n in (("in", 4), ("reg", 5), ("ad", 3)) for train in trains(run, 1, 0, each, n)
    ]
    assert rates == pytest.approx(expected)


def test_nwb(export, run):
    pynwb = pytest.importorskip("pynwb")
    assert export(run, "--to", "nwb") == (0, [str(run / "recording.nwb")], [])
    assert not pynwb.validate(path=str(run / "recording.nwb"))
    with pynwb.NWBHDF5IO(str(run / "recording.nwb"), "r") as opened:
        file = opened.read()
        trials = file.trials.to_dataframe()
        assert trials["start_time"].tolist() == pytest.approx([0.0, 0.2, 0.8, 1.0])  # two sequences of 0.2 s a batch
        assert (trials["iteration"].tolist(), trials["sequence"].tolist()) == ([1, 1, 3, 3], [0, 1, 0, 1])
        units = file.units.to_dataframe()
        units = units[units["population"] == "reg"]
        places = [(1, 0, 0.0), (1, 1, 0.2), (3, 0, 0.8), (3, 1, 1.0)]
        every = [np.add(trains(run, i, s, "reg", 5)[1], 0.0) * 1e-3 + start for i, s, start in places]
        assert sum(map(len, every)) > 0
        np.testing.assert_allclose(units["spike_times"].iloc[1], np.concatenate(every))
        series = file.acquisition["ad_V_m"]
        assert (series.unit, series.conversion) == ("volts", 1e-3)
        np.testing.assert_array_equal(series.data[200:400], signal(run, 1, 1, "ad", "V_m"))
        assert series.timestamps[200] == pytest.approx(0.2)
        assert len(file.epochs) == sum(len(Run(run).windows(i)) for i in (1, 3))


@pytest.mark.nest
@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [("task.n_batch=2",), ("experiment=sine_waves", "task.n_iter=2", "engine=compiled", "training=data_parallel")],
)
def test_the_script_trains_on_as_weights_from_does(export, eprop_run, tmp_path, overrides):
    given = [*(each for each in SMALL if "sine_waves" not in str(overrides) or "smoke" not in each), *overrides]
    assert eprop_run(*given, "hydra.run.dir=run").returncode == 0
    assert export(tmp_path / "run", "--to", "nest", "--iterations", "3")[0] == 0
    again = [each for each in given if not each.startswith(("engine=", "training="))]
    assert eprop_run(*again, "synapse.weights_from=run", "task.n_iter=3", "hydra.run.dir=on").returncode == 0
    script = [sys.executable, "-I", str(tmp_path / "run" / "continue_in_nest.py")]
    done = subprocess.run(script, capture_output=True, text=True, cwd="/", timeout=300)
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"^iteration \d+: loss (.*)$", done.stdout, re.MULTILINE)]
    assert losses == pytest.approx(Run(tmp_path / "on").metrics["loss"].tolist(), rel=1e-12)
    assert len(set(losses)) == 3
    assert "eprop_cli" not in (tmp_path / "run" / "continue_in_nest.py").read_text()


def test_what_is_there_stays(export, run, tmp_path):
    (run / "recording.nwb").write_text("mine")
    assert export(run, "--to", "nwb")[2] == [
        f"eprop-export: {run / 'recording.nwb'}: exists; choose --output or --force"
    ]
    assert (run / "recording.nwb").read_text() == "mine"
    assert export(run, "--to", "nwb", "--output", tmp_path / "out")[0] == 0
    assert export(run, "--to", "nwb", "--force")[0] == 0
    assert (run / "recording.nwb").read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "neo"], "no iteration was recorded, so there are no spikes and dynamic variables"),
        (["--to", "nwb"], "no iteration was recorded, so there are no spikes and dynamic variables"),
        (["--to", "nwb", "--iterations", "2"], "--iterations 2: goes with --to nest"),
        (["--to", "matlab"], "invalid choice: 'matlab'"),
    ],
)
def test_bad_input(export, tmp_path, arguments, message):
    run = write_run(tmp_path / "run")
    for path in (run / "recordings").glob("iteration_*/*"):
        path.unlink()
    before = sorted(run.rglob("*"))
    status, out, err = export(run, *arguments)
    assert (status, out, len(err)) == (2, [], 1)
    assert message in err[0]
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.clip_norm=1.0", "optimizer.clip_norm=1.0: needs training=data_parallel"),
        ("optimizer.schedule.name=cosine", "the script has one learning rate, and this run a schedule; train on with"),
        ("optimizer.schedule.warmup=2", "the script has one learning rate"),
    ],
)
def test_what_nest_cannot_do_is_refused(export, tmp_path, override, message):
    run = write_run(tmp_path / "run", "training=data_parallel", override)
    status, out, err = export(run, "--to", "nest")
    assert (status, out, len(err)) == (2, [], 1)
    assert message in err[0]
    assert not list(run.glob("*nest*"))


def test_a_variable_whose_unit_is_not_known(export, run):
    path = run / "recordings" / "iteration_1" / "reg.parquet"
    pd.read_parquet(path).rename(columns={"V_m": "mood"}).to_parquet(path)
    assert "reg: the unit of mood is not known" in export(run, "--to", "nwb")[2][0]


def test_a_library_that_is_not_installed(export, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    monkeypatch.delitem(sys.modules, "eprop_cli.exports.to_nwb", raising=False)
    (line,) = export(run, "--to", "nwb")[2]
    assert line.endswith("pip install '.[nwb]' in the checkout")
