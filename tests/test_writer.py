import errno
import json
import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from pyarrow import parquet
from synthetic_run import COLUMNS, batch_row, written_columns

from eprop_cli.errors import UserError
from eprop_cli.runs import writer
from eprop_cli.runs.files import write_table, write_text, write_whole
from eprop_cli.runs.reader import Run
from eprop_cli.runs.writer import RunWriter, WeightChanges

RECORD = {"columns": written_columns(COLUMNS)}
HEADER = "iteration,phase,loss,accuracy,recall_error,rate_reg,rate_ad,seconds"


def row(iteration, loss=0.5):
    return batch_row(iteration, "training", loss, 0.75, 0.25, 10.0, 12.5, 0.125)


def lines(directory):
    return (directory / "metrics.csv").read_text().splitlines()


def changes(batch):
    return {"time": np.array([float(batch)]), "weight": np.array([batch / 4])}


class TestWriteWhole:
    def test_content_and_directories(self, tmp_path):
        write_text(tmp_path / "a" / "b" / "text", "µ\n")
        assert (tmp_path / "a" / "b" / "text").read_bytes() == b"\xc2\xb5\n"
        assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["text"]

    def test_an_earlier_file_stays_until_the_new_one_is_whole(self, tmp_path):
        path = tmp_path / "file"
        path.write_text("old")
        seen = []

        def write(file):
            file.write(b"ne")
            file.flush()
            seen.append(path.read_text())
            file.write(b"w")

        write_whole(path, write)
        assert seen == ["old"]
        assert path.read_text() == "new"

    def test_nothing_changes_if_it_fails(self, tmp_path):
        path = tmp_path / "file"
        path.write_text("old")

        def write(file):
            file.write(b"new")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.raises(OSError, match="No space left on device") as caught:
            write_whole(path, write)
        assert caught.value.filename == str(path)
        assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_tables_keep_their_values(tmp_path):
    table = {"name": np.array(["b", "a", "b"]), "n": np.array([1, 2, 3], np.int32), "x": np.array([0.1, np.nan, -0.0])}
    write_table(tmp_path / "table.parquet", table)
    read = parquet.read_table(tmp_path / "table.parquet").to_pandas()
    assert read["name"].tolist() == ["b", "a", "b"]
    assert read["n"].dtype == np.int32
    assert read["x"].to_numpy().tobytes() == table["x"].tobytes()


