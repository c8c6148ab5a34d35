"""The run directory as a reader sees it: what its files are called and what is in them.

Run opens one, without NEST and whatever became of the run:

    run = Run("outputs/2026-01-31/12-00-00-000000")
    run.metrics, run.weights["rec_rec"].after, run.spikes("last")
"""

from __future__ import annotations

import os
import platform
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eprop_cli.columns import Column
from eprop_cli.errors import UserError
from eprop_cli.formats import check_format
from eprop_cli.phases import PHASES
from eprop_cli.runs.content import check_table, is_count, parse_record
from eprop_cli.runs.files import (
    COMPLETED,
    CONFIG,
    CONFUSION,
    ITERATION,
    METRICS,
    OVERRIDES,
    PARAMETERS,
    RECORDINGS,
    RUN,
    RUNNING,
    WEIGHT_CHANGES,
    WEIGHTS,
    is_alive,
    iteration_directory,
    natural,
)
from eprop_cli.runs.format import migrated

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


NEEDED_GROUPS = ("task", "neuron", "recording", "kernel", "plots")  # of the config, to list and draw a run
NEEDED_NUMBERS = (("task", "n_iter"), ("task", "n_in"), ("recording", "n_record_w"))  # of those, what is computed with
Iteration = int | Literal["first", "last"]  # a recorded iteration: its number, or the first or last recorded


@dataclass(frozen=True)
class Projection:
    """Weights of a projection.

    before, after: float64 (n_post, n_pre), pA, before and after training; a SciPy csc_array where the run
        lists its synapses. Recurrent neurons are in the order of populations: regular, then adaptive.
    """

    before: Any
    after: Any

    @property
    def is_sparse(self) -> bool:
        """Whether synapses are listed, and weights are SciPy's."""
        return not hasattr(self.before, "__array__")

    def dense(self) -> Projection:
        """The same as NumPy arrays, 0 where there is no synapse."""
        return Projection(self.before.toarray(), self.after.toarray()) if self.is_sparse else self

    def sparse(self) -> Projection:
        """The same as SciPy csc_arrays; of a projection with all synapses, of those that are not 0."""
        from scipy.sparse import csc_array

        return self if self.is_sparse else Projection(csc_array(self.before), csc_array(self.after))


@dataclass(frozen=True)
class NeuronGroup:
    """Neurons of one kind: name in tables, label in figures, how many there are."""

    name: str
    label: str
    size: int


