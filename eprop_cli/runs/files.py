"""What the files of a run are called, and how they are written: whole or not at all."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eprop_cli.values import Table

RUNNING, COMPLETED, INTERRUPTED, FAILED = "RUNNING", "COMPLETED", "INTERRUPTED", "FAILED"
PRUNED = "PRUNED"  # stopped by the search that began it
RUN, METRICS, WEIGHTS, RECORDINGS = "run.json", "metrics.csv", "weights.npz", "recordings"
CONFUSION = "confusion.csv"
SWEEP = "sweep.json"  # in a sweep directory: the arguments of the multirun begun last there
PARAMETERS = "parameters.npz"  # drawn for each neuron
WEIGHT_CHANGES = f"{RECORDINGS}/weights.parquet"
CONFIG, OVERRIDES, FIGURES = ".hydra/config.yaml", ".hydra/overrides.yaml", "figures"
ITERATION = "iteration_"


def iteration_directory(iteration: int) -> str:
    """Directory of a recorded iteration, relative to the run directory."""
    return f"{RECORDINGS}/{ITERATION}{iteration}"


def natural(path: Path) -> list[list[tuple[float, str]]]:
    """Sort key that puts numbers in their order: job 10 of a sweep after job 9, eta-0.1 after eta-1e-05."""
    names = (re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", name) for name in path.parts)
    return [[(float(part), "") if index % 2 else (-1.0, part) for index, part in enumerate(parts)] for parts in names]


def is_alive(pid: Any) -> bool:
    """Whether a process of this machine exists."""
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


LOG = "eprop-run.log"
BESIDE = ".part"  # ends the name of a file that is not whole yet


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
    import numpy as np
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


def _discard(_: Any) -> None:
    return None
