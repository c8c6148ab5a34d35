"""Write the run directory while a run goes on.

Files appear whole: written beside their place, then moved there; metrics.csv grows by whole lines. Nothing is a pickle.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from eprop_cli.engines.base import Recording, Table, Weights
from eprop_cli.errors import UserError
from eprop_cli.results import METRICS, RUN, RUNNING, WEIGHT_CHANGES, WEIGHTS, Run, iteration_directory
from eprop_cli.tasks import Batch
from eprop_cli.training.base import Row

MAX_WEIGHT_BATCHES = 1000  # beyond, only every second, fourth ... batch's weight changes are kept
BESIDE = ".part"  # ends the name of a file that is not whole yet
RESERVE, RESERVE_BYTES = ".reserve", 65536  # given up at the end, so that a full disk still takes the final status

HEADER = ",".join(field.name for field in fields(Row)) + "\n"  # of metrics.csv


def write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file so that it appears whole or not at all; raises OSError naming it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}{BESIDE}")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that it appears whole or not at all."""
    write_whole(path, lambda file: _discard(file.write(text.encode())))


def write_table(path: Path, table: Table) -> None:
    """Write a table as Parquet."""
    import pyarrow
    from pyarrow import parquet

    def column(values: NDArray[Any]) -> Any:
        # From buffers, as pyarrow.array() imports pandas: that takes 0.3 s and 40 MB in every run.
        if values.dtype.kind != "U":
            kind, buffer = pyarrow.from_numpy_dtype(values.dtype), pyarrow.py_buffer(np.ascontiguousarray(values))
            return pyarrow.Array.from_buffers(kind, len(values), [None, buffer])
        names, index = np.unique(values, return_inverse=True)
        encoded = [str(name).encode() for name in names]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
        buffers = [pyarrow.py_buffer(part) for part in (ends, b"".join(encoded))]
        strings = pyarrow.StringArray.from_buffers(len(names), *buffers)
        return pyarrow.DictionaryArray.from_arrays(column(index.astype(np.int32)), strings)

    columns = pyarrow.table({key: column(values) for key, values in table.items()})
    # Hardly a number with a fraction comes twice: a dictionary of them would only take memory.
    floats = [key for key, values in table.items() if values.dtype.kind == "f"]
    options = {"compression": "zstd", "use_dictionary": [key for key in table if key not in floats]}
    options["use_byte_stream_split"] = floats
    write_whole(path, lambda file: parquet.write_table(columns, file, **options))


