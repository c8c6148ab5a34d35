import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from synthetic_run import batch_row, training_rows, write_run

from eprop_cli.errors import UserError
from eprop_cli.runs.files import FAILED, INTERRUPTED, RUNNING
from eprop_cli.runs.reader import Run, find_runs
from eprop_cli.schema import flatten

N_IN, N_REC, N_OUT, N_BATCH, SEQUENCE = 40, 20, 2, 2, 200  # of the smoke experiment


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def directory(written, tmp_path):
    """A copy to damage."""
    return shutil.copytree(written, tmp_path / "copy")


def edit_record(directory, **changes):
    record = json.loads((directory / "run.json").read_text())
    (directory / "run.json").write_text(json.dumps(record | changes))


def problem_of(read):
    try:
        read()
    except UserError as error:
        return str(error)


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


def test_metrics_are_the_rows_that_were_written(tmp_path):
    rows = [*training_rows(2), batch_row(2, "test", 1 / 3, float("nan"), float("nan"), float("nan"), 0.1, 2e-300)]
    metrics = Run(write_run(tmp_path / "run", rows=rows)).metrics
    assert list(metrics.columns) == [
        *("iteration", "phase", "loss", "accuracy", "recall_error", "rate_reg", "rate_ad", "seconds")
    ]
    expected = [list(row.flat().values()) for row in rows]
    for actual, row in zip(metrics.to_numpy().tolist(), expected, strict=True):
        assert [value if value == value else None for value in actual] == [v if v == v else None for v in row]
    assert metrics["iteration"].dtype == np.int64
    assert metrics["loss"].dtype == np.float64


def test_status_config_and_overrides(written):
    run = Run(written)
    assert run.status == "COMPLETED"
    assert run.record["seconds"] == {"build": 0.25, "simulate": 1.0, "other": 0.5}
    assert run.config["task"]["steps"] == {
        **{"cue": 20, "spacing": 10, "bg_noise": 60, "recall": 50},
        "learning_window": 50,
    }
    assert run.raw_config["task"]["steps"]["learning_window"] == "${.recall}"
    flat = flatten(run.raw_config)
    assert run.references == {key for key, value in flat.items() if isinstance(value, str) and "${" in value}
    assert "task.steps.learning_window" in run.references
    assert run.overrides == ["experiment=smoke", "task.n_iter=3"]


def test_weights(written):
    weights = Run(written).weights
    shapes = {name: pair.before.shape for name, pair in weights.items()}
    assert shapes == {
        "in_rec": (N_REC, N_IN),
        "rec_rec": (N_REC, N_REC),
        "rec_out": (N_OUT, N_REC),
        "out_rec": (N_REC, N_OUT),
    }
    np.testing.assert_array_equal(weights["rec_rec"].after, weights["rec_rec"].before + 0.5)
    np.testing.assert_array_equal(weights["out_rec"].after, weights["out_rec"].before)
    assert weights["in_rec"].before.dtype == np.float64


def test_weight_changes(written):
    changes = Run(written).weight_changes
    assert changes.astype({"projection": str}).to_dict("list") == {
        "projection": ["in_rec", "in_rec", "rec_out"],
        "pre": [1, 1, 0],
        "post": [2, 2, 1],
        "time": [250.0, 450.0, 300.0],
        "weight": [0.125, 0.25, -0.5],
    }


def test_recordings(written):
    run = Run(written)
    assert run.recorded == [1, 3]
    pd.testing.assert_frame_equal(run.spikes("first"), run.spikes(1))
    pd.testing.assert_frame_equal(run.spikes("last"), run.spikes(3))
    assert not run.spikes(1).equals(run.spikes(3))
    assert list(run.spikes(1)) == ["sequence", "time", "population", "neuron"]
    assert set(run.spikes(1)["population"]) == {"in", "reg", "ad"}
    for population, n in {"reg": 1, "ad": 1, "out": N_OUT}.items():
        assert len(run.dynamic_variables(population, "last")) == N_BATCH * SEQUENCE * n
    assert {"V_th_adapt", "learning_signal"} <= set(run.dynamic_variables("ad", 1))
    assert run.recording("last").keys() == {"spikes", "reg", "ad", "out", "windows"}


