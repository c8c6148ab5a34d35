"""Start eprop-run: what it needs takes a while to import, and Ctrl-C may come by then."""

import os
import sys

from eprop_cli.terminal import replace_closed_outputs


def main() -> None:
    """Entry point of eprop-run."""
    replace_closed_outputs()
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # processes that are started find the library, whatever lies here
    try:
        from eprop_cli.cli.eprop_run import main as eprop_run

        eprop_run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
