"""Start eprop-run: what it needs takes a while to import, and Ctrl-C may come by then."""

import sys


def main() -> None:
    """Entry point of eprop-run."""
    try:
        from eprop_cli import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