class Run:
    """A run directory, read when asked and afresh each time, so that a run can be watched while it goes on.

    Everything raises UserError with one line naming the file if that file is missing or damaged.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        if not (self.directory / RUN).is_file():
            raise UserError(f"{self.directory}: {_why_not_a_run(self.directory)}")

    def __repr__(self) -> str:
        return f"Run({str(self.directory)!r})"

    @property
    def record(self) -> dict[str, Any]:
        """All of run.json: status, start, stop, versions, host, command, seed, seconds, last_row, error, config, ...

        sessions: start, versions, host, command, ... of the run's beginning and of each time that it was resumed.
        """
        path = self.directory / RUN
        with _reading(path):
            return migrated(parse_record(path.read_text(encoding="utf-8")), path)

    @property
    def status(self) -> str:
        """RUNNING, COMPLETED, PRUNED, INTERRUPTED or FAILED, as the run itself last said."""
        status: str = self.record["status"]
        return status

    @property
    def killed(self) -> bool:
        """Whether the run says RUNNING though its process has gone; False if that cannot be known, as elsewhere."""
        return _killed(self.record)

    @property
    def config(self) -> dict[str, Any]:
        """The whole config with every reference resolved, nested as in conf/: config["task"]["n_iter"]."""
        with _reading(self.directory / RUN):
            config: dict[str, Any] = self.record["config"]
            if not isinstance(config, dict) or not all(isinstance(config.get(group), dict) for group in NEEDED_GROUPS):
                raise ValueError("its config is not that of a run")
            for group, key in NEEDED_NUMBERS:
                if not is_count(config[group].get(key)):
                    raise ValueError(f"its config is not that of a run: {group}.{key}={config[group].get(key)}")
        return config

    @property
    def columns(self) -> list[Column]:
        """What the columns of metrics are, but for iteration, phase and seconds: label, unit, which way is better."""
        with _reading(self.directory / RUN):
            return [Column(**column) for column in self.record["columns"]]

    @property
    def populations(self) -> list[NeuronGroup]:
        """The populations in and recurrent ones, in the order of their neurons."""
        with _reading(self.directory / RUN):
            groups = [NeuronGroup(**group) for group in self.record["populations"]]
            return [NeuronGroup("in", "input", self.config["task"]["n_in"]), *groups]

    @property
    def planes(self) -> list[tuple[int, int]]:
        """Pairs of readouts that are the coordinates of a point, as the task names them."""
        with _reading(self.directory / RUN):
            return [(int(first), int(second)) for first, second in self.record.get("planes", [])]

    @property
    def overrides(self) -> list[str]:
        """What was given on the command line, e.g. ["task.n_iter=50", "seed=2"]."""
        return [str(override) for override in self._yaml(OVERRIDES)]

    @property
    def raw_config(self) -> dict[str, Any]:
        """The config as Hydra composed it: values that follow from other keys are still references, "${...}"."""
        return dict(self._yaml(CONFIG))

    @property
    def references(self) -> frozenset[str]:
        """Keys of raw_config that are references; read a tenth as long as that, as many runs are compared."""
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        found: frozenset[str] = self._yaml(
            CONFIG, lambda path: frozenset(_references(yaml.load(path.read_bytes(), loader), "", set()))
        )
        return found

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per batch: iteration, phase, the columns that columns describes, seconds.

        The last line of a run that was killed is left out if it was cut off.
        """
        record = self.record  # read first: a run that has completed by then has written all of its metrics
        path = self.directory / METRICS
        with _reading(path):
            return _parse_metrics(path.read_text(encoding="utf-8"), record)

    @property
    def confusion(self) -> pd.DataFrame:
        """Which class was taken for which in the last test, or without one in the last validation.

        Columns: iteration, phase, actual, predicted (classes, as the readouts are numbered), sequences (how many; only
        pairs that occur). Written for tasks with more than two classes.
        """
        import pandas as pd

        path = self.directory / CONFUSION
        with _reading(path, "it is written when a task with more than two classes is evaluated"):
            table = pd.read_csv(path)
            if list(table.columns) != ["iteration", "phase", "actual", "predicted", "sequences"] or not len(table):
                raise ValueError("it is no table of confused classes")
            numbers = table[["iteration", "actual", "predicted", "sequences"]]
            whole = all(kind.kind in "iu" for kind in numbers.dtypes) and (numbers >= 0).all(axis=None)
            if not whole or not table["phase"].isin(PHASES).all():
                raise ValueError("it has values that are not those of confused classes")
        return table

    @property
    def recall(self) -> pd.DataFrame:
        """Recall of each class: columns class, sequences (of it), recall (fraction that was told rightly)."""
        import pandas as pd

        table = self.confusion
        sequences = table.groupby("actual")["sequences"].sum()
        right = table[table["actual"] == table["predicted"]].set_index("actual")["sequences"]
        recall = right.reindex(sequences.index, fill_value=0) / sequences
        return pd.DataFrame({"class": sequences.index, "sequences": sequences.to_numpy(), "recall": recall.to_numpy()})

    @property
    def weights(self) -> dict[str, Projection]:
        """Weights of the projections in_rec, rec_rec, rec_out, and of the feedback out_rec, which is not trained."""
        from eprop_cli.archives import NUMBERS, read_archive

        path = self.directory / WEIGHTS
        with _reading(path, "it is written when training ends"):
            file = read_archive(path)
            check_format(int(file["format"]) if "format" in file else 1, path)
            names = [key.removesuffix("_before") for key in file if key.endswith("_before")]
            for name in (*(f"{each}_{when}" for each in names for when in ("before", "after")), "out_rec"):
                if file[name].dtype.kind not in NUMBERS:
                    raise ValueError(f"its {name} is {file[name].dtype}")
            weights = {name: _projection(file, name, f"{name}_before", f"{name}_after") for name in names}
            return weights | {"out_rec": _projection(file, "out_rec", "out_rec", "out_rec")}

    @property
    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """Parameters that were drawn for each neuron, by their keys in the config; empty if there are none."""
        import numpy as np

        from eprop_cli.archives import NUMBERS, read_archive

        path = self.directory / PARAMETERS
        if not path.exists():
            return {}
        with _reading(path):
            file = read_archive(path)
            for name, values in file.items():
                if values.dtype.kind not in NUMBERS or values.ndim != 1 or not np.isfinite(values).all():
                    raise ValueError(f"its {name} is no list of numbers")
            return {name: values.astype(np.float64) for name, values in file.items()}

    @property
    def weight_changes(self) -> pd.DataFrame:
        """Recorded weights over the whole run, a row where a synapse is first seen with another weight.

        Columns: projection, pre and post (indices as in weights), time (ms of task time since training began, one
        sequence after another), weight (pA). The initial weights are weights[projection].before[post, pre].
        """
        return self._table(WEIGHT_CHANGES, "no weight was recorded, or the run did not come to its end")

    @property
    def recorded(self) -> list[int]:
        """Numbers of the iterations that were recorded, ascending."""
        found = (self.directory / RECORDINGS).glob(f"{ITERATION}*/*.parquet")
        numbers = {path.parent.name.removeprefix(ITERATION) for path in found}
        return sorted(int(number) for number in numbers if number.isdecimal())

    def spikes(self, iteration: Iteration, sequence: int | None = None) -> pd.DataFrame:
        """Spikes of a recorded iteration, of all its sequences or of one (index in the batch).

        Columns: sequence, time (ms since the sequence began, on the population's own clock), population ("in", "reg",
        "ad"), neuron (index within the population).
        """
        return self._recording(iteration, "spikes", sequence)

    def dynamic_variables(self, population: str, iteration: Iteration, sequence: int | None = None) -> pd.DataFrame:
        """Dynamic variables of the recorded neurons of population "reg", "ad" or "out".

        Columns: sequence, time (ms since the sequence began, on the population's own clock), neuron (index within the
        population), and of all populations V_m (mV); of reg and ad surrogate_gradient, learning_signal (pA); of ad
        V_th_adapt (mV), adaptation; of out readout_signal, readout_signal_unnorm, target_signal, error_signal
        (probabilities where the loss is cross-entropy, else mV).
        """
        return self._recording(iteration, population, sequence)

    def windows(self, iteration: Iteration, sequence: int | None = None) -> pd.DataFrame:
        """Named stretches of the sequences, such as cues: columns sequence, kind, start, stop (ms)."""
        return self._recording(iteration, "windows", sequence)

    def recording(
        self, iteration: Iteration, sequence: int | None = None, names: Collection[str] | None = None
    ) -> dict[str, pd.DataFrame]:
        """All tables that there are of a recorded iteration: spikes, one per population, out, windows.

        names: of those that are read; None: all.
        """
        if names is None:
            populations = [group.name for group in self.populations if group.name != "in"]
            names = ["spikes", *populations, "out", "windows"]
        there = [name for name in names if (self.directory / self._recording_file(iteration, name)).is_file()]
        return {name: self._recording(iteration, name, sequence) for name in there}

    def _recording_file(self, iteration: Iteration, name: str) -> str:
        recorded = self.recorded
        if not recorded:
            raise UserError(f"{self.directory}: no iteration was recorded")
        number = {"first": recorded[0], "last": recorded[-1]}.get(str(iteration), iteration)
        if number not in recorded:
            listed = ", ".join(map(str, recorded))
            raise UserError(f"{self.directory}: iteration {iteration} was not recorded; choose from {listed}")
        return f"{iteration_directory(int(number))}/{name}.parquet"

    def _recording(self, iteration: Iteration, name: str, sequence: int | None) -> pd.DataFrame:
        chosen = None if sequence is None else [("sequence", "==", sequence)]
        return self._table(self._recording_file(iteration, name), "it was not recorded", chosen)

    def _table(self, name: str, absent: str, chosen: list[tuple[str, str, int]] | None = None) -> pd.DataFrame:
        from pyarrow import parquet

        path = self.directory / name
        with _reading(path, absent):
            # Without partitioning=None a directory named seed=1 above the file would become a column.
            table: pd.DataFrame = parquet.read_table(path, filters=chosen, partitioning=None).to_pandas()
            check_table(table, path.stem)
        return table

    def _yaml(self, name: str, read: Callable[[Path], Any] | None = None) -> Any:
        """What a file of Hydra's holds; read: in place of OmegaConf's way."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        path = self.directory / name
        with _reading(path, "hidden files were not copied"):
            try:
                return read(path) if read else OmegaConf.to_container(OmegaConf.load(path))
            except (YAMLError, OmegaConfBaseException) as error:
                raise ValueError(str(error)) from error


def _references(tree: Any, prefix: str, seen: set[int]) -> Iterator[str]:
    """Keys of references in what YAML holds; raises ValueError for parts that occur again, as none of Hydra's do."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            if id(value) in seen:
                raise ValueError("it has aliases")
            seen.add(id(value))
            yield from _references(value, f"{name}.", seen)
        elif isinstance(value, str) and "${" in value:
            yield name


