"""Run each job in a process of its own, so that whatever becomes of it, the one who started it goes on.

They are forked from one, the fork server, that has imported and compiled what runs need: that takes longer than a short
run. It is asked over a connection that is its standard input, and that of the jobs: if the other end closes, whoever
asked is gone, and a job ends as if interrupted.
"""

import contextlib
import functools
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from eprop_cli.runs.files import is_alive
from eprop_cli.runs.log import keep_warnings
from eprop_cli.sweeps.paths import find_modules_in

POLL = 0.2  # s, between two looks at whether to stop
GRACE = 60.0  # s, that a process is given to end in order
MAIN = "from eprop_cli.sweeps.fork_server import main; main()"  # with -m, Python would warn of forks beside threads


@dataclass(frozen=True)
class JobRequest:
    """What a job's process has to do, and where.

    config: as to_dict() gives it. directory: the run directory. logging, verbose: Hydra's job_logging and verbose.
    command: of run.json. output: file that takes what is printed past the logs. modules_in: where modules of the user's
    are found, too. pruner: of the search that suggested the job; None: there is none.
    """

    config: dict[str, Any]
    directory: str
    logging: dict[str, Any]
    verbose: Any
    command: list[str]
    output: str
    working_directory: str
    modules_in: str | None
    pruner: dict[str, Any] | None = None


def run_forked(request: JobRequest, stop: Callable[[], int | None]) -> int:
    """Run a job in a new process and return its exit status; if a signal killed it, minus its number.

    stop: tells the signal by which to interrupt the process, once there is one.
    """
    return _fork_server(tuple(sorted(os.environ.items()))).run(request, stop)


@functools.cache  # as long as this process lives, a server for each environment: Hydra can set one for a job
def _fork_server(environment: tuple[tuple[str, str], ...]) -> "ForkServer":
    return ForkServer()


class ForkServer:
    """The process that forks the jobs, from the side of the one who asks; it is replaced when it is gone."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection

    def run(self, request: JobRequest, stop: Callable[[], int | None]) -> int:
        """As run_forked."""
        pid: int | None = None
        try:
            pid = self._fork(request)
            return self._wait(pid, stop)
        except BaseException as error:
            self._break_off(pid, at_once=isinstance(error, KeyboardInterrupt))  # a second Ctrl-C
            raise

    def _fork(self, request: JobRequest) -> int:
        """Have a process forked; returns its id."""
        for _ in range(2):  # a server that died meanwhile is noticed only here
            if self._process is None or self._process.poll() is not None:
                self._start()
            with contextlib.suppress(EOFError, OSError):
                self._connection.send_bytes(json.dumps(asdict(request)).encode())
                return int(self._connection.recv_bytes())
            self._break_off(None, at_once=True)
        raise OSError("the process that starts the jobs does not answer")

    def _start(self) -> None:
        self._connection, its = Pipe()
        with its:
            self._process = start_process(its.fileno(), os.environ | {"PYTHONSAFEPATH": "1"})

    def _wait(self, pid: int, stop: Callable[[], int | None]) -> int:
        assert self._process is not None
        interrupted = False
        while not self._connection.poll(POLL):
            if self._process.poll() is not None and not is_alive(pid):
                break
            if not interrupted and (number := stop()) is not None:
                _send(number, pid)
                interrupted = True
        try:
            return int(self._connection.recv_bytes())
        except (EOFError, OSError):  # the server was killed, and the job has ended since
            return -signal.SIGKILL

    def _break_off(self, pid: int | None, at_once: bool) -> None:
        """End the job and the server."""
        if pid is not None:
            if not at_once:
                _send(signal.SIGTERM, pid)
                self._connection.poll(GRACE)
            _send(signal.SIGKILL, pid)
            self._connection.poll(1.0)  # until the server has ended what the job started
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.wait()
            self._process = None


def start_process(connection: int, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start the fork server, which has a connection for its standard input."""
    # In a session of its own it does not get a terminal's Ctrl-C: jobs are interrupted once, by their starter.
    return subprocess.Popen([sys.executable, "-c", MAIN], stdin=connection, env=environment, start_new_session=True)


def _send(number: int, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def main() -> None:
    """Fork a process for each request; in it, do what was asked. The exit status is that of the run."""
    # SLURM sends these to all processes of a job; the one that waits for this one knows what to do about them.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    gc.disable()  # as what is imported stays, there is no use in looking through it for what may go, here or in a job
    request = _serve(Connection(os.dup(sys.stdin.fileno())))
    os.setsid()
    threading.Thread(target=_end_with_starter, daemon=True).start()
    os.chdir(request.working_directory)
    find_modules_in(request.modules_in)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os.dup2(os.open(request.output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), sys.stderr.fileno())
    sys.argv = request.command

    from hydra.core.utils import configure_log
    from omegaconf import OmegaConf

    from eprop_cli.config.load import load
    from eprop_cli.runs.run import run

    keep_warnings()
    configure_log(OmegaConf.create(request.logging), request.verbose)
    logging.raiseExceptions = False  # as in eprop_run, which this process has not seen
    config, directory, is_hopeless = load(OmegaConf.create(request.config)), Path(request.directory), None
    if request.pruner is not None:
        from eprop_cli.sweeps.pruning import judge_of

        is_hopeless = judge_of(directory, config, request.pruner)
    sys.exit(run(config, directory, is_hopeless=is_hopeless).exit_status)


def _serve(starter: Connection) -> JobRequest:
    """Answer requests with the id of a process that does it and then its exit status; returns in such a process."""
    warm: set[str] = set()
    while True:
        try:
            request = JobRequest(**json.loads(starter.recv_bytes()))
            _warm_up(request.config, warm)
            if request.pruner is not None:
                import eprop_cli.sweeps.pruning  # noqa: F401
            gc.freeze()
            pid = os.fork()
            if pid == 0:
                gc.enable()
                starter.close()
                return request
            starter.send_bytes(str(pid).encode())
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if status < 0:  # it could not stop its workers itself
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGTERM)
            starter.send_bytes(str(status).encode())
        except (EOFError, OSError):  # whoever asked is gone
            _leave()


def _warm_up(config: dict[str, Any], warm: set[str]) -> None:
    """Import and compile what a config needs before the fork; what a module of the user's may do is left to the job."""
    import_module("eprop_cli.runs.run")
    if config["plots"]["figures"]:
        import_module("eprop_cli.figures")
    engine = str(config["engine"]["name"])
    if ":" not in json.dumps([config["task"]["name"], engine]) and engine not in warm:
        from omegaconf import OmegaConf

        from eprop_cli.config.load import load
        from eprop_cli.sweeps.engine_needs import compile_engine

        with contextlib.suppress(Exception):  # the job will tell
            compile_engine(load(OmegaConf.create(config)))
        warm.add(engine)


def _leave() -> NoReturn:
    sys.exit(0)


def _end_with_starter() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
