"""What a logger is, and how those of a run are told: one that fails ends nothing."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from eprop_cli.errors import reason, require
from eprop_cli.registry import variant
from eprop_cli.schema import Group
from eprop_cli.values import Row

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class LoggerConfig(Group):
    """Keys of a logger; a subclass has its own besides."""

    GROUP = "logger"

    name: str


class Logger:
    """Is told of a run while it goes on. Whatever it raises ends it alone, with one warning; the run goes on.

    package, remedy: the module that it needs, and what to do where that is not installed.
    """

    Config: ClassVar[type[LoggerConfig]] = LoggerConfig
    package: ClassVar[str | None] = None
    remedy: ClassVar[str] = ""

    def __init__(self, keys: Any) -> None:
        """keys: a Config."""
        self.keys = keys

    @classmethod
    def check(cls, key: str, name: str, is_installed: bool) -> None:
        """Raise ConfigError if what it needs is not installed."""
        require(is_installed, key, name, f"needs {cls.package}, which is not installed; {cls.remedy}")

    def begin(self, directory: Path, config: Mapping[str, Any], done: int) -> None:
        """A run begins, or goes on after training iteration done; rows after that which were told come again.

        directory: the run directory. config: {"group.key": value}.
        """

    def row(self, row: Row) -> None:
        """A row of metrics.csv: iteration, phase, metrics (name -> value), seconds."""

    def end(self, status: str) -> None:
        """The run has ended: COMPLETED, INTERRUPTED or FAILED. Not called if its process is killed."""


class Loggers:
    """The loggers of a run, together."""

    def __init__(self, chosen: Mapping[str, LoggerConfig]) -> None:
        self._chosen = chosen
        self._alive: dict[str, Logger] = {}

    def begin(self, directory: Path, config: Mapping[str, Any], done: int) -> None:
        """As Logger.begin, of each."""
        for name, keys in self._chosen.items():
            self._tell(name, partial(self._begin, name, keys, directory, config, done))

    def row(self, row: Row) -> None:
        """As Logger.row, of each."""
        for name in list(self._alive):
            self._tell(name, partial(self._alive[name].row, row))

    def end(self, status: str) -> None:
        """As Logger.end, of each."""
        for name in list(self._alive):
            self._tell(name, partial(self._alive[name].end, status))

    def _begin(self, name: str, keys: LoggerConfig, *about: Any) -> None:
        self._alive[name] = variant("logger", keys.name)(keys)
        self._alive[name].begin(*about)

    def _tell(self, name: str, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:
            self._alive.pop(name, None)
            log.warning("logger.%s has failed and is told no more; the run goes on (%s)", name, reason(error))
