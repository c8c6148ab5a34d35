"""Turn a task config into input spikes and targets. One file per task; this table names them."""

import importlib
import sys
from typing import Any

from eprop_cli.errors import ConfigError
from eprop_cli.tasks.base import Batch, Task, TaskConfig, Window
from eprop_cli.tasks.evidence_accumulation import EvidenceAccumulation

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
    except (ImportError, AttributeError) as error:
        raise ConfigError("task.name", name, f"cannot be imported ({error})") from error
    if not issubclass(getattr(found, "Config", object), TaskConfig):
        choices = ", ".join(TASKS)
        raise ConfigError("task.name", name, f"must be one of {choices}, or module:Class with a Config (see README)")
    assert isinstance(found, type)
    return found


def make_task(config: TaskConfig) -> Task:
    """The task that a config names."""
    task: Task = task_class(config.name)(config)
    return task
