"""Save where a run stands, and find out whether a config can go on from there."""

import json
import os
import platform
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from eprop_cli.config.config import Config
from eprop_cli.engines.base import same_results
from eprop_cli.errors import ConfigError, UserError, require
from eprop_cli.formats import FORMAT, check_format
from eprop_cli.phases import PHASES, TRAINING
from eprop_cli.registry import variant
from eprop_cli.runs.files import METRICS, RUN, RUNNING, WEIGHT_CHANGES, is_alive, lock, write_whole
from eprop_cli.runs.format import migrated, migrated_config
from eprop_cli.runs.reader import Run
from eprop_cli.runs.writer import header, parse_row
from eprop_cli.schema import flatten, to_dict
from eprop_cli.values import Checkpoint

CHECKPOINT = "checkpoint.npz"
# Keys that say how a run is carried out and looked at; they change nothing in what it leaves but its figures.
HOW_KEYS: tuple[str, ...] = ("resume", "objective", "plots.", "training.checkpoint_")
HOW_KEYS += tuple(f"engine.{key}" for key in ("n_workers", "local_num_threads", "backend", "scheduler", "max_retries"))
# Keys that may differ from the checkpoint's: they do not change results, or only extend them.
FREE_KEYS: tuple[str, ...] = (*HOW_KEYS, "task.n_iter", "recording.")


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the one before stays until it is whole."""
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in checkpoint.items()}
    arrays["format"] = FORMAT
    write_whole(directory / CHECKPOINT, lambda file: np.savez(file, **arrays))


def load_checkpoint(directory: Path) -> Checkpoint:
    """Read a checkpoint; raises UserError if there is none or it is damaged."""
    path = directory / CHECKPOINT
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            checkpoint = dict(file) if isinstance(file, np.lib.npyio.NpzFile) else {}
        if not {"config", "rows", "iteration", "stopped"} <= checkpoint.keys():
            raise UserError(f"{path}: not written by eprop-run, so there is nothing to resume from")
        return _migrated(checkpoint, path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file, so there is nothing to resume from") from error
    except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged ({error}), so there is nothing to resume from") from error


def _migrated(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """A checkpoint in today's format; raises UserError if it cannot be gone on from, else if it is damaged."""
    number = int(checkpoint.pop("format", 1))
    check_format(number, path)
    if number == 1:
        config = migrated_config(json.loads(str(checkpoint["config"])))
        if config["neuron"]["out"]["loss"] != "cross_entropy":
            raise UserError(f"{path}: its squared error is summed over the readouts, now it is averaged; start again")
        drawn = {f"drawn_{phase}": 0 for phase in PHASES} | {f"drawn_{TRAINING}": checkpoint["iteration"]}
        checkpoint |= {"config": json.dumps(config), "metric": checkpoint.pop("error"), **drawn}
    return checkpoint


def read_record(directory: Path) -> dict[str, Any]:
    """run.json of the run directory to be resumed; raises ConfigError if there is none."""
    try:
        record = json.loads((directory / RUN).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError("resume", directory, f"is not a run directory: it has no readable {RUN}") from error
    if not isinstance(record, dict) or "status" not in record:
        raise ConfigError("resume", directory, f"is not a run directory: its {RUN} is not a run's")
    try:
        return migrated(record, directory / RUN)
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError("resume", directory, f"cannot be resumed: its {RUN} is damaged ({error})") from error


def check_resume(config: Config, directory: Path) -> None:
    """Refuse to go on in a run directory where that is impossible or would not be exact; raises UserError."""
    record = read_record(directory)
    why_not = variant("training", config.training.name).not_resumable(config.engine.name)
    require(not why_not, "resume", directory, why_not)
    checkpoint = load_checkpoint(directory)
    columns = [column.name for column in config.columns]
    if not _is_free(directory / METRICS, int(checkpoint["rows"]), columns) or _is_running(record):
        where = f"process {record.get('pid')} on {record.get('host')}"
        raise ConfigError("resume", directory, f"is still running ({where}); stop it first")
    if (directory / WEIGHT_CHANGES).exists():
        _ = Run(directory).weight_changes  # raises UserError if they are damaged
    wanted, had = flatten(to_dict(config)), flatten(json.loads(str(checkpoint["config"])))
    free = FREE_KEYS if config.optimizer.schedule.name == "cosine" else (*FREE_KEYS, "optimizer.schedule.cosine_iter")
    for key in sorted(wanted.keys() | had.keys()):
        if key == "engine.name" and same_results(wanted[key], had[key]):
            continue
        if not key.startswith(free) and wanted.get(key) != had.get(key):
            constraint = f"contradicts the checkpoint in {directory}, which has {had.get(key)}; leave it out"
            raise ConfigError(key, wanted.get(key), constraint)
    done = int(checkpoint["iteration"])
    if config.task.n_iter < done:
        constraint = f"is less than the {done} iterations that the run in {directory} has done"
        raise ConfigError("task.n_iter", config.task.n_iter, constraint)


def _is_free(path: Path, rows: int, columns: list[str]) -> bool:
    """Whether a table is free to be written; raises UserError unless it has the rows that a checkpoint counts on."""
    try:
        with path.open("r+b") as file:
            free, (first, *table) = lock(file), file.read().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror}), so the run cannot go on") from error
    whole = table[:-1]  # the last is not ended
    if len(whole) < rows:
        raise UserError(f"{path}: damaged (it has {len(whole)} of {rows} rows), so the run cannot go on")
    wrong = [] if first == header(columns).strip().encode() else [1]
    wrong += [number for number, line in enumerate(whole[:rows], start=2) if not _is_row(line, columns)]
    if wrong:
        raise UserError(f"{path}: damaged (line {wrong[0]} is not one of a run), so the run cannot go on")
    return free


def _is_row(line: bytes, columns: list[str]) -> bool:
    """Whether a line of metrics.csv can be read."""
    try:
        row = parse_row(line.decode(), columns)
    except ValueError:
        return False
    return row.phase in PHASES


def _is_running(record: dict[str, Any]) -> bool:
    """Whether a run says that it is running and its process is there."""
    # In a container that is started again, process numbers are too: the one that the run had may be this one's.
    another = record.get("pid") != os.getpid() and is_alive(record.get("pid"))
    return record["status"] == RUNNING and record.get("host") == platform.node() and another
