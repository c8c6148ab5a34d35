"""Well-formed files with the wrong content: refused in one line before anything is written."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from forked import run_command
from small import BARE, SMALL, config
from synthetic_run import write_run

from eprop_cli.cli import eprop_compare, eprop_plot
from eprop_cli.errors import UserError
from eprop_cli.runs.checkpoint import check_resume
from eprop_cli.runs.content import parse_record
from eprop_cli.runs.reader import Run

QUICK = (*SMALL, *BARE, "training=data_parallel", "engine=compiled", "task.n_iter=2", "task.n_batch=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    run_command(*QUICK, "training.n_iter_test=1", "hydra.run.dir=run", cwd=directory, check=True)
    return directory / "run"


@pytest.fixture
def completed(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def refused(directory, *overrides):
    """Why a run cannot be resumed, which must be told before anything in it has changed."""
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    given = config(*QUICK, "training.n_iter_test=1", *overrides, f"resume='{directory}'")
    with pytest.raises(UserError) as caught:
        check_resume(given, directory)
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(directory, **arrays):
    with np.load(directory / "checkpoint.npz") as file:
        kept = {name: values for name, values in file.items() if arrays.get(name, 0) is not None}
    np.savez(directory / "checkpoint.npz", **kept | {name: each for name, each in arrays.items() if each is not None})


def test_what_is_as_it_was_is_taken(completed):
    check_resume(config(*QUICK, "training.n_iter_test=1", "task.n_iter=3", f"resume='{completed}'"), completed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iteration", -5),
        ("iteration", 1),
        ("iteration", 2.0),
        ("iteration", "two"),
        ("rows", -1),
        ("rows", 10**6),
        ("step", -3),
        ("step", None),
        ("metric", "nan"),
        ("metric", 1j),
        ("stopped", 1),
        ("lowest", None),
        ("drawn_training", -1),
        ("stream_training_pos", 10**9),
        ("stream_training_pos", -1),
        ("stream_test_key", np.zeros(3, np.uint32)),
        ("stream_test_key", np.zeros(624)),
        ("stream_test_has_gauss", 7),
        ("stream_test_gauss", np.nan),
        ("weights_rec_rec", None),
        ("weights_rec_rec", np.zeros((8, 7))),
        ("weights_in_rec", np.full((8, 8), np.nan)),
        ("initial_in_rec", np.zeros((8, 8), complex)),
        ("v_in_rec", np.full((8, 8), -1.0)),
        ("m_in_rec", np.zeros((8, 8), "M8[s]")),
        ("beta_1_power", 5.0),
        ("best_in_rec", np.zeros((8, 8))),
        ("config", "[]"),
        ("config", "{"),
        ("config", "[" * 10**5),
        ("config", 5),
        ("format", -1),
    ],
    ids=str,
)
def test_a_checkpoint_of_other_content_changes_nothing(completed, name, value):
    rewrite(completed, **{name: value})
    told = refused(completed, "task.n_iter=3")
    assert told.startswith((f"{completed / 'checkpoint.npz'}: ", f"{completed / 'metrics.csv'}: "))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("pid", 10**30),
        ("pid", "1"),
        ("pid", True),
        ("resumed", 5),
        ("seconds", "x"),
        ("seconds", {"build": "x"}),
        ("seconds", {"build": float("nan")}),
        ("seconds", {"build": -1}),
        ("last_row", [1]),
        ("last_row", {"iteration": "x"}),
        ("last_row", {"iteration": 10**400}),
        ("columns", {}),
        ("columns", [{}]),
        ("columns", [{"name": "../x", "label": "x"}]),
        ("columns", [{"name": "x", "label": "x", "more": 1}]),
        ("columns", [{"name": "loss", "label": "x"}, {"name": "loss", "label": "x"}]),
        ("populations", [{"name": "reg", "label": "x", "size": -1}]),
        ("sessions", 5),
        ("sessions", [{"versions": 5}]),
        ("versions", {"numpy": 5}),
        ("error", 5),
        ("start", 5),
        ("format", "2"),
        ("status", 5),
        ("config", []),
    ],
    ids=str,
)
def test_a_record_of_other_content(completed, entry, value):
    record = json.loads((completed / "run.json").read_text())
    (completed / "run.json").write_text(json.dumps(record | {entry: value}))
    with pytest.raises(UserError, match=r"run.json: is damaged: "):
        _ = Run(completed).record
    assert refused(completed).startswith(f"resume={completed}: cannot be resumed: its run.json is damaged (")


def test_a_record_without_end():
    for text in ('{"a":' * 10**5, "[" * 10**5):
        with pytest.raises(ValueError, match="keys in keys without end"):
            parse_record(text)


@pytest.mark.parametrize("line", ["2,training,1,1,1,1,1,1", "-1,training,1,1,1,1,1,1", "1,testing,1,1,1,1,1,1"])
def test_a_table_of_other_content(completed, line):
    lines = (completed / "metrics.csv").read_text().splitlines()
    (completed / "metrics.csv").write_text("\n".join([lines[0], line, *lines[2:]]) + "\n")
    assert refused(completed).startswith(f"{completed / 'metrics.csv'}: ")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("written") / "run")


TABLES = {
    "weights.parquet": pd.DataFrame({"x": [1]}),
    "iteration_1/spikes.parquet": pd.DataFrame({"sequence": ["a"], "time": ["b"], "neuron": [0], "population": [1]}),
    "iteration_1/reg.parquet": pd.DataFrame({"sequence": [0], "time": [0.0], "neuron": [0], "V_m": ["high"]}),
    "iteration_1/windows.parquet": pd.DataFrame({"sequence": [0.0], "kind": [None], "start": [0.0], "stop": [1.0]}),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_recording_of_other_columns(written, tmp_path, name, monkeypatch, capsys):
    run = shutil.copytree(written, tmp_path / "run")
    TABLES[name].to_parquet(run / "recordings" / name)
    monkeypatch.setattr("sys.argv", ["eprop-plot", str(run), "--dpi", "20"])
    with pytest.raises(SystemExit) as ending:
        eprop_plot.plot()
    told = capsys.readouterr().err
    assert ending.value.code == 2
    assert set(told.splitlines()) == {told.splitlines()[0]}
    assert told.startswith(f"eprop-plot: {run / 'recordings' / name}: is damaged: ")


def test_one_bad_run_does_not_take_down_a_comparison(written, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(written, "good")
    for name, entry in {"a": {"columns": [{"name": "x", "label": "$\\frac"}]}, "b": {"seconds": "x"}}.items():
        shutil.copytree(written, name)
        record = json.loads((tmp_path / name / "run.json").read_text())
        (tmp_path / name / "run.json").write_text(json.dumps(record | entry))
    monkeypatch.setattr("sys.argv", ["eprop-compare", "good", "a", "b"])
    with pytest.raises(SystemExit) as ending:
        eprop_compare.compare()
    printed = capsys.readouterr()
    assert ending.value.code == 2
    assert "COMPLETED" in printed.out
    assert len(printed.err.splitlines()) == 2


def test_a_formula_that_is_none_in_a_name_is_told(written, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(written, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["columns"][0]["label"] = "$\\frac$"
    (run / "run.json").write_text(json.dumps(record))
    monkeypatch.setattr("sys.argv", ["eprop-plot", str(run), "--figures", "learning"])
    with pytest.raises(SystemExit) as ending:
        eprop_plot.plot()
    told = capsys.readouterr().err
    assert (ending.value.code, told.count("\n")) == (2, 1)
    assert "learning.png: cannot be drawn" in told
