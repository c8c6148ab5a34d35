"""Turn a task config into input spikes and targets: one file per task. Here is what a task of one's own needs."""

from eprop_cli.tasks.base import Task, TaskConfig
from eprop_cli.values import Batch, Window

__all__ = ["Batch", "Task", "TaskConfig", "Window"]
