"""What one run leaves, simulated in this process."""

import json
import os
import signal
import sys
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from small import BARE, SEQUENCE, SMALL, config

from eprop_cli import __version__
from eprop_cli.runs.reader import Run
from eprop_cli.runs.run import Ending, run
from eprop_cli.schema import to_dict
from eprop_cli.tasks.evidence_accumulation import EvidenceAccumulation

PARALLEL = ("training=data_parallel", "engine=compiled", "training.n_iter_test=1")
FILES = {"run.json", "metrics.csv", "weights.npz", "packages.txt"}
RECORDED = {
    f"recordings/iteration_{n}/{name}.parquet" for n in (1, 3) for name in ("spikes", "reg", "ad", "out", "windows")
}
FIGURES = {f"figures/{name}.png" for name in ("learning", "weight_matrices", "weight_time_courses")}
FIGURES |= {f"figures/dynamics_iteration_{n}.png" for n in (1, 3)}


def files(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


class TestFiles:
    @pytest.mark.nest
    def test_of_a_continuous_run(self, tmp_path):
        assert run(config(*SMALL, "task.n_iter=3", "plots.dpi=20"), tmp_path) == Ending("COMPLETED", 0)
        assert files(tmp_path) == FILES | RECORDED | FIGURES | {"recordings/weights.parquet"}

    def test_of_a_data_parallel_run(self, tmp_path):
        assert run(config(*SMALL, *PARALLEL, "task.n_iter=3", "plots=none"), tmp_path) == Ending("COMPLETED", 0)
        assert files(tmp_path) == FILES | RECORDED | {"recordings/weights.parquet", "checkpoint.npz"}

    def test_of_a_bare_run(self, tmp_path):
        run(config(*SMALL, *BARE, *PARALLEL), tmp_path)
        assert files(tmp_path) == FILES | {"checkpoint.npz"}

    def test_no_array_is_a_pickle(self, tmp_path):
        run(config(*SMALL, *BARE, *PARALLEL), tmp_path)
        for path in tmp_path.glob("*.npz"):
            with np.load(path, allow_pickle=False) as arrays:
                assert all(arrays[name].dtype != object for name in arrays.files)


class TestRecord:
    @pytest.fixture
    def record(self, tmp_path):
        self.config = config(*SMALL, *BARE, *PARALLEL, "seed=7")
        run(self.config, tmp_path)
        return json.loads((tmp_path / "run.json").read_text())

    def test_says_how_it_came_about(self, record):
        assert record["command"] == [os.path.basename(sys.argv[0]), *sys.argv[1:]]
        assert record["seed"] == 7
        assert record["config"] == to_dict(self.config)
        assert record["format"] == 2
        assert record["loss"]["name"] == "cross_entropy"
        names = [column["name"] for column in record["columns"]]
        assert names == ["loss", "accuracy", "recall_error", "rate_reg", "rate_ad"]
        assert record["populations"] == [
            {"name": "reg", "label": "regular", "size": 4},
            {"name": "ad", "label": "adaptive", "size": 4},
        ]
        assert (record["pid"], record["host"]) == (os.getpid(), os.uname().nodename)
        assert record["versions"]["eprop-cli"] == __version__
        assert record["versions"]["numpy"] == np.__version__
        assert record["versions"]["python"] == sys.version.split()[0]
        assert {"nest-simulator", "hydra-core", "numba"} <= record["versions"].keys()

    def test_says_what_became_of_it(self, record, tmp_path):
        assert (record["status"], record["error"]) == ("COMPLETED", None)
        last = Run(tmp_path).metrics.iloc[-1]
        assert record["last_row"] == last.to_dict()
        assert (last["iteration"], last["phase"]) == (5, "test")

    def test_says_where_the_time_went(self, record):
        start, stop = (datetime.fromisoformat(record[key]) for key in ("start", "stop"))
        assert start <= stop <= datetime.now(timezone.utc)
        assert record["seconds"].keys() == {"build", "simulate", "other"}
        assert min(record["seconds"].values()) >= 0
        assert record["seconds"]["simulate"] > 0
        assert timedelta(seconds=sum(record["seconds"].values())) <= stop - start + timedelta(milliseconds=5)


@pytest.mark.parametrize(
    "way", [pytest.param((), marks=pytest.mark.nest), PARALLEL], ids=["continuous", "data_parallel"]
)
def test_rows_are_there_as_they_come(way, tmp_path, watchers):
    seen = []

    def look(row):
        seen.append((Run(tmp_path).status, len(Run(tmp_path).metrics)))
        assert Run(tmp_path).metrics.iloc[-1]["loss"] == row.metrics["loss"]

    watchers.append(look)
    run(config(*SMALL, *BARE, *way, "task.n_iter=3", "training.n_iter_test=1"), tmp_path)
    assert seen == [("RUNNING", n) for n in (1, 2, 3, 4)]
    assert Run(tmp_path).metrics["iteration"].tolist() == [1, 2, 3, 3]


def test_weights_that_are_recorded_end_at_those_that_are_kept(tmp_path):
    run(config(*SMALL, *BARE, *PARALLEL, "recording.n_record_w=8"), tmp_path)
    written = Run(tmp_path)
    changes = written.weight_changes
    assert changes["time"].max() == 5 * SEQUENCE
    for name, projection in ((name, written.weights[name]) for name in ("in_rec", "rec_rec", "rec_out")):
        last = changes[(changes["projection"] == name) & (changes["time"] == 5 * SEQUENCE)]
        assert projection.after[last["post"], last["pre"]].tolist() == last["weight"].tolist()
        assert np.any(projection.after != projection.before)


class TestSignals:
    @pytest.fixture
    def signalled(self, watchers):
        """Has signals sent when the second row has been written."""

        def send(*numbers):
            def watch(row):
                if row.iteration == 2:
                    for number in numbers:
                        os.kill(os.getpid(), number)

            watchers.append(watch)

        return send

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_end_a_run_after_the_row_under_way(self, number, signalled, tmp_path):
        signalled(number)
        ending = run(config(*SMALL, *BARE, *PARALLEL), tmp_path)
        assert ending == Ending("INTERRUPTED", 128 + number, f"interrupted by {number.name}")
        written = Run(tmp_path)
        assert (written.status, written.record["error"]) == ("INTERRUPTED", ending.error)
        assert written.metrics["iteration"].tolist() == [1, 2]
        assert files(tmp_path) == FILES | {"checkpoint.npz"}

    @pytest.mark.parametrize(("numbers", "trained"), [([signal.SIGINT], 1), ([signal.SIGINT] * 2, 0)])
    def test_ctrl_c_waits_for_the_iteration_unless_it_comes_twice(self, numbers, trained, tmp_path, monkeypatch):
        batch, left = EvidenceAccumulation.batch, list(numbers)

        def interrupted(*arguments):
            while left:
                os.kill(os.getpid(), left.pop())
            return batch(*arguments)

        monkeypatch.setattr(EvidenceAccumulation, "batch", interrupted)
        ending = run(config(*SMALL, *BARE, *PARALLEL), tmp_path)
        assert ending == Ending("INTERRUPTED", 130, "interrupted by SIGINT")
        assert len(Run(tmp_path).metrics) == trained

    def test_a_run_under_nohup_goes_on_without_its_terminal(self, signalled, tmp_path):
        signalled(signal.SIGHUP)
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            assert run(config(*SMALL, *BARE, *PARALLEL), tmp_path) == Ending("COMPLETED", 0)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_that_follow_do_not_keep_it_from_ending_in_order(self, signalled, tmp_path, monkeypatch):
        def draw_weights(*_):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)

        signalled(signal.SIGTERM, signal.SIGINT)
        monkeypatch.setattr("eprop_cli.runs.writer.RunWriter.weights", draw_weights)
        assert run(config(*SMALL, *BARE, *PARALLEL), tmp_path).exit_status == 143
        assert Run(tmp_path).status == "INTERRUPTED"

    def test_that_come_while_the_last_files_are_written_wait(self, tmp_path, monkeypatch):
        from eprop_cli.runs.writer import RunWriter

        weights = RunWriter.weights

        def interrupted(*arguments):
            os.kill(os.getpid(), signal.SIGTERM)
            weights(*arguments)

        monkeypatch.setattr(RunWriter, "weights", interrupted)
        assert run(config(*SMALL, *BARE, *PARALLEL), tmp_path).exit_status == 143
        assert files(tmp_path) == FILES | {"checkpoint.npz"}
        assert Run(tmp_path).metrics["phase"].tolist() == ["training"] * 5 + ["test"]

    def test_that_a_library_answers_with_an_error_interrupt_all_the_same(self, tmp_path, monkeypatch):
        def draw(*_):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                raise AttributeError("left in mid-work")

        monkeypatch.setattr("eprop_cli.figures.base.Drawing.write", draw)
        ending = run(config(*SMALL, *PARALLEL), tmp_path)
        assert ending == Ending("INTERRUPTED", 143, "interrupted by SIGTERM")

    def test_are_left_to_others_again_afterwards(self, tmp_path):
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        run(config(*SMALL, *BARE, *PARALLEL), tmp_path)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_figure_that_cannot_be_drawn_leaves_the_rest(tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("no\nfont")

    monkeypatch.setattr("eprop_cli.figures.base.Drawing.write", fail)
    ending = run(config(*SMALL, *PARALLEL, "task.n_iter=3"), tmp_path)
    assert ending == Ending("FAILED", 1, "ValueError: no font")
    assert (Run(tmp_path).status, Run(tmp_path).record["error"]) == ("FAILED", "ValueError: no font")
    assert files(tmp_path) == FILES | RECORDED | {"recordings/weights.parquet", "checkpoint.npz"}


@pytest.mark.parametrize(("error", "why"), [(SystemExit(0), "SystemExit: 0"), (GeneratorExit("x"), "GeneratorExit: x")])
def test_a_task_that_would_end_the_process_fails(tmp_path, monkeypatch, error, why):
    def batch(*_):
        raise error

    monkeypatch.setattr(EvidenceAccumulation, "batch", batch)
    assert run(config(*SMALL, *BARE, *PARALLEL), tmp_path) == Ending("FAILED", 1, why)
    assert (Run(tmp_path).status, Run(tmp_path).record["error"]) == ("FAILED", why)


def test_what_is_printed_can_be_pasted_into_a_shell(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my runs" / "first").mkdir(parents=True)
    (tmp_path / "my runs" / "second").mkdir()
    (tmp_path / "my runs" / "second" / "run.json").touch()
    run(config(*SMALL, *BARE, *PARALLEL), tmp_path / "my runs" / "first")
    assert caplog.messages[-2:] == [
        "Files: my runs/first",
        "Next: eprop-plot 'my runs/first'; eprop-compare 'my runs'",
    ]


@pytest.mark.parametrize(
    ("directory", "compare"),
    [
        ("outputs/2026-01-31/12-00-00-000000", "; eprop-compare outputs/2026-01-31"),
        ("outputs/first", ""),
        ("2026-01-31/12-00-00-000000", ""),
        ("first", ""),
    ],
)
def test_a_comparison_is_offered_where_runs_are_gathered(tmp_path, caplog, monkeypatch, directory, compare):
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    (tmp_path / directory).mkdir(parents=True)
    run(config(*SMALL, *BARE, *PARALLEL), tmp_path / directory)
    assert caplog.messages[-1] == f"Next: eprop-plot {directory}{compare}"


def test_the_result_is_the_mean_over_the_test(tmp_path, caplog):
    caplog.set_level("INFO")
    run(config(*SMALL, *BARE, *PARALLEL, "training.n_iter_test=3"), tmp_path)
    test = Run(tmp_path).metrics.query("phase == 'test'")
    loss, error = test["loss"].mean(), test["recall_error"].mean()
    assert f"test loss {loss:.4f}, recall error {error:.3f} (means of 3 batches)" in caplog.messages[-3]
