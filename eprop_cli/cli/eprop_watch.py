"""eprop-watch: follow a run or a sweep that runs elsewhere, from its files."""

from pathlib import Path
from typing import NoReturn

from eprop_cli.terminal import Parser, leave

WATCH_HELP = """\
examples:
  eprop-watch outputs/2026-01-31/12-00-00-000000   a run
  eprop-watch sweeps/eta                           a sweep, or a folder of runs
  eprop-watch --once sweeps/eta                    how it is now

Says how many are done, how far the others are and how long they take, where
each runs (job of a cluster or process, and machine) and where its log is; then
a line for each that ends. It reads files alone: the runs may be another
user's, or on other machines that share the disk. Ctrl-C stops watching, not
the runs. Of a run that was killed on another machine it cannot tell more than
that nothing new comes.

Exit status: 0 when all are COMPLETED, 1 if one is not, 2 if there is no run;
with --once 0 or 2.
"""


def watch() -> NoReturn:
    """Entry point of eprop-watch."""
    parser = Parser("eprop-watch", "Follow a run or a sweep from its files.", WATCH_HELP)
    parser.add_argument("directory", type=Path, metavar="DIR", help="of a run, of a sweep, or of several runs")
    parser.add_argument("--once", action="store_true", help="say how it is now, and stop")

    def act() -> int:
        options = parser.parse_args()
        from eprop_cli import sweeps

        return sweeps.watch(options.directory, options.once)

    leave(parser.prog, act)