def _projection(file: Mapping[str, NDArray[Any]], name: str, before: str, after: str) -> Projection:
    """Weights out of weights.npz; raises ValueError unless they are those of a projection."""
    listed = f"{name}_row" in file
    for each in (before, after):
        shape = file[f"{name}_post"].shape if listed else file[before].shape
        if file[each].shape != shape or len(shape) != (1 if listed else 2):
            raise ValueError(f"its {each} is {file[each].dtype} of shape {file[each].shape}")
    if not listed:
        return Projection(file[before], file[after])
    import numpy as np

    from eprop_cli.connectivity.mask import checked_lists

    n_post, n_pre = map(int, file[f"{name}_shape"])
    mask = checked_lists(name, file[f"{name}_row"], file[f"{name}_post"], n_pre, n_post)
    return Projection(*(mask.sparse(file[each].astype(np.float64)) for each in (before, after)))


def find_runs(directory: Path) -> list[Run]:
    """All run directories in a directory at any depth, itself included, sorted with numbers in their order."""
    found = []
    for place, below, files in os.walk(directory):
        if RUN in files:
            found.append(Run(place))
            below.clear()
    return sorted(found, key=lambda run: natural(run.directory))


def _why_not_a_run(directory: Path) -> str:
    if not directory.exists():
        return "does not exist"
    if not directory.is_dir():
        return "is a file; give the run directory"
    inside = find_runs(directory)
    hint = f"; give one of those in it, e.g. {inside[0].directory}" if inside else ""
    return f"is not a run directory: it holds no {RUN}{hint}"