def test_windows(written):
    windows = Run(written).windows("last")
    recall = windows[windows["kind"] == "recall"]
    assert recall[["sequence", "start", "stop"]].to_numpy().tolist() == [[0, 150.0, 200.0], [1, 150.0, 200.0]]


def test_one_sequence_of_a_recording(written):
    run = Run(written)
    spikes = run.spikes("last")
    second = spikes[spikes["sequence"] == 1].reset_index(drop=True)
    assert len(second)
    pd.testing.assert_frame_equal(run.spikes("last", sequence=1), second)


def test_a_directory_that_looks_like_a_table_partition(written, tmp_path):
    run = Run(shutil.copytree(written, tmp_path / "seed=1" / "run"))
    assert list(run.spikes("last")) == ["sequence", "time", "population", "neuron"]
    assert "seed" not in run.weight_changes


def test_nothing_is_opened_before_it_is_asked_for(directory):
    for path in directory.rglob("*"):
        if path.is_file() and path.name != "run.json":
            path.write_bytes(b"rubbish")
    run = Run(directory)
    assert run.status == "COMPLETED"
    assert run.recorded == [1, 3]


def test_a_run_can_be_watched(directory):
    run = Run(directory)
    edit_record(directory, status=RUNNING)
    assert run.status == RUNNING
    with (directory / "metrics.csv").open("a") as file:
        file.write("4,training,0.5,0.5,0.5,1.0,1.0,1.0\n")
    assert run.metrics["iteration"].tolist() == [1, 2, 3, 4]


def test_a_copied_directory_reads_the_same(written, tmp_path):
    there = Run(shutil.copytree(written, tmp_path / "elsewhere"))
    pd.testing.assert_frame_equal(there.metrics, Run(written).metrics)
    pd.testing.assert_frame_equal(there.spikes("last"), Run(written).spikes("last"))


@pytest.mark.parametrize("status", [RUNNING, INTERRUPTED, FAILED])
def test_a_line_cut_off_as_the_run_died_is_left_out(directory, status):
    edit_record(directory, status=status)
    whole = (directory / "metrics.csv").read_text()
    (directory / "metrics.csv").write_text(whole[:-20])
    assert Run(directory).metrics["iteration"].tolist() == [1, 2]


@pytest.mark.parametrize("text", ["", "iteration,pha"])
def test_a_run_killed_at_once_has_no_rows(directory, text):
    edit_record(directory, status=RUNNING, last_row=None)
    (directory / "metrics.csv").write_text(text)
    metrics = Run(directory).metrics
    assert len(metrics) == 0
    assert {"iteration", "phase", "loss"} <= set(metrics)


def test_a_cut_off_line_must_still_be_one_of_this_table(directory):
    edit_record(directory, status=RUNNING)
    (directory / "metrics.csv").write_text("rubbish")
    with pytest.raises(UserError) as error:
        _ = Run(directory).metrics
    assert one_line(error) == f"{directory / 'metrics.csv'}: is damaged: it is no table"


def test_a_killed_run_has_what_it_has(directory):
    edit_record(directory, status=RUNNING)
    (directory / "weights.npz").unlink()
    shutil.rmtree(directory / "recordings" / "iteration_3")
    run = Run(directory)
    assert run.recorded == [1]
    assert len(run.metrics) == 3
    with pytest.raises(UserError) as error:
        _ = run.weights
    assert one_line(error).startswith(f"{directory}/weights.npz: is missing")


