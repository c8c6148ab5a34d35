"""Commands as processes of their own that do not begin with a second of imports: forked from one that has done them.

They have their own arguments, directory, outputs and session, and end as any: threads are waited for, what was left for
the exit is done, outputs are flushed. Only what is in memory then is not taken apart piece by piece.
What is read during imports is the environment: where it is another than that of the fork server, a real one is started.
"""

import atexit
import contextlib
import gc
import json
import multiprocessing.process
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from importlib import import_module
from pathlib import Path

EPROP_RUN = str(Path(sys.executable).with_name("eprop-run"))
MAIN = "eprop_cli.__main__:main"  # of eprop-run
JOBS = "eprop_cli.sweeps.fork_server:main"  # of the process that starts a sweep's jobs
# What runs import on their way. Not NEST, and nothing that starts threads of its own.
MODULES = (
    *("cli.eprop_run", "runs.run", "training.base", "training.data_parallel", "engines.compiled.engine"),
    *("models.bsshslm_2020", "optimizers.adam", "figures.draw", "figures.dynamics", "figures.weights", "reports.page"),
    *("sweeps.closing", "sweeps.fork_server", "sweeps.job", "sweeps.launcher", "sweeps.preparation"),
)
# Variables that no import reads; the command sets the second line itself.
LATER = {
    *("XDG_CONFIG_HOME", "PYTEST_CURRENT_TEST", "COLUMNS", "TERM", "PYNEST_QUIET", "LOKY_MAX_CPU_COUNT"),
    *("HYDRA_FULL_ERROR", "PYTHONSAFEPATH"),
}

os.environ.setdefault("PYNEST_QUIET", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # NEST's threads spin otherwise, for minutes on a busy machine
# What tests start has the sources that they import; were it those that are installed, kernels would be compiled twice.
ROOT = str(Path(__file__).resolve().parent.parent)
os.environ["PYTHONPATH"] = ROOT


def _fixed(environment):
    return {name: value for name, value in environment.items() if name not in LATER}


started = {}  # the environment of the fork server


def all_is_imported():
    """Take the environment as it is now: some of what tests import sets variables."""
    started.clear()
    started.update(_fixed(os.environ))


def run_command(*arguments, cwd=None, env=None, timeout=600, check=False):
    """What subprocess.run gives of eprop-run with text captured."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = start_command(*arguments, cwd=cwd, env=env, stdout=out, stderr=err)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        texts = [file.seek(0) or file.read() for file in (out, err)]
    done = subprocess.CompletedProcess([EPROP_RUN, *map(str, arguments)], process.returncode, *texts)
    if check:
        done.check_returncode()
    return done


def start_command(*arguments, stdout, stderr, stdin=subprocess.DEVNULL, cwd=None, env=None, start_new_session=False):
    """What subprocess.Popen gives of eprop-run; the streams are files or their numbers."""
    command = [EPROP_RUN, *map(str, arguments)]
    environment = dict(os.environ if env is None else env)
    streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    if _fixed(environment) != started:
        return subprocess.Popen(command, cwd=cwd, env=env, start_new_session=start_new_session, **streams)
    with Path(os.devnull).open("r+") as nowhere:
        chosen = (nowhere if stream == subprocess.DEVNULL else stream for stream in streams.values())
        numbers = [stream if isinstance(stream, int) else stream.fileno() for stream in chosen]
        return Forked(MAIN, command, numbers, environment, Path(cwd or "."), start_new_session)


class Forked:
    """A process that the fork server has forked; as of subprocess.Popen."""

    def __init__(self, main, command, streams, environment, directory, start_new_session):
        self.args, self.returncode = command, None
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.connect(_Server.address())
        request = {"main": main, "command": command, "session": start_new_session}
        request |= {"environment": environment, "directory": str(directory.absolute())}
        socket.send_fds(self._connection, [json.dumps(request).encode()], streams)
        self.pid = int(self._connection.recv(32))

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(self._connection.recv(32) or -signal.SIGKILL)  # the server was killed
            self._connection.close()
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class _Server:
    """The fork server: the process that it is in, and how to reach it from the tests and from what it has forked."""

    _address = None
    _life = None  # it ends with the process that holds this
    _starting = threading.Lock()

    @classmethod
    def address(cls):
        with cls._starting:
            if cls._address is None:
                cls._start()
        return cls._address

    @classmethod
    def _start(cls):
        cls._life, its = socket.socketpair()
        with its, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind("")  # the kernel chooses
            listener.listen()
            command = [sys.executable, __file__, str(listener.fileno())]
            options = {"pass_fds": [listener.fileno()], "stdout": subprocess.DEVNULL, "env": started}
            subprocess.Popen(command, stdin=its.fileno(), **options)
            cls._address = listener.getsockname()


def _serve(life, listener):
    """Answer each request with the id of a process for it and then its exit status; returns in such a process."""
    running = {}  # its connection and id by the descriptor that tells of its end
    while True:
        ready = select.select([life, listener, *running], [], [])[0]
        if life in ready:  # the tests have ended
            sys.exit()
        for process in running.keys() & ready:
            asking, pid = running.pop(process)
            _tell(asking, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            asking.close()
            os.close(process)
        if listener in ready:
            asking, _ = listener.accept()
            message, streams, _, _ = socket.recv_fds(asking, 2**20, 3)
            pid = os.fork()
            if pid == 0:
                for held in (asking, life, *(other for other, _ in running.values())):
                    held.close()
                for process in running:
                    os.close(process)
                return json.loads(message), streams
            _tell(asking, pid)
            running[os.pidfd_open(pid)] = asking, pid
            for number in streams:
                os.close(number)


def _tell(asking, number):
    with contextlib.suppress(OSError):  # whoever asked may have been killed
        asking.send(str(number).encode())


def _warm_up():
    for module in MODULES:
        import_module(f"eprop_cli.{module}")
    from small import BARE

    from eprop_cli import compose
    from eprop_cli.sweeps.engine_needs import compile_engine

    smoke, compiled = ("experiment=smoke",), ("training=data_parallel", "engine=compiled")
    compile_engine(compose([*smoke, *compiled, *BARE]))  # as that of sweeps does
    for chosen in ((), BARE, (*BARE, *compiled), compiled, smoke):  # most commands choose these
        compose(chosen)


def _fork_jobs(connection, environment):
    """In place of sweeps.fork_server.start_process: what starts the jobs is forked, too."""
    return Forked(JOBS, [JOBS], [connection, 1, 2], environment, Path(), start_new_session=True)


def _main():
    life, listener = socket.socket(fileno=os.dup(0)), socket.socket(fileno=int(sys.argv[1]))
    _Server._address = listener.getsockname()
    gc.disable()  # what is imported stays
    _warm_up()
    gc.freeze()
    request, streams = _serve(life, listener)
    gc.enable()
    listener.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    if request["session"]:
        os.setsid()
    os.chdir(request["directory"])
    multiprocessing.process.ORIGINAL_DIR = os.getcwd()  # where its own processes find modules
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["command"]
    sys.path[0] = str(Path(EPROP_RUN).parent)  # as of a script
    import_module("eprop_cli.sweeps.fork_server").start_process = _fork_jobs
    status = 0
    try:
        pkgutil.resolve_name(request["main"])()
    except SystemExit as ending:
        if not isinstance(ending.code, int | None):
            raise
        status = ending.code or 0
    _end(status)


def _end(status):
    """As the interpreter ends, without the tenth of a second that it takes to go through all that was imported."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = 120
    os._exit(status)


if __name__ == "__main__":
    _main()
