"""eprop-export: a run in the formats of other programs."""

import argparse
import importlib
import os
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from eprop_cli.cli.eprop_compare import make_directory
from eprop_cli.errors import UserError
from eprop_cli.runs.reader import Run
from eprop_cli.terminal import Parser, leave, positive

EXPORT_HELP = """\
examples:
  eprop-export RUN_DIR --to neo     recording.nix: spikes, dynamic variables
  eprop-export RUN_DIR --to nwb     recording.nwb: the same, sequences as trials
  eprop-export RUN_DIR --to nest    continue_in_nest.py and .npz: a script that
                                    builds the trained network and trains on

neo and nwb hold the recorded iterations (recording.iterations) and need extras:
pip install '.[neo,nwb]' in the checkout. Weights are in weights.npz, which
NumPy reads. The files go into the run directory, or to --output. Exit status:
0, or 2 if something was wrong with the input; then nothing is written.
"""
FORMATS = {"neo": "neo and nixio", "nwb": "pynwb", "nest": ""}


def export() -> NoReturn:
    """Entry point of eprop-export."""
    parser = Parser("eprop-export", "Write a run in the format of another program.", EXPORT_HELP)
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="run directory")
    parser.add_argument("--to", choices=tuple(FORMATS), required=True, help="the format")
    parser.add_argument("--iterations", type=positive, metavar="N", help="of nest: to train on for (default: 5)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to (default: the run directory)")
    parser.add_argument("--force", action="store_true", help="replace files of the same names")
    leave(parser.prog, lambda: _export(parser.parse_args()))


def _export(options: argparse.Namespace) -> int:
    run = Run(options.run)
    if options.iterations and options.to != "nest":
        raise UserError(f"--iterations {options.iterations}: goes with --to nest")
    format_ = _format(options.to)
    into = run.directory if options.output is None else options.output
    make_directory(into)
    for name in format_.FILES:
        if (into / name).exists() and not options.force:
            raise UserError(f"{into / name}: exists; choose --output or --force")
    given = {"iterations": options.iterations} if options.iterations else {}
    with tempfile.TemporaryDirectory(prefix=".export", dir=into) as place:
        format_.write(run, Path(place), **given)
        for name in format_.FILES:
            os.replace(Path(place) / name, into / name)
            print(into / name)
    return 0


def _format(name: str) -> Any:
    try:
        return importlib.import_module(f"eprop_cli.exports.to_{name}")
    except ImportError as error:
        remedy = f"pip install '.[{name}]' in the checkout"
        raise UserError(f"--to {name}: needs {FORMATS[name]} ({error}); {remedy}") from error
