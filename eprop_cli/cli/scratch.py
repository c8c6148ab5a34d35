"""A directory for what is only looked at."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory of its own, removed however what is done in it ends, but for a process that is killed at once."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="eprop-verify-", ignore_cleanup_errors=True) as directory:
            yield Path(directory)
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