class TestRunWriter:
    def test_a_run_says_that_it_is_running_from_the_start(self, tmp_path):
        RunWriter(tmp_path, RECORD | {"status": None, "seed": 3})
        record = json.loads((tmp_path / "run.json").read_text())
        assert record == RECORD | {"status": "RUNNING", "seed": 3, "last_row": None}
        assert lines(tmp_path) == [HEADER]

    def test_rows_are_there_at_once_and_read_back_to_the_last_digit(self, tmp_path):
        written = RunWriter(tmp_path, RECORD)
        for iteration, loss in enumerate((0.1, np.nextafter(0.1, 1), 1 / 3), start=1):
            written.row(row(iteration, float(loss)))
            assert len(lines(tmp_path)) == iteration + 1
            assert float(lines(tmp_path)[-1].split(",")[2]) == loss
        assert lines(tmp_path)[1] == "1,training,0.1,0.75,0.25,10.0,12.5,0.125"

    def test_the_end(self, tmp_path):
        written = RunWriter(tmp_path, RECORD)
        written.row(row(1))
        written.finish("COMPLETED", error=None, seconds={"build": 1.0})
        assert {path.name for path in tmp_path.iterdir()} == {"run.json", "metrics.csv"}
        record = Run(tmp_path).record
        assert (record["status"], record["error"], record["seconds"]) == ("COMPLETED", None, {"build": 1.0})
        assert (record["last_row"]["iteration"], record["last_row"]["loss"]) == (1, 0.5)

    def test_batches_of_the_same_weights_are_remembered_together(self, tmp_path):
        written = RunWriter(tmp_path, RECORD)
        rows = [row(1), row(2), *(replace(row(2, loss), phase="test") for loss in (0.25, 0.75))]
        remembered = []
        for each in rows:
            written.row(each)
            remembered.append(written.last_rows)
        assert remembered == [rows[:1], rows[1:2], rows[2:3], rows[2:]]
        assert written.last_row == rows[-1]

    def test_a_line_that_does_not_fit_is_taken_back(self, tmp_path):
        written = RunWriter(tmp_path, RECORD)
        written.row(row(1))

        class Full:
            """metrics.csv on a disk that has room for five more bytes."""

            def __init__(self, file):
                self.tell, self.truncate, self._file, self._room = file.tell, file.truncate, file, 5

            def write(self, data):
                if not self._room:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                written, self._room = self._file.write(data[: self._room]), 0
                return written

        written._metrics = Full(written._metrics)
        with pytest.raises(OSError, match="No space left on device") as caught:
            written.row(row(2))
        assert caught.value.filename == str(tmp_path / "metrics.csv")
        assert lines(tmp_path) == [HEADER, "1,training,0.5,0.75,0.25,10.0,12.5,0.125"]
        assert written.last_row == row(1)

    def test_only_one_process_writes_at_a_time(self, tmp_path):
        first = RunWriter(tmp_path, RECORD)
        first.row(row(1))
        with pytest.raises(UserError) as caught:
            RunWriter(tmp_path, RECORD, keep_rows=0)
        assert str(caught.value) == f"{tmp_path}: another process is writing there"
        assert len(lines(tmp_path)) == 2
        first.finish("COMPLETED")
        RunWriter(tmp_path, RECORD, keep_rows=0)

    def test_going_on_keeps_the_given_rows_and_clears_what_a_kill_left(self, tmp_path):
        written = RunWriter(tmp_path, RECORD)
        for iteration in range(1, 5):
            written.row(row(iteration))
        written._metrics.close()
        (tmp_path / "metrics.csv").open("a").write("5,tra")
        (tmp_path / "recordings").mkdir()
        for unfinished in (".checkpoint.npz.77.part", "recordings/.weights.parquet.77.part"):
            (tmp_path / unfinished).write_text("half")
        again = RunWriter(tmp_path, RECORD, keep_rows=2)
        assert again.last_row == row(2)
        assert lines(tmp_path) == [HEADER, *(f"{i},training,0.5,0.75,0.25,10.0,12.5,0.125" for i in (1, 2))]
        again.row(row(3))
        assert lines(tmp_path)[-1].startswith("3,")
        assert not list(tmp_path.rglob("*.part"))

    def test_going_on_with_no_rows(self, tmp_path):
        RunWriter(tmp_path, RECORD).row(row(1))
        RunWriter(tmp_path, RECORD, keep_rows=0)
        assert lines(tmp_path) == [HEADER]

    def test_room_for_the_end_is_kept_until_then(self, tmp_path):
        written = RunWriter(tmp_path, RECORD)
        assert (tmp_path / ".reserve").stat().st_blocks * 512 >= writer.RESERVE_BYTES
        written.finish("FAILED")
        assert not (tmp_path / ".reserve").exists()

    def test_weights(self, tmp_path):
        before = {
            name: np.full((2, 3), value) for value, name in enumerate(("in_rec", "rec_rec", "rec_out", "out_rec"))
        }
        after = {name: values + 0.5 for name, values in before.items()}
        RunWriter(tmp_path, RECORD).weights(before, after)
        with np.load(tmp_path / "weights.npz", allow_pickle=False) as file:
            expected = {f"{name}_{when}" for name in ("in_rec", "rec_rec", "rec_out") for when in ("before", "after")}
            assert set(file.files) == {*expected, "out_rec", "format"}
            assert int(file["format"]) == 2
            assert np.all(file["rec_out_after"] == 2.5)
            assert np.all(file["out_rec"] == 3.5)  # feedback that is the transpose of rec_out changes, too


class TestWeightChanges:
    @pytest.mark.parametrize(("n", "stride"), [(8, 1), (9, 2), (14, 2), (16, 4), (100, 32)])
    def test_evenly_spaced_batches_and_the_last_are_kept(self, monkeypatch, n, stride):
        monkeypatch.setattr(writer, "MAX_WEIGHT_BATCHES", 8)
        kept = WeightChanges()
        for batch in range(n):
            kept.add(changes(batch))
        assert kept.table()["time"].tolist() == sorted({*range(0, n, stride), n - 1})

    def test_without_any(self):
        assert WeightChanges().table() == {}

    def test_those_of_an_earlier_run_are_kept_up_to_a_time(self, tmp_path):
        def batch(time):
            ends = {"pre": np.array([1, 2]), "post": np.array([3, 4])}
            return {
                "projection": np.array(["in_rec", "rec_out"]),
                **ends,
                "time": np.full(2, time),
                "weight": np.ones(2),
            }

        first = RunWriter(tmp_path, RECORD)
        for time in (100.0, 200.0, 300.0):
            first.weight_changes(batch(time))
        first.settle()
        first.finish("INTERRUPTED")
        again = RunWriter(tmp_path, RECORD, keep_rows=0)
        again.earlier_weight_changes(until=200.0)
        again.weight_changes(batch(250.0))
        again.save_weight_changes()
        table = Run(tmp_path).weight_changes
        assert Counter(table["time"]) == {100.0: 2, 200.0: 2, 250.0: 2}
        assert table["projection"].tolist() == ["in_rec", "rec_out"] * 3
