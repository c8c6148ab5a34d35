"""Save where a run stands, and find out whether a config can go on from there."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from eprop_cli.archives import DAMAGES, read_archive
from eprop_cli.config.config import Config
from eprop_cli.engines.base import same_results
from eprop_cli.errors import ConfigError, UserError, require
from eprop_cli.formats import FORMAT, check_format
from eprop_cli.phases import PHASES, TRAINING
from eprop_cli.registry import variant
from eprop_cli.runs.content import parse_record
from eprop_cli.runs.directory import check_inside
from eprop_cli.runs.files import (
    COMPLETED,
    METRICS,
    PARAMETERS,
    RUN,
    RUNNING,
    WEIGHT_CHANGES,
    is_alive,
    lock,
    write_whole,
)
from eprop_cli.runs.format import migrated, migrated_config
from eprop_cli.runs.reader import Run
from eprop_cli.runs.writer import header, parse_row
from eprop_cli.schema import flatten, to_dict
from eprop_cli.values import Checkpoint

CHECKPOINT = "checkpoint.npz"
SMALL_BYTES = 10_000_000  # a checkpoint of less is kept in any case
# Keys that say how a run is carried out and looked at; they change nothing in what it leaves but its figures.
HOW_KEYS: tuple[str, ...] = (
    "resume",
    "objective",
    "report",
    "plots.",
    "logger.",
    "training.checkpoint_",
    "training.keep_",
)
HOW_KEYS += tuple(f"engine.{key}" for key in ("n_workers", "local_num_threads", "backend", "scheduler", "max_retries"))
NOT_OF_A_RUN = (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)
# Keys that may differ from the checkpoint's: they do not change results, or only extend them.
FREE_KEYS: tuple[str, ...] = (*HOW_KEYS, "task.n_iter", "recording.")


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the one before stays until it is whole."""
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in checkpoint.items()}
    arrays["format"] = FORMAT
    write_whole(directory / CHECKPOINT, lambda file: np.savez(file, **arrays))


def drop_large_checkpoint(directory: Path) -> None:
    """Remove the checkpoint of a run that is COMPLETED, unless it is small."""
    path = directory / CHECKPOINT
    if path.exists() and path.stat().st_size >= SMALL_BYTES:
        path.unlink()


def load_checkpoint(directory: Path, config: Config | None = None) -> Checkpoint:
    """Read a checkpoint; raises UserError if there is none or it is damaged.

    config: of the run that is to go on from there; if it is given, all that is in the checkpoint is checked.
    """
    path = directory / CHECKPOINT
    try:
        checkpoint: Checkpoint = dict(read_archive(path))
        if not {"config", "rows", "iteration", "stopped"} <= checkpoint.keys():
            raise UserError(f"{path}: not written by eprop-run, so there is nothing to resume from")
        checkpoint = _migrated(checkpoint, path)
        if config is not None:
            variant("training", config.training.name).check_checkpoint(config, checkpoint)
        return checkpoint
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file, so there is nothing to resume from{_why_gone(directory)}") from error
    except DAMAGES as error:
        raise UserError(f"{path}: damaged ({error}), so there is nothing to resume from") from error


def _why_gone(directory: Path) -> str:
    """What became of the checkpoint of a run that is COMPLETED, and what can be done."""
    try:
        completed = Run(directory).status == COMPLETED
    except UserError:
        completed = False
    why = "; a COMPLETED run keeps it if it is small, or with training.keep_checkpoint=true"
    return f"{why}; to begin a run from its weights: synapse.weights_from={directory}" if completed else ""


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


def read_record(directory: Path, key: str = "resume") -> dict[str, Any]:
    """run.json of the run directory that a key of the config gives; raises ConfigError if there is none."""
    try:
        text = (directory / RUN).read_text()
    except (OSError, ValueError) as error:
        raise ConfigError(key, directory, f"is not a run directory: it has no readable {RUN}") from error
    try:
        return migrated(parse_record(text), directory / RUN)
    except NOT_OF_A_RUN as error:
        what = "resumed" if key == "resume" else "run again"
        raise ConfigError(key, directory, f"cannot be {what}: its {RUN} is damaged ({error})") from error


def check_resume(config: Config, directory: Path) -> None:
    """Refuse to go on in a run directory where that is impossible or would not be exact; raises UserError."""
    check_inside(directory)
    record = read_record(directory)
    why_not = variant("training", config.training.name).not_resumable(config.engine.name)
    require(not why_not, "resume", directory, why_not)
    checkpoint = load_checkpoint(directory, config)
    columns = [column.name for column in config.columns]
    if not _is_free(directory / METRICS, checkpoint, columns) or _is_running(record):
        where = f"process {record.get('pid')} on {record.get('host')}"
        raise ConfigError("resume", directory, f"is still running ({where}); stop it first")
    run = Run(directory)
    if (directory / WEIGHT_CHANGES).exists():
        _ = run.weight_changes  # raises UserError if they are damaged
    sizes = {f"neuron.{population.name}": population.size for population in config.model.populations}
    for key, values in run.parameters.items():
        if len(values) != sizes.get(key.rpartition(".")[0]) or not (values > 0).all():
            raise UserError(
                f"{directory / PARAMETERS}: damaged ({key} does not fit the network), so the run cannot go on"
            )
    wanted, had = flatten(to_dict(config)), flatten(_config_of(checkpoint, directory / CHECKPOINT))
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


def _config_of(checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    try:
        config = json.loads(str(checkpoint["config"]))
        if isinstance(config, dict):
            return config
        raise ValueError("its config is none")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}), so there is nothing to resume from") from error


def _is_free(path: Path, checkpoint: Checkpoint, columns: list[str]) -> bool:
    """Whether a table is free to be written; raises UserError unless it has the rows that a checkpoint counts on."""
    rows = int(checkpoint["rows"])
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
    trained = [number for number, phase in (line.split(b",")[:2] for line in whole[:rows]) if phase == b"training"]
    if trained != [str(number).encode() for number in range(1, int(checkpoint["iteration"]) + 1)]:
        raise UserError(f"{path}: has other training iterations than {CHECKPOINT}, so the run cannot go on")
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
