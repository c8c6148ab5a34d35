"""Start eprop-run: what it needs takes a while to import, and Ctrl-C may come by then."""

import contextlib
import gc
import os
import resource
import sys

from eprop_cli.terminal import HELP, VERSION, complain, narrow, replace_closed_outputs
from eprop_cli.versions import version_line

LEAST_MEMORY = 1536 * 2**20  # bytes of addresses, which the libraries take most of


def main() -> None:
    """Entry point of eprop-run."""
    replace_closed_outputs()
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # processes that are started find the library, whatever lies here
    arguments = set(sys.argv[1:])
    if VERSION in arguments:  # Hydra would print its own
        print(version_line("eprop-run"))
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_MEMORY:  # with less, libraries crash or hang without a word
        problem = f"needs at least {LEAST_MEMORY // 2**20} MiB; ulimit -v allows {limit // 2**20} MiB"
        sys.exit(complain("eprop-run", f"memory: {problem}"))
    try:
        gc.disable()
        from eprop_cli.cli.eprop_run import main as eprop_run

        gc.freeze()  # what modules hold stays, so that there is no use in looking through it for what may go
        gc.enable()

        with narrow() if arguments & HELP else contextlib.nullcontext():
            eprop_run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
