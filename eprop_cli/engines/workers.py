"""Processes that simulate shares of a batch: on this machine through joblib's loky, or on a Dask cluster."""

import contextlib
import logging
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from eprop_cli.config import DataParallel
from eprop_cli.errors import TrainingError, UserError

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

RECYCLE_AFTER = 2000  # network builds per worker; each leaks about 30 kB in NEST
IDLE_TIMEOUT = 600  # s, after which an unused worker ends


class Workers:
    """Worker processes that are started when needed and replaced when they die."""

    def __init__(self, training: DataParallel) -> None:
        self._training = training
        self._executor: Executor | None = None
        self._builds = 0

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], builds: int) -> list[Result]:
        """Apply function to each item in a worker; results in the order of items.

        builds: networks that each worker builds for this. If a worker dies, everything is done again by fresh ones, at
        most max_retries times; then TrainingError.
        """
        for attempt in range(self._training.max_retries + 1):
            if self._executor is None:
                self._executor = self._start()
            try:
                futures = [self._executor.submit(function, item) for item in items]
                results = [future.result() for future in futures]
            except BaseException as error:
                self.close(at_once=True)
                if not _is_death(error):
                    raise
                if attempt == self._training.max_retries:
                    raise TrainingError(
                        f"a worker died {attempt + 1} times in one iteration; out of memory?"
                    ) from error
                log.warning("A worker died; the iteration is run again on fresh ones (retry %d)", attempt + 1)
            else:
                self._builds += builds
                if self._builds >= RECYCLE_AFTER:
                    self.close()
                return results
        raise AssertionError("unreachable")

    def close(self, at_once: bool = False) -> None:
        """Stop the workers; at_once: without waiting for what they are doing."""
        executor, self._executor, self._builds = self._executor, None, 0
        if executor is None:
            return
        if isinstance(executor, _DaskExecutor):
            executor.close()
        else:
            executor.shutdown(wait=True, **({"kill_workers": True} if at_once else {}))

    def _start(self) -> Executor:
        if self._training.backend == "dask":
            return _DaskExecutor(str(self._training.scheduler))
        from joblib.externals.loky import ProcessPoolExecutor

        executor: Executor = ProcessPoolExecutor(
            max_workers=self._training.n_workers, timeout=IDLE_TIMEOUT, initializer=_leave_interrupts_to_the_driver
        )
        return executor


class _DaskExecutor(Executor):
    """The workers of a Dask cluster."""

    def __init__(self, scheduler: str) -> None:
        try:
            import distributed
        except ImportError as error:
            raise UserError("training.backend=dask: needs Dask; pip install 'eprop-cli[dask]'") from error
        try:
            self._client: Any = distributed.Client(scheduler, timeout=10)  # type: ignore[no-untyped-call,unused-ignore]
        except (OSError, ValueError) as error:
            raise UserError(f"training.scheduler={scheduler}: no Dask scheduler answers there") from error
        # Every call is simulated, even one with the same arguments as an earlier one.
        self._executor: Any = self._client.get_executor(pure=False)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return self._executor.submit(function, *args, **kwargs)

    def close(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            self._executor.shutdown(wait=False)
            self._client.close()


def _leave_interrupts_to_the_driver() -> None:
    """Ctrl-C reaches every process of a terminal; the driver stops its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _is_death(error: BaseException) -> bool:
    """Whether an error means that a worker is gone, rather than that its work failed."""
    from joblib.externals.loky import BrokenProcessPool

    return isinstance(error, BrokenProcessPool) or type(error).__name__ in ("KilledWorker", "CommClosedError")
