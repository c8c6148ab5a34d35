"""Start eprop-run: what it needs takes a while to import, and Ctrl-C may come by then."""

import contextlib
import gc
import os
import resource
import sys
from typing import NoReturn

from eprop_cli.terminal import HELP, VERSION, complain, leave, narrow
from eprop_cli.versions import version_line

LEAST_MEMORY = 1536 * 2**20  # bytes of addresses, which the libraries take most of


def main() -> NoReturn:
    """Entry point of eprop-run."""
    leave("eprop-run", _act)


def _act() -> int:
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # processes that are started find the library, whatever lies here
    arguments = set(sys.argv[1:])
    if VERSION in arguments:  # Hydra would print its own
        print(version_line("eprop-run"))
        return 0
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_MEMORY:  # with less, libraries crash or hang without a word
        problem = f"needs at least {LEAST_MEMORY // 2**20} MiB; ulimit -v allows {limit // 2**20} MiB"
        return complain("eprop-run", f"memory: {problem}")
    gc.disable()
    from eprop_cli.cli.eprop_run import main as eprop_run

    gc.freeze()  # what modules hold stays, so that there is no use in looking through it for what may go
    gc.enable()

    with narrow() if arguments & HELP else contextlib.nullcontext():
        eprop_run()
    return 0


if __name__ == "__main__":
    main()