def test_whether_the_process_has_gone(directory):
    ended = subprocess.run([sys.executable, "-c", "import os, platform; print(os.getpid(), platform.node())"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    pid, host = ended.stdout.split()
    edit_record(directory, status=RUNNING, pid=int(pid), host=host)
    assert Run(directory).killed
    edit_record(directory, status=RUNNING, pid=1, host=host)
    assert not Run(directory).killed
    edit_record(directory, status=RUNNING, pid=int(pid), host="elsewhere")
    assert not Run(directory).killed
    edit_record(directory, status=INTERRUPTED, pid=int(pid), host=host)
    assert not Run(directory).killed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[:-20], "its last line is cut off"),
        (lambda text: text[: text.rindex("3,training")], "it does not reach the run's last iteration, 3"),
        (lambda text: text.replace("2,training,", "2,training,,"), "line 3 has 9 values instead of 8"),
        (lambda text: text.replace("2,training,0.78", "2,training,0.7?"), "line 3 has '0.7?' where a number belongs"),
        (lambda text: text.replace("2,training", "2,trai"), "line 3 has an unknown phase, 'trai'"),
        (lambda text: text.replace("loss", "los"), "its first line does not name loss"),
        (lambda text: "", "it does not reach the run's last iteration, 3"),
        (lambda text: text[:40] + "\0" * 100 + text[140:], ""),
    ],
)
def test_garbled_metrics(directory, change, reason):
    path = directory / "metrics.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError) as error:
        _ = Run(directory).metrics
    assert one_line(error).startswith(f"{path}: is damaged: {reason}")


READERS = {
    "run.json": lambda run: run.record,
    "metrics.csv": lambda run: run.metrics,
    "weights.npz": lambda run: run.weights,
    ".hydra/overrides.yaml": lambda run: run.overrides,
    ".hydra/config.yaml": lambda run: run.raw_config,
    ".hydra/./config.yaml": lambda run: run.references,  # the same file, in another way
    "recordings/weights.parquet": lambda run: run.weight_changes,
    "recordings/iteration_3/spikes.parquet": lambda run: run.spikes("last"),
    "recordings/iteration_3/reg.parquet": lambda run: run.dynamic_variables("reg", "last", 0),
    "recordings/iteration_3/windows.parquet": lambda run: run.windows("last"),
}


# None stands for half of the file; half of a YAML file can be whole YAML.
DAMAGES = [(name, damage) for name in READERS for damage in (b"\0\1\2[{", b"\xff\xfe" * 50, None)]


@pytest.mark.parametrize(("name", "rubbish"), [each for each in DAMAGES if each[1] or not each[0].endswith(".yaml")])
def test_a_damaged_file_is_named_in_one_line(directory, name, rubbish):
    path = directory / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if rubbish is None else rubbish)
    with pytest.raises(UserError) as error:
        READERS[name](Run(directory))
    assert one_line(error).startswith(f"{path}: is damaged: ")


@pytest.mark.parametrize("name", ["weights.npz", "recordings/iteration_3/reg.parquet", "recordings/weights.parquet"])
def test_no_cut_and_no_flipped_bytes_raise_anything_else(directory, name):
    path = directory / name
    content = path.read_bytes()
    rng = np.random.RandomState(1)
    for _ in range(40):
        damaged = bytearray(content)
        start = rng.randint(len(content))
        damaged[start : start + 20] = rng.bytes(min(20, len(content) - start))
        path.write_bytes(damaged if rng.rand() < 0.7 else damaged[:start])
        problem = problem_of(lambda: READERS[name](Run(directory)))
        assert problem is None or problem.startswith(f"{path}: is damaged: ")
        assert "\n" not in (problem or "")


@pytest.mark.parametrize("name", [name for name in READERS if name != "run.json"])
def test_a_missing_file_is_named_in_one_line(directory, name):
    (directory / name).unlink()
    with pytest.raises(UserError) as error:
        READERS[name](Run(directory))
    assert one_line(error).startswith(f"{directory / name}: is missing: ")


def test_a_missing_recording_is_not_listed(directory):
    (directory / "recordings" / "iteration_3" / "reg.parquet").unlink()
    assert Run(directory).recording("last").keys() == {"spikes", "ad", "out", "windows"}


