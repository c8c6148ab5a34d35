"""The log of a run that is begun from Python, where logging is somebody else's."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OURS, TO_FILE = logging.getLogger("eprop_cli"), logging.getLogger("eprop_cli.file")
FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")  # as conf/hydra/job_logging has it
_changing = threading.Lock()


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Write what this thread logs in eprop_cli to a file as well; afterwards logging is as it was.

    Others get those records that they would have got without.
    """
    handler = logging.FileHandler(path)
    handler.setFormatter(FORMAT)
    handler.addFilter(_OfThread())
    with _changing:
        if not _Passing.runs:
            _Passing.before = [(logger, logger.level, logger.propagate) for logger in (OURS, TO_FILE)]
            _Passing.level_before = OURS.getEffectiveLevel()
            OURS.addHandler(PASSING)
            OURS.setLevel(logging.INFO)
            OURS.propagate = TO_FILE.propagate = False  # tracebacks are for the file: the error is raised besides
        _Passing.runs += 1
        OURS.addHandler(handler)
        TO_FILE.addHandler(handler)
    try:
        yield
    finally:
        with _changing:
            _Passing.runs -= 1
            OURS.removeHandler(handler)
            TO_FILE.removeHandler(handler)
            if not _Passing.runs:
                OURS.removeHandler(PASSING)
                for logger, level, propagate in _Passing.before:
                    logger.setLevel(level)
                    logger.propagate = propagate
        handler.close()


class _OfThread(logging.Filter):
    """Lets pass what is logged in the thread in which it was made."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is of the thread."""
        return record.thread == self._thread


class _Passing(logging.Handler):
    """Hands records on to the handlers above ours, if they would have got there; and what to put back afterwards."""

    runs = 0  # under way in this process
    level_before = logging.WARNING
    before: list[tuple[logging.Logger, int, bool]] = []  # noqa: RUF012

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on a record."""
        if record.levelno >= _Passing.level_before and self.before[0][2]:
            logging.getLogger().callHandlers(record)


PASSING = _Passing()
