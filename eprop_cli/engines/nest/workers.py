"""Processes that simulate shares of a batch: on this machine through loky, or on a Dask cluster."""

import contextlib
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, wait
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TypeVar

from eprop_cli.engines.nest.kernel import only_simulate
from eprop_cli.errors import TrainingError, UserError

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")
RECYCLE_AFTER = 2000  # network builds per worker; each leaks about 30 kB in NEST
IDLE_TIMEOUT = 600  # s, after which an unused worker ends
PATIENCE = 10  # s, that a Dask scheduler is given to answer
STOPPED_AFTER = 15.0  # s without a result between two looks whether a worker has been stopped
WORKER_DEATHS = ("KilledWorker", "CommClosedError")  # errors of Dask's
SCHEDULER_DEATHS = ("CancelledError", "FutureCancelledError")
LIBRARY_FIRST = "PYTHONSAFEPATH"  # has Python 3.11 and later not look for modules in the working directory first
ORPHAN_POLL = 1.0  # s, between two looks of a worker at whether its driver is still there


class NoSchedulerError(UserError):
    """No Dask scheduler answers."""


class Workers:
    """Worker processes that are started when needed and replaced when they die."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._executor: Executor | None = None
        self._builds = 0

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], builds: int) -> list[Result]:
        """Apply function to each item in a worker; results in the order of items.

        builds: networks that each worker builds for this. If a worker dies, everything is done again by fresh ones, at
        most max_retries times; then TrainingError.
        """
        for attempt in range(self._engine.max_retries + 1):
            try:
                if self._executor is None:
                    self._executor = self._start()
                with _interrupts_left_to_the_driver():  # workers start when they are given something
                    futures = [self._executor.submit(function, item) for item in items]
                results = self._results(futures)
            except BaseException as error:
                self.close(at_once=True)
                is_gone = attempt > 0 and isinstance(error, NoSchedulerError)  # it was there, and may come back
                if isinstance(error, UserError) and not is_gone:
                    raise
                if (module := _not_importable(error)) is not None:
                    raise TrainingError(
                        f"a worker cannot import {module}; start the workers where it is found, or add it to PYTHONPATH"
                    ) from error
                if not is_gone and not _is_death(error):
                    raise
                lost = is_gone or type(error).__name__ in SCHEDULER_DEATHS
                if attempt == self._engine.max_retries:
                    what = "the Dask scheduler was lost" if lost else "a worker died"
                    remedy = "" if lost else "; out of memory?"
                    raise TrainingError(f"{what} {attempt + 1} times in one iteration{remedy}") from error
                what = "The Dask scheduler was lost" if lost else "A worker died"
                log.warning("%s; the iteration is run again on fresh ones (retry %d)", what, attempt + 1)
            else:
                self._builds += builds
                if self._builds >= RECYCLE_AFTER:
                    self.close()
                return results
        raise AssertionError("unreachable")

    def _results(self, futures: Sequence[Any]) -> list[Any]:
        """What futures give; a worker that has been stopped is killed after a while, for another to take its place."""
        seen: set[int] = set()
        while any(not future.done() for future in futures):
            pending = [future for future in futures if not future.done()]
            if wait(pending, STOPPED_AFTER, FIRST_EXCEPTION).done:
                continue
            if isinstance(self._executor, _DaskExecutor):
                self._executor.tell()
                continue
            stopped = {pid for pid in getattr(self._executor, "_processes", None) or () if _is_stopped(pid)}
            for pid in stopped & seen:
                log.warning("Worker %d was stopped by a signal and does not go on; another takes its place", pid)
                os.kill(pid, signal.SIGKILL)
            seen = stopped
        return [future.result() for future in futures]

    def close(self, at_once: bool = False) -> None:
        """Stop the workers; at_once: without waiting for what they are doing."""
        executor: Any
        executor, self._executor, self._builds = self._executor, None, 0
        if executor is None:
            return
        if isinstance(executor, _DaskExecutor):
            executor.close()
        elif at_once:
            _withdraw(executor)
            executor.shutdown(wait=True, kill_workers=True)
        else:
            executor.shutdown(wait=True)

    def _start(self) -> Executor:
        if self._engine.backend == "dask":
            return _DaskExecutor(str(self._engine.scheduler))
        from loky import ProcessPoolExecutor

        n_workers, driver = self._engine.n_workers, (os.getpid(),)
        with _interrupts_left_to_the_driver():  # trackers of resources start, too
            resource_tracker.ensure_running()  # started along with a worker, it would unblock SIGINT again
            return ProcessPoolExecutor(n_workers, timeout=IDLE_TIMEOUT, initializer=_begin, initargs=driver)  # type: ignore[no-any-return]


def _withdraw(executor: Any) -> None:
    """Take back what no worker has yet; loky's own shutdown forgets to, and ends in a KeyError and lost semaphores."""
    waiting: queue.Queue[int] = getattr(executor, "_work_ids", queue.Queue())
    with contextlib.suppress(queue.Empty):
        while True:
            waiting.get_nowait()