def lock(file: IO[bytes]) -> bool:
    """Lock a file until it is closed, at the latest when this process ends; False if another process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


class RunWriter:
    """Writes a run directory while the run goes on."""

    def __init__(self, directory: Path, record: Mapping[str, Any], keep_rows: int | None = None) -> None:
        """Begin a run in an existing directory, or go on after the first keep_rows rows of the one in it.

        record: what run.json says of the run besides its progress. Raises UserError if another process is at it.
        """
        self.directory = directory
        self.last_rows: list[Row] = []  # the last batches that were of one phase and of the same weights
        self._record = dict(record)
        self._changes = WeightChanges()
        self._metrics = (directory / METRICS).open("ab", buffering=0)
        if not lock(self._metrics):
            raise UserError(f"{directory}: another process is writing there")
        for unfinished in directory.rglob(f".*{BESIDE}"):  # of a run that was killed
            unfinished.unlink()
        write_whole(directory / RESERVE, lambda file: _discard(file.write(os.urandom(RESERVE_BYTES))))
        if keep_rows is not None:
            self._keep(keep_rows)
        if self._metrics.seek(0, os.SEEK_END) == 0:
            self._append(HEADER.strip())
        self.update(status=RUNNING)

    @property
    def last_row(self) -> Row | None:
        """The row written last; None before the first."""
        return self.last_rows[-1] if self.last_rows else None

    def update(self, **record: Any) -> None:
        """Change entries of run.json."""
        self._record |= record | {"last_row": asdict(self.last_row) if self.last_row else None}
        write_text(self.directory / RUN, json.dumps(self._record, indent=2) + "\n")

    def row(self, row: Row) -> None:
        """Append a line to metrics.csv."""
        self._append(",".join(str(value) for value in asdict(row).values()))
        last = self.last_row
        same = last is not None and (last.iteration, last.phase) == (row.iteration, row.phase)
        self.last_rows = [*self.last_rows, row] if same else [row]

    def recording(self, iteration: int, recording: Recording, batch: Batch, resolution: float) -> None:
        """Write the recording of an iteration, and the windows that its figures shade (start, stop in ms)."""
        windows = [(index, *astuple(window)) for index, shown in enumerate(batch.windows) for window in shown]
        sequence, kind, start, stop = map(np.array, zip(*windows, strict=True)) if windows else [np.array([])] * 4
        table: Table = {"sequence": sequence, "kind": kind, "start": start * resolution, "stop": stop * resolution}
        for name, columns in {**recording, "windows": table}.items():
            write_table(self.directory / iteration_directory(iteration) / f"{name}.parquet", columns)

    def weights(self, before: Weights, after: Weights) -> None:
        """Write weights before and after training, projection_before and projection_after, and the feedback out_rec."""
        arrays: dict[str, Any] = {f"{key}_before": before[key] for key in before if key != "out_rec"}
        arrays |= {f"{key}_after": after[key] for key in after if key != "out_rec"}
        arrays["out_rec"] = before["out_rec"]
        write_whole(self.directory / WEIGHTS, lambda file: np.savez(file, **arrays))

    def weight_changes(self, changes: Table) -> None:
        """Keep a batch's weight changes; they are written with save_weight_changes."""
        self._changes.add(changes)

    def earlier_weight_changes(self, until: float) -> None:
        """Keep the weight changes of a run that is resumed, those until the given time (ms)."""
        if (self.directory / WEIGHT_CHANGES).exists():
            frame = Run(self.directory).weight_changes
            table: Table = {str(key): column.to_numpy() for key, column in frame[frame["time"] <= until].items()}
            table["projection"] = table["projection"].astype(str)
            self._changes.add(table)

    def save_weight_changes(self) -> None:
        """Write all weight changes kept so far."""
        if table := self._changes.table():
            write_table(self.directory / WEIGHT_CHANGES, table)

    def settle(self) -> None:
        """Have on the disk what a checkpoint that follows counts on: rows and weight changes."""
        os.fsync(self._metrics.fileno())
        self.save_weight_changes()

    def finish(self, status: str, **record: Any) -> None:
        """End the run; no other file changes afterwards."""
        self._metrics.close()
        (self.directory / RESERVE).unlink(missing_ok=True)
        self.update(status=status, **record)

    def _keep(self, n: int) -> None:
        """Cut metrics.csv after its first n rows."""
        _, *rows = lines = (self.directory / METRICS).read_bytes().splitlines(keepends=True)[: n + 1]
        self._metrics.truncate(sum(map(len, lines)))
        if rows:
            iteration, phase, *numbers = rows[-1].decode().split(",")
            self.last_rows = [Row(int(iteration), phase, *map(float, numbers))]

    def _append(self, line: str) -> None:
        size, data = self._metrics.tell(), line.encode() + b"\n"
        try:
            while data:  # a full disk takes a part first
                data = data[self._metrics.write(data) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._metrics.truncate(size)
            raise OSError(error.errno, error.strerror, str(self.directory / METRICS)) from error


class WeightChanges:
    """Weight changes of a bounded number of batches, evenly spaced however long the run."""

    def __init__(self) -> None:
        self._tables: dict[int, Table] = {}
        self._stride = 1
        self._count = 0

    def add(self, changes: Table) -> None:
        """Keep the changes of the next batch, and of earlier ones those that are among the evenly spaced."""
        self._tables[self._count] = changes
        self._count += 1
        if len(self._tables) > MAX_WEIGHT_BATCHES:
            self._stride *= 2
        # The newest is kept until the next one comes, so that time courses reach the end.
        last = self._count - 1
        self._tables = {key: value for key, value in self._tables.items() if key % self._stride == 0 or key == last}

    def table(self) -> Table:
        """All kept changes as one table; empty without any."""
        tables = list(self._tables.values())
        return {key: np.concatenate([table[key] for table in tables]) for key in tables[0]} if tables else {}


def _discard(_: Any) -> None:
    return None
