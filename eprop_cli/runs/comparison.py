"""Many run directories -> one table."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eprop_cli.columns import Column, judged
from eprop_cli.errors import ConfigError, UserError
from eprop_cli.looks import BANDS
from eprop_cli.objectives import SHORT, parse_objective
from eprop_cli.phases import TEST, TRAINING
from eprop_cli.registry import VARIANTS, is_known, variant
from eprop_cli.runs.files import COMPLETED
from eprop_cli.runs.reader import Run
from eprop_cli.runs.record import COMPUTING
from eprop_cli.runs.standing import KILLED
from eprop_cli.schema import flatten, units

UNREADABLE = "UNREADABLE"  # status of a run that cannot be read
# what summarise() says of a run besides its config
MEAN = "mean10_loss"  # an objective (objectives.py): steadier than the loss of one batch
BEFORE, AFTER = ("status", "iterations", "final_loss", "best_loss", MEAN), ("seconds", "error")
CLASSES, SIGNALS = ("accuracy", "test_error"), ("nrmse", "test_nrmse")  # where there are classes, and where not
SUMMARY = (*BEFORE, *CLASSES, *AFTER)
SEED = "seed"
RANGE, DEVIATION, INTERVAL = BANDS  # of plots.band
BAND_NOTES = {  # what the band around a mean over seeds is
    RANGE: "from lowest to highest",
    DEVIATION: "standard deviation",
    INTERVAL: "95 % interval of the mean (bootstrap)",
}
RESAMPLES, PERCENTILES = 1000, (2.5, 97.5)
VERSIONS = "versions."  # before the names of what runs were computed with
NO_PARAMETERS = (
    "resume",
    "objective",
    "report",
    "plots",
    "logger",
)  # keys and groups that do not change what a run computes
MAX_VALUE = 40  # characters


@dataclass(frozen=True)
class Opened:
    """What a comparison needs of a run.

    config: {"group.key": value}. referring: keys that only follow other keys. error: also what could not be read.
    """

    run: Run
    record: Mapping[str, Any]
    config: Mapping[str, Any]
    referring: frozenset[str]
    metrics: pd.DataFrame
    columns: list[Column]
    error: str | None

    @property
    def training(self) -> pd.DataFrame:
        """Rows of the training phase."""
        return self.metrics[self.metrics["phase"] == TRAINING]

    @property
    def better(self) -> dict[str, str]:
        """Which way each metric is better."""
        return {column.name: column.better for column in self.columns}

    def value(self, objective: str) -> float:
        """What an objective (as in objectives.py) comes to; nan where there is none."""
        try:
            return parse_objective(objective, self.better).value(self.metrics)
        except (ConfigError, KeyError):
            return math.nan

    @property
    def versions(self) -> dict[str, str]:
        """What it was computed with, by VERSIONS and a name."""
        known = dict(self.record.get("versions") or {})
        found = {f"{VERSIONS}{name}": str(known[name]) for name in COMPUTING if name in known}
        commit = self.record.get("git_commit")
        return found | ({f"{VERSIONS}git_commit": str(commit)[:9]} if commit else {})

    @property
    def problem(self) -> tuple[str, str]:
        """Task and loss; the losses of two problems do not compare."""
        return str(self.config.get("task.name")), str(self.config.get("neuron.out.loss"))


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in nothing but their seed, and their values of the keys in which others differ."""

    keyed: tuple[Any, ...]
    members: list[Opened]

    def curve(self, column: str, phase: str = TRAINING, band: str = RANGE) -> pd.DataFrame:
        """Columns mean, low and high of a metric, by training iteration, over the runs that got there.

        band: of BANDS, what low and high are.
        """
        tables = [each.metrics[each.metrics["phase"] == phase] for each in self.members]
        have = [rows for rows in tables if column in rows]
        table = pd.concat([_by_iteration(rows, column, phase) for rows in have], axis=1) if have else pd.DataFrame()
        mean = table.mean(axis=1)
        if band == DEVIATION:
            deviation = table.std(axis=1).fillna(0.0)  # of a single run
            return pd.DataFrame({"mean": mean, "low": mean - deviation, "high": mean + deviation})
        if band == INTERVAL and len(table):
            low, high = interval(table.to_numpy())
            return pd.DataFrame({"mean": mean, "low": low, "high": high})
        return pd.DataFrame({"mean": mean, "low": table.min(axis=1), "high": table.max(axis=1)})

    def values(self, objective: str) -> list[float]:
        """What an objective comes to in the runs that have it."""
        return [value for each in self.members if not math.isnan(value := each.value(objective))]


def interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the 95 % interval of each row's mean by bootstrap (percentiles; the same each time); nan is left out."""
    rng = np.random.RandomState(0)
    n = values.shape[1]
    drawn = rng.multinomial(n, np.full(n, 1.0 / n), size=RESAMPLES).T  # how often each value is in each sample
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        means = np.where(there, values, 0.0) @ drawn / (there @ drawn)
        low, high = np.nanpercentile(means, PERCENTILES, axis=1)
    return low, high


def _by_iteration(rows: pd.DataFrame, column: str, phase: str) -> "pd.Series[float]":
    """A metric by iteration; of tests, which have many batches, their mean."""
    grouped = rows.groupby("iteration")[column]
    return grouped.mean() if phase == TEST else grouped.last()


def summarise(runs: Sequence[Run | Opened], objectives: Sequence[str] = ()) -> pd.DataFrame:
    """One row per run.

    Columns: run (its directory), the config keys in which the runs that have them differ, versions in which they do,
    and SUMMARY; SIGNALS besides or instead of CLASSES where runs have them; objectives that are none of those. Keys
    that only follow others (references in conf/) are left out, as are NO_PARAMETERS. final_loss, best_loss,
    mean10_loss, accuracy and nrmse are of training batches, test_error is the mean recall error of the test phase,
    test_nrmse its mean nRMSE. A run that cannot be read has a row with its error. What a run does not have is nan.
    """
    opened = open_all(runs)
    columns: dict[str, Any] = {"run": [str(each.run.directory) for each in opened]}
    for key in differing(opened):
        columns[key] = pd.Series([each.config.get(key, math.nan) for each in opened], dtype=object)
    for name in dict.fromkeys(name for each in opened for name in each.versions):
        found = [each.versions.get(name, math.nan) for each in opened]
        if len({version for version in found if isinstance(version, str)}) > 1:
            columns[name] = pd.Series(found, dtype=object)
    rows = [_summary(each) for each in opened]
    signals = [name for name in SIGNALS if any(not math.isnan(row[name]) for row in rows)]
    classes = CLASSES if not signals or any("accuracy" in each.metrics for each in opened) else ()
    columns |= {name: [row[name] for row in rows] for name in (*BEFORE, *classes, *signals)}
    columns |= {name: [each.value(name) for each in opened] for name in objectives if name not in columns}
    columns |= {name: [row[name] for row in rows] for name in AFTER}
    objects = [name for name, values in columns.items() if isinstance(values, pd.Series)] + ["error"]
    columns = {name: [_printable(value) for value in values] for name, values in columns.items()}
    columns |= {name: pd.Series(columns[name], dtype=object) for name in objects}
    return pd.DataFrame(columns).astype({"iterations": "Int64"})


def open_all(runs: Sequence[Run | Opened]) -> list[Opened]:
    """Runs, opened unless they are."""
    return [each if isinstance(each, Opened) else open_run(each) for each in runs]


def usual_metric(opened: Sequence[Opened]) -> str:
    """The objective by which runs compare: plots.metric, or their error in a test if all were tested, or else MEAN."""
    for each in opened:
        chosen = each.config.get("plots.metric")
        if isinstance(chosen, str) and not math.isnan(each.value(chosen)):
            return chosen
    judging = {judged(each.columns)[-1].name for each in opened if each.columns}
    if len(judging) == 1:
        (name,) = judging
        test = f"test_{next((short for short, column in SHORT.items() if column == name), name)}"
        finished = [each for each in opened if each.record["status"] == COMPLETED]
        if finished and not any(math.isnan(each.value(test)) for each in finished):
            return test
    return MEAN


