"""Run one experiment in a process of its own, so that whatever becomes of it, the one who started it goes on.

The process is told what to do on its standard input, which then stays open: if its other end closes, whoever started it
is gone, and it ends as if interrupted.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

POLL = 0.2  # s, between two looks at whether to stop
GRACE = 60.0  # s, that a process is given to end in order


@dataclass(frozen=True)
class Errand:
    """What the process has to do.

    config: as to_dict() gives it. logging, verbose: Hydra's job_logging and verbose. command: of run.json.
    """

    config: dict[str, Any]
    directory: str
    logging: dict[str, Any]
    verbose: Any
    command: list[str]


def run_apart(errand: Errand, stop: Callable[[], int | None], output: Path | None = None) -> int:
    """Run an experiment in a new process and return its exit status; if a signal killed it, minus its number.

    stop: tells the signal by which to interrupt the process, once there is one. output: file that takes what it prints
    past its logs; None: the terminal.
    """
    with _process(output) as process:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died already
            process.stdin.write(json.dumps(asdict(errand)).encode() + b"\n")
            process.stdin.flush()
        interrupted = False
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(POLL)
            if not interrupted and (number := stop()) is not None:
                process.send_signal(number)
                interrupted = True


@contextmanager
def _process(output: Path | None) -> "Iterator[subprocess.Popen[bytes]]":
    """The new process; when left, it and what it started have ended."""
    with contextlib.ExitStack() as stack:
        errors = None if output is None else stack.enter_context(output.open("ab"))
        process = subprocess.Popen(
            [sys.executable, "-m", "eprop_cli.sweeps.process"],
            stdin=subprocess.PIPE,
            stdout=None if output is None else subprocess.DEVNULL,
            stderr=errors,
            # In a session of its own it does not get a terminal's Ctrl-C: it is interrupted once, and by its starter.
            start_new_session=True,
        )
        try:
            yield process
        except KeyboardInterrupt:  # a second Ctrl-C
            process.kill()
            raise
        except BaseException:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            process.kill()
            raise
        finally:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            if process.wait() < 0:  # it could not stop its workers itself
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)


def main() -> None:
    """Do the errand that standard input tells; the exit status is that of the run."""
    # SLURM sends these to all processes of a job; the one that waits for this one knows what to do about them.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    errand = Errand(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_starter, daemon=True).start()
    sys.argv = errand.command

    from hydra.core.utils import configure_log
    from omegaconf import OmegaConf

    from eprop_cli.config.load import load
    from eprop_cli.runs.run import run

    configure_log(OmegaConf.create(errand.logging), errand.verbose)
    sys.exit(run(load(OmegaConf.create(errand.config)), Path(errand.directory)).exit_status)


def _end_with_starter() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()


if __name__ == "__main__":
    main()
