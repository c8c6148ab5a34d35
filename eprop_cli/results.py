"""Where Run was to be found before it became eprop_cli.Run; this goes on working."""

from eprop_cli.runs.reader import Iteration, Projection, Run, find_runs

__all__ = ["Iteration", "Projection", "Run", "find_runs"]
