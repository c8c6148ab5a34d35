"""The log of a run that is begun from Python, where logging is somebody else's."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OURS, TO_FILE = logging.getLogger("eprop_cli"), logging.getLogger("eprop_cli.file")  # the latter for tracebacks
FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")  # as conf/hydra/job_logging has it


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Write what this thread logs in eprop_cli to a file as well; afterwards logging is as it was.

    Others get those records that they would have got without, but no traceback: the error is raised.
    """
    file = _Quiet(path)
    file.setFormatter(FORMAT)
    thread = threading.get_ident()
    file.addFilter(lambda record: record.thread == thread)
    _diversion.begin(file)
    try:
        yield
    finally:
        _diversion.end(file)
        file.close()


def keep_warnings() -> None:
    """Have Python's warnings of this process in the log of its run too; shown they are as they were."""
    shown = warnings.showwarning
    if getattr(shown, "kept", False):
        return

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        TO_FILE.warning("%s: %s (%s:%d)", category.__name__, message, filename, lineno)
        shown(message, category, filename, lineno, *rest)

    show.kept = True  # type: ignore[attr-defined]
    warnings.showwarning = show  # type: ignore[assignment]


def stop_writing_in(directory: Path) -> None:
    """Have what is logged from now on not written to files in a directory, which is about to go."""
    known = (each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger))
    for logger in (logging.root, *known):
        for handler in logger.handlers[:]:
            if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).is_relative_to(directory):
                logger.removeHandler(handler)
                handler.close()


class _Quiet(logging.FileHandler):
    """A full disk must not print tracebacks to the terminal; the run itself says that it is full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say nothing."""


class _Diversion(logging.Handler):
    """Lowers the level of our loggers while there are runs, and keeps what would not have been logged from others.

    There is one, as loggers are the process's and runs may overlap.
    """

    def __init__(self) -> None:
        super().__init__()
        self._changing = threading.Lock()
        self._runs = 0
        self._found: list[tuple[logging.Logger, int, bool]] = []  # level and propagate before
        self._least, self._passes_on = logging.WARNING, True

    def begin(self, file: logging.Handler) -> None:
        """Have a run's file written."""
        with self._changing:
            if not self._runs:
                self._found = [(logger, logger.level, logger.propagate) for logger in (OURS, TO_FILE)]
                self._least, self._passes_on = OURS.getEffectiveLevel(), OURS.propagate
                OURS.addHandler(self)
                OURS.setLevel(logging.INFO)
                OURS.propagate = TO_FILE.propagate = False
            self._runs += 1
            OURS.addHandler(file)
            TO_FILE.addHandler(file)

    def end(self, file: logging.Handler) -> None:
        """The run is over."""
        with self._changing:
            OURS.removeHandler(file)
            TO_FILE.removeHandler(file)
            self._runs -= 1
            if not self._runs:
                OURS.removeHandler(self)
                for logger, level, propagate in self._found:
                    logger.setLevel(level)
                    logger.propagate = propagate

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on to the handlers of the root logger."""
        if self._passes_on and record.levelno >= self._least:
            logging.getLogger().callHandlers(record)


_diversion = _Diversion()
