"""Start eprop-run: what it needs takes a while to import, and Ctrl-C may come by then."""

import contextlib
import os
import sys

from eprop_cli.terminal import HELP, VERSION, narrow, replace_closed_outputs, version


def main() -> None:
    """Entry point of eprop-run."""
    replace_closed_outputs()
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # processes that are started find the library, whatever lies here
    arguments = set(sys.argv[1:])
    if VERSION in arguments:  # Hydra would print its own
        print(version("eprop-run"))
        return
    try:
        from eprop_cli.cli.eprop_run import main as eprop_run

        with narrow() if arguments & HELP else contextlib.nullcontext():
            eprop_run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
