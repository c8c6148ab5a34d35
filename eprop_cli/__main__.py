"""Start eprop-run: what it needs takes a while to import, and Ctrl-C may come by then."""

import os
import sys


def main() -> None:
    """Entry point of eprop-run."""
    replace_closed_outputs()
    try:
        from eprop_cli import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


def replace_closed_outputs() -> None:
    """Let what is printed to an output that was closed, as by >&-, go nowhere, here and in processes started here."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_WRONLY)  # the number of the closed one, as the lowest that is free
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w"))


if __name__ == "__main__":
    main()