def test_an_iteration_that_was_not_recorded(directory):
    with pytest.raises(UserError) as error:
        Run(directory).spikes(2)
    assert one_line(error) == f"{directory}: iteration 2 was not recorded; choose from 1, 3"
    shutil.rmtree(directory / "recordings")
    with pytest.raises(UserError) as error:
        Run(directory).spikes("last")
    assert one_line(error) == f"{directory}: no iteration was recorded"


def test_an_unreadable_file_is_not_called_damaged(directory):
    (directory / "metrics.csv").unlink()
    (directory / "metrics.csv").mkdir()
    with pytest.raises(UserError) as error:
        _ = Run(directory).metrics
    assert one_line(error) == f"{directory / 'metrics.csv'}: cannot be read: Is a directory"


def test_what_is_not_a_run_directory(written, tmp_path):
    with pytest.raises(UserError) as error:
        Run(tmp_path / "nowhere")
    assert one_line(error) == f"{tmp_path / 'nowhere'}: does not exist"
    with pytest.raises(UserError) as error:
        Run(written / "run.json")
    assert one_line(error) == f"{written / 'run.json'}: is a file; give the run directory"
    with pytest.raises(UserError) as error:
        Run(tmp_path)
    assert one_line(error) == f"{tmp_path}: is not a run directory: it holds no run.json"
    with pytest.raises(UserError) as error:
        Run(written.parent)
    assert one_line(error).endswith(f"give one of those in it, e.g. {written}")


def test_runs_are_found_at_any_depth_and_in_order(tmp_path):
    places = ["sweep/2", "sweep/10", "sweep/1", "a/b/c", "a/b/c/inside"]
    places += [f"eta-{eta}__seed-{seed}" for eta in ("0.001", "1e-05", "0.01") for seed in (10, 9)]
    for place in places:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "run.json").write_text("{}")
    found = [str(run.directory.relative_to(tmp_path)) for run in find_runs(tmp_path)]
    etas = [f"eta-{eta}__seed-{seed}" for eta in ("1e-05", "0.001", "0.01") for seed in (9, 10)]
    assert found == ["a/b/c", *etas, "sweep/1", "sweep/2", "sweep/10"]


def test_opening_a_run_imports_next_to_nothing():
    heavy = ("nest", "numpy", "pandas", "pyarrow", "matplotlib", "omegaconf")
    modules = "eprop_cli.runs.reader, eprop_cli.cli.eprop_plot, eprop_cli.cli.eprop_compare"
    code = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.nest
def test_a_real_run(tmp_path, eprop_run):
    overrides = ["experiment=smoke", "plots=none", "recording.n_record=2"]
    eprop_run(*overrides, "hydra.run.dir=run", check=True)
    run = Run(tmp_path / "run")
    assert run.status == "COMPLETED"
    assert run.overrides == overrides  # Hydra's own keys are not of the experiment
    assert run.config["task"]["n_batch"] == N_BATCH
    assert run.metrics[["iteration", "phase"]].to_numpy().tolist() == [[1, "training"], [2, "training"]]
    assert run.recorded == [1, 2]
    reg = run.dynamic_variables("reg", "first")
    assert len(reg) == N_BATCH * SEQUENCE * 2
    assert sorted(reg["neuron"].unique()) == [0, 1]
    assert (reg["learning_signal"] != 0).any()
    rates = run.spikes("last").query("population == 'reg'").groupby("sequence", observed=True).size()
    expected = run.metrics["rate_reg"].iloc[-1]
    assert rates.sum() / (10 * N_BATCH * SEQUENCE) * 1000.0 == pytest.approx(expected, rel=1e-12)
    weights = run.weights
    assert np.all(np.diag(weights["rec_rec"].before) == 0.0)
    for projection, pair in weights.items():
        assert np.any(pair.before != pair.after) == (projection != "out_rec")
    first = run.weight_changes.drop_duplicates(["projection", "pre", "post"])
    for row in first.query("time < 400").itertuples():
        assert row.weight == weights[row.projection].before[row.post, row.pre]
