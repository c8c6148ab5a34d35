"""Turn a task config into input spikes and targets. One file per task; this table names them."""

import importlib
import sys
from collections.abc import Sized
from typing import Any

import numpy as np

from eprop_cli.errors import ConfigError, UserError
from eprop_cli.tasks.base import Task, TaskConfig
from eprop_cli.tasks.evidence_accumulation import EvidenceAccumulation
from eprop_cli.values import Batch, Window

__all__ = ["TASKS", "Batch", "Task", "TaskConfig", "Window", "make_task", "task_class"]
TASKS: dict[str, type[Any]] = {  # task.name -> class; its Config is the schema of the task group
    "evidence_accumulation": EvidenceAccumulation,
}


def task_class(name: str) -> type[Any]:
    """The class that task.name means: one of TASKS, or module:Class of the user's, found from the working directory.

    Raises ConfigError if there is none.
    """
    if name in TASKS:
        return TASKS[name]
    module, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.append("")
    try:
        found = getattr(importlib.import_module(module), attribute) if attribute else None
    except (Exception, SystemExit) as error:  # whatever a module of the user's may do
        expected = isinstance(error, ImportError | AttributeError)
        why = " ".join((str(error) if expected else f"{type(error).__name__}: {error}").split())
        raise ConfigError("task.name", name, f"cannot be imported ({why})") from error
    if not issubclass(getattr(found, "Config", object), TaskConfig):
        choices = ", ".join(TASKS)
        raise ConfigError("task.name", name, f"must be one of {choices}, or module:Class with a Config (see README)")
    assert isinstance(found, type)
    return found


def make_task(config: TaskConfig) -> Task:
    """The task that a config names; it raises UserError if a batch is not what Batch says."""
    return _Checked(config)


class _Checked:
    """A task whose batches are looked at, as a user's may be anything."""

    def __init__(self, config: TaskConfig) -> None:
        self._config = config
        self._task: Task = task_class(config.name)(config)

    def batch(self, rng: np.random.RandomState) -> Batch:
        """Draw the next batch from the generator."""
        batch, c = self._task.batch(rng), self._config
        shape = (c.n_batch, c.sequence_steps, c.n_in)
        self._check("spikes", batch.spikes, "bool", np.bool_, shape)
        if batch.spikes[:, 0].any():
            raise UserError(f"task.name={c.name}: there must be no spikes in step 0 of a sequence, where they are lost")
        self._check("targets", batch.targets, "float64", np.float64, (c.n_out, *shape[:2]))
        if not np.isfinite(batch.targets).all():
            raise UserError(f"task.name={c.name}: targets must be finite")
        if not isinstance(batch.windows, Sized) or len(batch.windows) != c.n_batch:
            raise UserError(f"task.name={c.name}: windows must have an entry for each of the {c.n_batch} sequences")
        return batch

    def _check(self, what: str, values: Any, kind: str, dtype: type[Any], shape: tuple[int, ...]) -> None:
        values = np.asarray(values)
        if values.dtype != dtype or values.shape != shape:
            found = f"{values.dtype} {values.shape}"
            raise UserError(f"task.name={self._config.name}: {what} must be {kind} {shape}, but are {found}")
