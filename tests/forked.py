"""eprop-run as a process of its own that does not begin with a second of imports: forked from one that has done them.

It has its own arguments, directory and outputs, and ends by the interpreter's own way out, as any.
What is read during imports is the environment: where it is another than that of the fork server, a real one is started.
"""

import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

EPROP_RUN = str(Path(sys.executable).with_name("eprop-run"))
# What runs import on their way. Not NEST, and nothing that starts threads of its own.
MODULES = (
    *("cli.eprop_run", "runs.run", "training.base", "training.data_parallel", "engines.compiled.engine"),
    *("models.bsshslm_2020", "optimizers.adam", "figures.draw", "figures.dynamics", "figures.weights", "reports.page"),
)
# Variables that no import reads; the command sets the last two itself.
LATER = {"XDG_CONFIG_HOME", "PYTEST_CURRENT_TEST", "HYDRA_FULL_ERROR", "PYTHONSAFEPATH"}

os.environ.setdefault("PYNEST_QUIET", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # NEST's threads spin otherwise, for minutes on a busy machine
# What tests start has the sources that they import; were it those that are installed, kernels would be compiled twice.
ROOT = str(Path(__file__).resolve().parent.parent)
os.environ["PYTHONPATH"] = ROOT


def _fixed(environment):
    return {name: value for name, value in environment.items() if name not in LATER}


STARTED = _fixed(os.environ)  # the environment of the fork server


def run_command(*arguments, cwd=None, env=None, timeout=600, check=False):
    """What subprocess.run gives of eprop-run with text captured."""
    command = [EPROP_RUN, *map(str, arguments)]
    environment = dict(os.environ if env is None else env)
    if _fixed(environment) != STARTED:
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=check)
    request = {"command": command, "directory": str(Path(cwd or ".").absolute()), "environment": environment}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        status = _ask(request, [out.fileno(), err.fileno()], timeout)
        texts = [file.seek(0) or file.read() for file in (out, err)]
    done = subprocess.CompletedProcess(command, status, *texts)
    if check:
        done.check_returncode()
    return done


@functools.cache
def _server():
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        subprocess.Popen([sys.executable, __file__], stdin=its.fileno(), stdout=subprocess.DEVNULL, env=STARTED)
    return ours


def _ask(request, outputs, timeout):
    server = _server()
    socket.send_fds(server, [json.dumps(request).encode()], outputs)
    pid = int(server.recv(32))
    server.settimeout(timeout)
    try:
        return int(server.recv(32))
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        server.settimeout(None)
        server.recv(32)
        raise subprocess.TimeoutExpired(request["command"], timeout) from None


def _serve(tests):
    """Answer each request with the id of a process for it and then its exit status; returns in such a process."""
    while True:
        message, outputs, _, _ = socket.recv_fds(tests, 2**20, 2)
        if not message:  # the tests have ended
            sys.exit()
        pid = os.fork()
        if pid == 0:
            return json.loads(message), outputs
        for number in outputs:
            os.close(number)
        tests.send(str(pid).encode())
        tests.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


def _warm_up():
    for module in MODULES:
        import_module(f"eprop_cli.{module}")
    from small import BARE, SMALL, config

    from eprop_cli.sweeps.engine_needs import compile_engine

    compile_engine(config(*SMALL, *BARE, "training=data_parallel", "engine=compiled"))  # as that of sweeps does


def _main():
    tests = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    gc.disable()  # what is imported stays
    _warm_up()
    gc.freeze()  # else each process, when it ends, takes 0.3 s to go through all that it shares with this one
    request, outputs = _serve(tests)
    gc.enable()
    tests.close()
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
        os.close(output)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["command"]
    sys.path[0] = str(Path(EPROP_RUN).parent)  # as of a script
    sys.exit(import_module("eprop_cli.__main__").main())


if __name__ == "__main__":
    _main()