def check_scheduler(scheduler: str) -> None:
    """Raise UserError unless a Dask scheduler answers at an address."""
    _connected(scheduler).close()


def _connected(scheduler: str) -> Any:
    try:
        import distributed
    except ImportError as error:
        raise UserError("engine.backend=dask: needs Dask; pip install '.[dask]' in the checkout") from error
    logging.getLogger("distributed.utils").setLevel(logging.CRITICAL)  # what is lost is told here, in a line
    try:
        client = distributed.Client(scheduler, timeout=PATIENCE)  # type: ignore[no-untyped-call,unused-ignore]
    except (OSError, ValueError) as error:
        raise NoSchedulerError(f"engine.scheduler={scheduler}: no Dask scheduler answers there") from error
    try:
        found: Any = client.get_versions(packages=["eprop_cli"])  # type: ignore[no-untyped-call,unused-ignore]
        _check_versions(scheduler, found)
    except UserError:
        client.close()  # type: ignore[no-untyped-call,unused-ignore]
        raise
    return client


def _check_versions(scheduler: str, found: Mapping[str, Any]) -> None:
    """Raise UserError if a worker has another eprop-cli or Python than this process, by what Dask tells of both."""
    mine = _own(found["client"])
    for address, told in found["workers"].items():
        for name, version in _own(told).items():
            if version != mine[name]:
                raise UserError(
                    f"engine.scheduler={scheduler}: the worker {address} has {name} {version or 'missing'}, but here "
                    f"it is {mine[name]}; start the workers from the same installation"
                )


def _own(told: Mapping[str, Any]) -> dict[str, str]:
    """Versions that must be the same; Python's without the last number."""
    python = ".".join(str(told["host"]["python"]).split(".")[:2])
    return {"Python": python, "eprop-cli": str(told["packages"].get("eprop_cli") or "")}


class _DaskExecutor(Executor):
    """The workers of a Dask cluster."""

    def __init__(self, scheduler: str) -> None:
        self._client, self._scheduler = _connected(scheduler), scheduler
        self._told = False
        # Every call is simulated, even one with the same arguments as an earlier one.
        self._executor: Any = self._client.get_executor(pure=False)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return self._executor.submit(function, *args, **kwargs)

    def tell(self) -> None:
        """Say that there are no workers, or none that takes anything, if that is why there are no results."""
        workers = self._client.scheduler_info()["workers"].values()
        if self._told or any(worker.get("status") != "paused" for worker in workers):
            return
        self._told = True
        if workers:
            log.warning("All Dask workers are paused, short of memory; give them a higher --memory-limit")
        else:
            log.warning("The Dask scheduler has no workers; start some: dask worker %s", self._scheduler)

    def close(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            self._executor.shutdown(wait=False)
            self._client.close()


@contextmanager
def _interrupts_left_to_the_driver() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal, and so does its end; workers that start here never see either.

    Nor do they take a file of the working directory for a module of the library that has the same name.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    path = os.environ.get(LIBRARY_FIRST)
    os.environ[LIBRARY_FIRST] = "1"
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if path is None:
            del os.environ[LIBRARY_FIRST]


def _begin(driver: int) -> None:
    """What each worker of this machine does first."""
    only_simulate()
    _follow(driver)


def _follow(driver: int) -> None:
    """Have this worker end when its driver is gone, also one that was killed and could not stop it."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(ORPHAN_POLL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_stopped(pid: int) -> bool:
    """Whether a process of this machine has been stopped, as by SIGSTOP."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
    except (OSError, IndexError):
        return False


def _not_importable(error: BaseException | None) -> str | None:
    """The module that a worker did not find, if that is what an error is about."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__ or error.__context__
    return error.name if isinstance(error, ModuleNotFoundError) else None


def _is_death(error: BaseException) -> bool:
    """Whether an error means that a worker is gone, rather than that its work failed."""
    from loky import BrokenProcessPool

    return isinstance(error, BrokenProcessPool) or type(error).__name__ in WORKER_DEATHS + SCHEDULER_DEATHS