def _killed(record: dict[str, Any]) -> bool:
    here = record["status"] == RUNNING and record.get("host") == platform.node()
    return here and isinstance(record.get("pid"), int) and not is_alive(record["pid"])


_DAMAGES = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, RuntimeError)
_ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error)


@contextmanager
def _reading(path: Path, absent: str = "it belongs to every run") -> Iterator[None]:
    """Turn whatever can go wrong with a file into one line that names it."""
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would keep us waiting
        raise UserError(f"{path}: is not a file")
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing: {absent}") from error
    except (OSError, *_DAMAGES, *_ARCHIVE_ERRORS) as error:
        if isinstance(error, OSError) and error.errno:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise UserError(f"{path}: is damaged: {reason[:200]}") from error


def _parse_metrics(text: str, record: dict[str, Any]) -> pd.DataFrame:
    """The table in metrics.csv; raises ValueError unless it is whole, or cut off at its end by a run that did not."""
    import pandas as pd

    columns = [column["name"] for column in record["columns"]]
    kinds = {"iteration": int, "phase": str, **dict.fromkeys(columns, float), "seconds": float}
    *lines, rest = text.split("\n")
    if rest and record["status"] == COMPLETED:
        raise ValueError("its last line is cut off")
    if not lines and not ",".join(kinds).startswith(rest):
        raise ValueError("it is no table")
    names = lines[0].split(",") if lines else list(kinds)
    if missing := [name for name in kinds if name not in names]:
        raise ValueError(f"its first line does not name {missing[0]}")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        values = line.split(",")
        if len(values) != len(names):
            raise ValueError(f"line {number} has {len(values)} values instead of {len(names)}")
        row = dict(zip(names, values, strict=True))
        rows.append({name: _value(number, kinds.get(name, str), text) for name, text in row.items()})
        if rows[-1]["phase"] not in PHASES:
            raise ValueError(f"line {number} has an unknown phase, {row['phase']!r}")
    last = record.get("last_row")
    if record["status"] == COMPLETED and last and (not rows or rows[-1]["iteration"] != last["iteration"]):
        raise ValueError(f"it does not reach the run's last iteration, {last['iteration']}")
    return pd.DataFrame(rows, columns=names).astype({name: kind for name, kind in kinds.items() if kind is not str})


def _value(number: int, kind: Any, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"line {number} has {text!r} where a number belongs") from None
