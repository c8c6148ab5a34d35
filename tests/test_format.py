"""Runs of format 1, made with commit 30c0822, go on being read and resumed; those of a newer one are refused."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from small import BARE, SMALL, config

from eprop_cli.cli.eprop_compare import compare
from eprop_cli.cli.eprop_plot import plot
from eprop_cli.errors import UserError
from eprop_cli.formats import FORMAT
from eprop_cli.runs.checkpoint import load_checkpoint
from eprop_cli.runs.comparison import summarise
from eprop_cli.runs.reader import Run, find_runs
from eprop_cli.runs.record import changed_versions
from eprop_cli.runs.run import run
from eprop_cli.training.base import initial_weights

OLD = Path(__file__).parent / "format_1"
NEW = (*SMALL, *BARE, "training=data_parallel", "engine=compiled", "task.n_iter=2")


@pytest.fixture
def old(tmp_path):
    """Gives a copy of a run of format 1."""
    return lambda name: shutil.copytree(OLD / name, tmp_path / name)


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs eprop-plot or eprop-compare; gives exit status, standard output and standard error."""

    def call(function, *arguments):
        monkeypatch.setattr(sys, "argv", [function.__name__, *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            function()
        return ending.value.code, *capsys.readouterr()

    return call


def rows(directory):
    """metrics.csv without its seconds."""
    return [line.rsplit(",", 1)[0] for line in (directory / "metrics.csv").read_text().splitlines()]


def edited(path, change):
    """Replace a JSON file by what a function makes of it."""
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def with_format(path, number):
    with np.load(path) as file:
        arrays = dict(file) | {"format": number}
    np.savez(path, **arrays)


class TestRecord:
    def test_keys_are_where_they_are_today(self):
        written = Run(OLD / "part")
        assert written.record["format"] == FORMAT
        assert written.config["engine"] == {"name": "compiled", "n_workers": 2}
        assert "n_workers" not in written.config["training"]
        assert written.config["training"]["stop_metric"] == "recall_error"
        nest = Run(OLD / "continuous").config
        assert nest["engine"]["local_num_threads"] == 1
        assert "local_num_threads" not in nest["kernel"]

    def test_it_says_what_one_of_today_does(self, tmp_path):
        run(config(*NEW), tmp_path)
        today, before = Run(tmp_path).record, Run(OLD / "whole").record
        assert before.keys() == today.keys()
        assert before["columns"] == today["columns"]
        assert before["populations"] == today["populations"]
        assert before["loss"] == today["loss"]
        assert before["sessions"][0].keys() == today["sessions"][0].keys()

    def test_each_time_that_it_was_resumed_is_a_session(self, old):
        directory = old("whole")
        edited(directory / "run.json", lambda record: record.update(resumed=["2026-11-27", "2026-11-28"]))
        record = Run(directory).record
        assert [session["start"] for session in record["sessions"]] == [record["start"], "2026-11-27", "2026-11-28"]
        assert record["sessions"][2]["versions"] == record["versions"]
        assert "versions" not in record["sessions"][0]  # they were overwritten
        assert "resumed" not in record

    def test_a_regression_has_no_recall_error(self, old):
        directory = old("whole")
        edited(
            directory / "run.json", lambda record: record["config"]["neuron"]["out"].update(loss="mean_squared_error")
        )
        columns = {column.name: column for column in Run(directory).columns}
        assert columns["loss"].label == "squared error summed over readouts"
        assert columns["recall_error"].better == ""

    @pytest.mark.parametrize("group", ["engine", "neuron", "training", "kernel"])
    def test_a_config_without_a_group_is_damaged(self, old, group):
        directory = old("whole")
        edited(directory / "run.json", lambda record: record["config"].pop(group))
        with pytest.raises(UserError) as error:
            _ = Run(directory).record
        assert str(error.value) == f"{directory / 'run.json'}: is damaged: {group} is missing"


def test_it_is_drawn(old, command):
    directory = old("continuous")
    status, out, err = command(plot, directory, "--dpi", "20")
    assert (status, err) == (0, "")
    names = (
        "learning",
        "dynamics_iteration_3",
        "weight_time_courses",
        "weight_matrices",
        "weight_changes",
        "firing_rates",
    )
    drawn = [line for line in out.splitlines() if "not drawn" not in line]
    assert drawn == [str(directory / "figures" / f"{name}.png") for name in names]


def test_runs_are_compared(tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = command(compare, OLD)
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == f"5 runs in {OLD}"
    assert (tmp_path / "compare.png").exists()


def test_a_sweep_differs_in_its_seed():
    table = summarise(find_runs(OLD / "sweep"))
    assert table["seed"].tolist() == [1, 2]
    assert table["status"].tolist() == ["COMPLETED"] * 2
    assert "engine.n_workers" not in table


def test_an_old_run_and_a_new_one_differ_in_nothing_but_what_was_changed(tmp_path, eprop_run):
    settings = (*SMALL, "training=data_parallel", "engine=compiled", "task.n_iter=2", "task.n_batch=2", *BARE)
    eprop_run(*settings, "seed=2", "hydra.run.dir=new", check=True)
    runs = [Run(OLD / "sweep" / "seed-1"), Run(tmp_path / "new")]
    assert [key for key in summarise(runs).columns if "." in key or key == "seed"] == ["seed"]
    assert rows(tmp_path / "new") == rows(OLD / "sweep" / "seed-2")


def test_it_is_resumed_and_ends_as_one_that_was_never_interrupted(old, eprop_run, tmp_path):
    directory = old("part")
    edited(directory / "run.json", lambda record: record["versions"].update(numpy="1.0.0"))
    ending = eprop_run("resume=part", "task.n_iter=6", check=True)
    assert rows(directory) == rows(OLD / "whole")
    with np.load(directory / "weights.npz") as ours, np.load(OLD / "whole" / "weights.npz") as whole:
        assert {name: ours[name].tobytes() for name in whole} == {name: whole[name].tobytes() for name in whole}
        assert int(ours["format"]) == FORMAT
    told = [line for line in ending.stdout.splitlines() if "versions" in line]
    assert len(told) == 1
    assert told[0].startswith("The run goes on with other versions than it had: ")
    assert f"numpy {np.__version__} (before 1.0.0)" in told[0]
    sessions = Run(directory).record["sessions"]
    assert [session["versions"]["numpy"] for session in sessions] == ["1.0.0", np.__version__]
    assert sessions[0]["host"] == "elsewhere"
    assert sessions[0]["command"][0] == sessions[1]["command"][0] == "eprop-run"
    assert sessions[0]["start"] == Run(directory).record["start"] < sessions[1]["start"]


def test_a_regression_cannot_go_on_as_its_loss_is_another(old):
    directory = old("part")
    with np.load(directory / "checkpoint.npz") as file:
        arrays = dict(file)
    stored = json.loads(str(arrays["config"]))
    stored["neuron"]["out"]["loss"] = "mean_squared_error"
    np.savez(directory / "checkpoint.npz", **(arrays | {"config": json.dumps(stored)}))
    with pytest.raises(UserError, match="its squared error is summed over the readouts") as error:
        load_checkpoint(directory)
    assert "\n" not in str(error.value)


def test_weights_of_an_old_run_are_taken(tmp_path):
    given = config(*NEW, f"synapse.weights_from={OLD / 'whole'}")
    weights = initial_weights(given, np.random.RandomState(1))
    np.testing.assert_array_equal(weights["in_rec"], Run(OLD / "whole").weights["in_rec"].after)


class TestANewerFormat:
    def message(self, path):
        return f"{path}: has format {FORMAT + 1}, and this eprop-cli reads up to {FORMAT}; update it"

    def test_of_a_record(self, old, command, monkeypatch, tmp_path):
        directory = old("whole")
        path = directory / "run.json"
        edited(path, lambda record: record.update(format=FORMAT + 1))
        monkeypatch.chdir(tmp_path)
        assert command(plot, directory)[0::2] == (2, f"eprop-plot: {self.message(path)}\n")
        status, _, err = command(compare, directory)
        assert (status, err) == (2, f"eprop-compare: {self.message(path)}\n")

    @pytest.mark.parametrize("name", ["run.json", "checkpoint.npz"])
    def test_of_a_run_to_be_resumed(self, name, old, eprop_run):
        path = old("part") / name
        if name == "run.json":
            edited(path, lambda record: record.update(format=FORMAT + 1))
        else:
            with_format(path, FORMAT + 1)
        before = {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}
        ending = eprop_run("resume=part", "task.n_iter=6")
        assert ending.returncode == 2
        assert ending.stderr.splitlines()[-1] == f"eprop-run: {self.message(Path('part') / name)}"
        assert {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()} == before

    def test_of_weights(self, old):
        path = old("whole") / "weights.npz"
        with_format(path, FORMAT + 1)
        with pytest.raises(UserError) as error:
            _ = Run(path.parent).weights
        assert str(error.value) == self.message(path)
        given = config(*NEW, f"synapse.weights_from={path.parent}")
        with pytest.raises(UserError) as error:
            initial_weights(given, np.random.RandomState(1))
        assert str(error.value) == self.message(path)

    @pytest.mark.parametrize("number", ["2", 0, None, True, 1.5])
    def test_what_is_no_format_is_damage(self, old, number):
        directory = old("whole")
        edited(directory / "run.json", lambda record: record.update(format=number))
        with pytest.raises(UserError) as error:
            _ = Run(directory).record
        assert str(error.value) == f"{directory / 'run.json'}: is damaged: its format is {number!r}"


class TestVersions:
    NOW = {"versions": {"python": "3.11.7", "eprop-cli": "0.1.0", "numpy": "2.4.6"}, "git_commit": None}  # noqa: RUF012

    def test_none_differs(self):
        assert changed_versions(self.NOW, self.NOW) == []

    def test_of_what_computes_nothing_is_not_told(self):
        assert changed_versions(self.NOW, self.NOW | {"versions": self.NOW["versions"] | {"pandas": "9"}}) == []

    def test_those_that_differ_are_told(self):
        before = {"versions": {"python": "3.11.7", "eprop-cli": "0.0.9", "numpy": "1.26.4", "numba": "0.60"}}
        assert changed_versions(before, self.NOW) == [
            "eprop-cli 0.1.0 (before 0.0.9)",
            "numpy 2.4.6 (before 1.26.4)",
            "numba none (before 0.60)",
        ]

    def test_another_commit_is_another_version(self):
        before, after = self.NOW | {"git_commit": "a" * 40}, self.NOW | {"git_commit": "b" * 40}
        assert changed_versions(before, after) == [f"eprop-cli 0.1.0 {'b' * 9} (before 0.1.0 {'a' * 9})"]

    def test_a_record_without_any_cannot_tell(self):
        assert changed_versions({}, self.NOW) == []