def _printable(value: Any) -> Any:
    """Text as it can be encoded: names of files and what was typed may hold bytes that are no characters."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def spelling(value: Any) -> str:
    """A config value as on the command line."""
    return json.dumps(value) if value is None or isinstance(value, bool | list | dict) else str(value)


def places(runs: Sequence[Run]) -> tuple[Path, list[str]]:
    """The deepest directory that all runs are in, and where in it each one is."""
    directories = [Path(os.path.abspath(run.directory)) for run in runs]
    top = Path(os.path.commonpath([directory.parent for directory in directories]))
    return top, [str(directory.relative_to(top)) for directory in directories]


def open_run(run: Run) -> Opened:
    """Read what there is of a run."""
    record: Mapping[str, Any] = {"status": UNREADABLE}
    config: Mapping[str, Any] = {}
    metrics, columns = pd.DataFrame({name: [] for name in ("iteration", "phase", "loss", "seconds")}), []
    error = None
    try:
        record = run.record
        config = flatten(run.config)
        metrics, columns = run.metrics, run.columns
        if "loss" not in metrics:
            raise UserError(f"{run.directory}: its metrics have no loss")
        error = record.get("error")
    except UserError as problem:
        record, error = {"status": UNREADABLE}, str(problem)
    return Opened(run, record, config, _referring(run), metrics, columns, error)


def _referring(run: Run) -> frozenset[str]:
    """Config keys that only follow others; none if Hydra's own files did not come along with the run."""
    try:
        return run.references
    except UserError:
        return frozenset()


def _summary(opened: Opened) -> dict[str, Any]:
    training, metrics, record = opened.training, opened.metrics, opened.record
    if record["status"] == UNREADABLE:
        return dict.fromkeys((*SUMMARY, *SIGNALS), math.nan) | {
            "status": UNREADABLE,
            "iterations": None,
            "error": opened.error,
        }
    test = metrics[metrics["phase"] == TEST]
    seconds = record.get("seconds")

    known = {column.name for column in opened.columns}  # what else is in the table may be text

    def last(column: str) -> float:
        return float(training[column].iloc[-1]) if len(training) and column in known else math.nan

    def tested(column: str) -> float:
        return float(test[column].mean()) if column in known else math.nan

    return {
        "status": KILLED if opened.run.killed else record["status"],
        "iterations": int(training["iteration"].max()) if len(training) else 0,
        "final_loss": last("loss"),
        "best_loss": training["loss"].min() if len(training) else math.nan,
        MEAN: opened.value(MEAN),
        "accuracy": last("accuracy"),
        "test_error": tested("recall_error"),
        "nrmse": last("nrmse"),
        "test_nrmse": tested("nrmse"),
        "seconds": round(sum(seconds.values()) if seconds else float(metrics["seconds"].sum()), 3),
        "error": opened.error or math.nan,
    }


def differing(opened: Sequence[Opened]) -> list[str]:
    """Config keys in which those of the runs that have them differ, in the order of the config."""
    known = [each for each in opened if each.config]
    keys = dict.fromkeys(key for each in known for key in each.config if key.split(".")[0] not in NO_PARAMETERS)
    return [
        key
        for key in keys
        if len({spelling(each.config[key]) for each in known if key in each.config}) > 1
        and not all(key in each.referring for each in known if key in each.config)
    ]


def grouped(opened: Sequence[Opened], keys: Sequence[str]) -> list[RunGroup]:
    """Runs with the same values of the keys together, the latest of each seed, in ascending order of the values."""
    groups: dict[tuple[str, ...], RunGroup] = {}
    latest = {_spelt(each, [*keys, SEED]): each for each in sorted(opened, key=_start)}
    for each in latest.values():
        values = tuple(each.config.get(key) for key in keys)
        groups.setdefault(_spelt(each, keys), RunGroup(values, [])).members.append(each)
    return sorted(groups.values(), key=lambda group: tuple(map(_order, group.keyed)))


def _spelt(opened: Opened, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(spelling(opened.config.get(key)) for key in keys)


def _start(opened: Opened) -> str:
    return str(opened.record.get("start", ""))


def _rounded(value: Any) -> str:
    """A config value as on the command line, with few digits."""
    return format(value, ".4g") if isinstance(value, float) else spelling(value)


def _order(value: Any) -> tuple[bool, float, str]:
    """Sort key of config values: numbers by size, before everything else."""
    number = isinstance(value, int | float)
    return not number, value if number else 0.0, spelling(value)


def units_of(opened: Sequence[Opened], keys: Sequence[str]) -> dict[str, str]:
    """Units of the keys that have one, as the schemas of the runs' configs say."""
    known: dict[str, str] = {}
    for group in {key.partition(".")[0] for key in keys}:
        for name in {str(each.config.get(f"{group}.name")) for each in opened}:
            if group in VARIANTS and is_known(group, name):
                known |= units(variant(group, name).Config, group)
    return {key: known[key] for key in keys if key in known}
