"""Write the run directory while a run goes on.

Files appear whole: written beside their place, then moved there; metrics.csv grows by whole lines. Nothing is a pickle.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.connectivity.mask import Wiring
from eprop_cli.errors import UserError
from eprop_cli.formats import FORMAT
from eprop_cli.runs.directory import RESERVE, RESERVE_BYTES
from eprop_cli.runs.files import (
    BESIDE,
    CONFUSION,
    METRICS,
    PARAMETERS,
    RUN,
    RUNNING,
    WEIGHT_CHANGES,
    WEIGHTS,
    _discard,
    iteration_directory,
    lock,
    write_table,
    write_text,
    write_whole,
)
from eprop_cli.runs.reader import Run
from eprop_cli.values import Batch, Recording, Row, Table, Weights

MAX_WEIGHT_BATCHES = 1000  # beyond, only every second, fourth ... batch's weight changes are kept


class RunWriter:
    """Writes a run directory while the run goes on."""

    def __init__(self, directory: Path, record: Mapping[str, Any], keep_rows: int | None = None) -> None:
        """Begin a run in an existing directory, or go on after the first keep_rows rows of the one in it.

        record: what run.json says of the run besides its progress. Raises UserError if another process is at it.
        """
        self.directory = directory
        self.last_rows: list[Row] = []  # the last batches that were of one phase and of the same weights
        self._record = dict(record)
        self._confused: tuple[int, str, NDArray[np.int64]] | None = None  # iteration, phase, as losses.confusion
        self._columns = [column["name"] for column in record["columns"]]
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
            self._append(header(self._columns).strip())
        self.update(status=RUNNING)

    @property
    def last_row(self) -> Row | None:
        """The row written last; None before the first."""
        return self.last_rows[-1] if self.last_rows else None

    def update(self, **record: Any) -> None:
        """Change entries of run.json."""
        self._record |= record | {"last_row": self.last_row.flat() if self.last_row else None}
        write_text(self.directory / RUN, json.dumps(self._record, indent=2) + "\n")

    def rows(self) -> list[Row]:
        """The rows written so far, also by those before."""
        _, *lines = (self.directory / METRICS).read_text().splitlines()
        return [parse_row(line, self._columns) for line in lines]

    def row(self, row: Row) -> None:
        """Append a line to metrics.csv."""
        self._append(",".join(map(str, row.flat().values())))
        last = self.last_row
        same = last is not None and (last.iteration, last.phase) == (row.iteration, row.phase)
        self.last_rows = [*self.last_rows, row] if same else [row]

    def confusion(self, iteration: int, phase: str, counts: NDArray[np.int64]) -> None:
        """Write which class was taken for which, together with batches of the same phase of the same weights.

        counts: int (n_out, n_out), as losses.confusion.
        """
        if self._confused is not None and self._confused[:2] == (iteration, phase):
            counts = counts + self._confused[2]
        self._confused = iteration, phase, counts
        rows = [f"{iteration},{phase},{i},{j},{counts[i, j]}" for i, j in np.argwhere(counts)]
        write_text(self.directory / CONFUSION, "\n".join(["iteration,phase,actual,predicted,sequences", *rows]) + "\n")

    def recording(self, iteration: int, recording: Recording, batch: Batch, resolution: float) -> None:
        """Write the recording of an iteration, and the windows that its figures shade (start, stop in ms)."""
        windows = [(index, *astuple(window)) for index, shown in enumerate(batch.windows) for window in shown]
        sequence, kind, start, stop = map(np.array, zip(*windows, strict=True)) if windows else [np.array([])] * 4
        table: Table = {"sequence": sequence, "kind": kind, "start": start * resolution, "stop": stop * resolution}
        for name, columns in {**recording, "windows": table}.items():
            write_table(self.directory / iteration_directory(iteration) / f"{name}.parquet", columns)

    def weights(self, before: Weights, after: Weights, wiring: Wiring | None = None) -> None:
        """Write weights before and after training, projection_before and projection_after, and the feedback out_rec.

        Where not all synapses are there, projection_row, projection_post, projection_shape say which: see Mask.
        """
        arrays: dict[str, Any] = {f"{key}_before": before[key] for key in before if key != "out_rec"}
        arrays |= {f"{key}_after": after[key] for key in after if key != "out_rec"}
        arrays["out_rec"] = after["out_rec"]
        for key, mask in (wiring or {}).items():
            if not mask.is_dense:
                row, post = mask.lists
                arrays |= {f"{key}_row": row, f"{key}_post": post, f"{key}_shape": (mask.n_post, mask.n_pre)}
        arrays["format"] = FORMAT
        write_whole(self.directory / WEIGHTS, lambda file: np.savez(file, **arrays))

    def parameters(self, values: Mapping[str, Sequence[float]]) -> None:
        """Write the parameters that were drawn for each neuron, by their keys."""
        arrays: dict[str, Any] = {key: np.asarray(each, dtype=np.float64) for key, each in values.items()}
        write_whole(self.directory / PARAMETERS, lambda file: np.savez(file, **arrays))

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
            self.last_rows = [parse_row(rows[-1].decode(), self._columns)]

    def _append(self, line: str) -> None:
        size, data = self._metrics.tell(), line.encode() + b"\n"
        try:
            while data:  # a full disk takes a part first
                data = data[self._metrics.write(data) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._metrics.truncate(size)
            raise OSError(error.errno, error.strerror, str(self.directory / METRICS)) from error


def header(columns: Iterable[str]) -> str:
    """The first line of metrics.csv."""
    return ",".join(["iteration", "phase", *columns, "seconds"]) + "\n"


def parse_row(line: str, columns: Sequence[str]) -> Row:
    """A line of metrics.csv; raises ValueError unless it is one."""
    iteration, phase, *numbers, seconds = line.split(",")
    return Row(int(iteration), phase, dict(zip(columns, map(float, numbers), strict=True)), float(seconds))


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
