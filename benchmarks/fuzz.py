"""Damage the files of a run at random, and give random arguments: whatever is in them is read, or refused in one line.

    python -m benchmarks.fuzz                an hour, from seed 0
    python -m benchmarks.fuzz --seconds 60 --seed 5

Nothing may be raised but UserError, nothing written, nothing executed. Exit status 1 if anything was; its seed is told.
"""

import argparse
import copy
import io
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eprop_cli import api
from eprop_cli.config.composed import without_hydra
from eprop_cli.config.composition import compose
from eprop_cli.config.config import Config
from eprop_cli.config.load import load
from eprop_cli.errors import UserError
from eprop_cli.runs.beginning import earlier_config, quoted
from eprop_cli.runs.checkpoint import check_resume
from eprop_cli.runs.comparison import summarise
from eprop_cli.runs.reader import Run
from eprop_cli.sweeps.record import read_sweep_record

ARGUMENTS = [
    *("task.n_in=8", "task.n_cues=3", "task.input_spike_prob=0.3", "neuron.n_reg=4", "neuron.n_ad=4", "plots=none"),
    *("task.steps={cue: 15, spacing: 0, bg_noise: 25, recall: 30}", "training=data_parallel", "engine=compiled"),
    *("task.n_iter=2", "task.n_batch=2", "training.n_iter_test=1", "recording=default"),
]
COMPOSED = 7  # of so many attempts one composes the config that it has damaged
EXECUTED = "executed"  # what the module evil leaves behind
VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 2, 10**6, 10**30, -(10**30), 0.5, 1e308, -1e-320, float("nan"), float("inf"), "", "x"),
    *(
        "${oc.env:HOME}",
        "${seed}",
        "evil:T",
        "../../x",
        "/etc/passwd",
        "\x1b[2J",
        "\udc80",
        "ü",
        "COMPLETED",
        "RUNNING",
    ),
    *("$\\frac$", "null", [], [1], ["x"], [[]], {}, {"_target_": "evil.T"}, {"a": 1}, {"a": {"b": "${x}"}}),
]
KEYS = [
    *("seed", "resume", "objective", "task.n_iter", "task.name", "task.steps", "neuron.n_reg", "neuron.rec.tau_m"),
    *("neuron.out.loss", "synapse.weights_from", "synapse.weight_scale.in_rec", "optimizer", "optimizer.schedule.name"),
    *("training.name", "engine.name", "plots.figures", "plots.dpi", "recording.iterations", "kernel.resolution", "+x"),
    *("~task.n_in", "hydra.run.dir", "hydra/launcher", "experiment", "task", "+task.extra", "++neuron.reg", "no.such"),
]
TEXTS = [*map(str, VALUES), "1,2", "[1", "{a", "'", '"', "range(3)", "choice(1,2)", "a=b", "int(x)", "${", "${a", "]"]


class Damage:
    """What is done to a copy of a run; everything follows from the seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def do(self, directory: Path) -> str:
        """Damage a file; returns which, and how."""
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        kind = self.random.choice(sorted({path.suffix for path in files}))
        path = self.random.choice([path for path in files if path.suffix == kind])
        ways: dict[str, list[Callable[[Path], None]]] = {
            ".json": [self._json] * 4,
            ".npz": [self._npz] * 4,
            ".parquet": [self._parquet] * 4,
            ".csv": [self._text] * 4,
            ".yaml": [self._text] * 2,
        }
        way = self.random.choice([self._cut, self._flip, *ways.get(path.suffix, [])])
        way(path)
        return f"{path.relative_to(directory)} by {way.__name__.strip('_')}"

    def _cut(self, path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: self.random.randrange(len(data) + 1)])

    def _flip(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        for _ in range(self.random.choice([1, 3, 30])):
            if data:
                data[self.random.randrange(len(data))] = self.random.randrange(256)
        path.write_bytes(data)

    def _text(self, path: Path) -> None:
        lines = path.read_text().splitlines()
        index = self.random.randrange(len(lines))
        parts = lines[index].split(",")
        parts[self.random.randrange(len(parts))] = self.random.choice(TEXTS)
        lines[index] = ",".join(parts)
        path.write_bytes("\n".join(lines).encode(errors="surrogateescape") + b"\n")

    def _json(self, path: Path) -> None:
        tree = json.loads(path.read_text())
        for _ in range(self.random.choice([1, 1, 3])):
            self._change(tree)
        path.write_text(json.dumps(tree))

    def _change(self, tree: Any) -> None:
        """Replace, remove or add something somewhere."""
        while True:
            places = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
            if not places:
                return
            place = self.random.choice(places)
            below = tree[place]
            if isinstance(below, dict | list) and below and self.random.random() < 0.8:
                tree = below
                continue
            if self.random.random() < 0.2:
                del tree[place]
            elif isinstance(tree, dict) and self.random.random() < 0.2:
                tree[self.random.choice(["x", "_target_", "hydra", "${x}", "\x1b"])] = copy.deepcopy(
                    self.random.choice(VALUES)
                )
            else:
                tree[place] = copy.deepcopy(self.random.choice(VALUES))
            return

    def _npz(self, path: Path) -> None:
        with np.load(path) as file:
            arrays = dict(file)
        name = self.random.choice(sorted(arrays))
        whole = arrays[name]
        other: list[Any] = [
            *(-5, 10**9, 2**62, 1.5, float("nan"), float("inf"), "text", True, 1j, [], np.zeros(3), np.zeros((3, 3))),
            *(np.zeros(whole.shape, complex), np.zeros(whole.shape, "M8[s]"), np.full(whole.shape, "x")),
            *(np.zeros(whole.shape, [("a", float)]), np.full(whole.shape, np.nan), np.full(whole.shape, 1e308), None),
        ]
        chosen = self.random.choice(other)
        arrays = {key: value for key, value in arrays.items() if key != name}
        np.savez(path, **arrays if chosen is None else arrays | {name: chosen})

    def _parquet(self, path: Path) -> None:
        table = pd.read_parquet(path)
        column = self.random.choice(list(table.columns))
        kind = self.random.choice(["drop", "text", "nothing", "times", "rename", "empty", "lists"])
        if kind in ("drop", "rename"):
            table = table.drop(columns=column) if kind == "drop" else table.rename(columns={column: "x"})
        elif kind == "empty":
            table = table.iloc[:0]
        else:
            times = pd.to_datetime("2020-01-01")
            table[column] = {"text": "x", "nothing": None, "times": times, "lists": [[1]] * len(table)}[kind]
        content = io.BytesIO()
        table.to_parquet(content)
        path.write_bytes(content.getvalue())


def look(directory: Path, config: Config | None = None) -> list[str]:
    """Do with a run all that looks at it or would resume it; returns what was refused, a line each.

    config: with which it would go on; None: the one that the run has, which takes some time to be composed.
    """
    run = Run(directory)
    looks: list[Callable[[], Any]] = [
        *(lambda: run.config, lambda: run.metrics, lambda: run.weights, lambda: run.weight_changes),
        *(lambda: run.parameters, lambda: run.overrides, lambda: run.raw_config, lambda: run.recording("last")),
        *(lambda: run.killed, lambda: run.populations, lambda: run.columns, lambda: summarise([run])),
        *(lambda: api.Sweep(directory).best(), lambda: read_sweep_record(directory)),
        *(lambda: earlier_config(directory, frozenset()), lambda: _resume(directory, config)),
    ]
    told = []
    for each in looks:
        try:
            each()
        except UserError as error:
            told.append(str(error))
    return told


def _resume(directory: Path, config: Config | None) -> None:
    base = earlier_config(directory, frozenset())
    if config is None:
        config = load(without_hydra(compose([f"resume={quoted(directory)}", "task.n_iter=5"], None, base)))
    check_resume(config, directory)


def argue(seed: int) -> None:
    """Compose a config of random arguments."""
    chosen = random.Random(seed)
    given = [f"{chosen.choice(KEYS)}={chosen.choice(TEXTS)}" for _ in range(chosen.choice([1, 1, 2]))]
    try:
        api.compose(given)
    except UserError as error:
        if "\n" in str(error):
            raise AssertionError(f"{given}: told in several lines: {error}") from error


def contents(directory: Path) -> dict[Path, bytes]:
    """All files in a directory."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def attempt(whole: Path, place: Path, seed: int, config: Config) -> str:
    """Damage a copy of a run and look at it; returns how. Raises if anything happens that must not."""
    directory = place / "run"
    shutil.copytree(whole, directory)
    try:
        how = Damage(seed).do(directory)
        before = contents(place)
        for line in look(directory, None if seed % COMPOSED == 0 else config):
            if "\n" in line:
                raise AssertionError(f"told in several lines: {line}")
        if contents(place) != before:
            raise AssertionError("something was written")
        if (Path.cwd() / EXECUTED).exists():
            raise AssertionError("something was executed")
    finally:
        shutil.rmtree(directory)
    return how


def make_run(place: Path) -> Path:
    """A run to be damaged, and a module beside it that leaves a trace when it is imported."""
    program = str(Path(sys.executable).with_name("eprop-run"))
    subprocess.run([program, *ARGUMENTS, "hydra.run.dir=whole"], cwd=place, check=True, capture_output=True)
    sweep = {"format": 2, "options": [], "overrides": ARGUMENTS, "beginning": str(place)}
    (place / "whole" / "sweep.json").write_text(json.dumps(sweep))
    (place / "evil.py").write_text(f"import os\nos.mkdir({EXECUTED!r})\nclass T:\n    pass\n")
    return place / "whole"


def main() -> int:
    """Read the command line, go on until the time is over, tell what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long (default: 3600)")
    parser.add_argument("--seed", type=int, default=0, help="of the first attempt (default: 0)")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        whole = make_run(Path(temporary))
        (Path(temporary) / "copy").mkdir()
        config = api.compose([*ARGUMENTS, "task.n_iter=5"])
        until, seed = time.monotonic() + options.seconds, options.seed
        while time.monotonic() < until:
            try:
                if seed % 10:
                    counts[attempt(whole, Path(temporary) / "copy", seed, config).split()[-1]] += 1
                else:
                    argue(seed)
                    counts["arguments"] += 1
            except Exception:
                counts["FOUND"] += 1
                print(f"seed {seed}:", file=sys.stderr)
                traceback.print_exc()
            seed += 1
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    return 1 if counts["FOUND"] else 0


if __name__ == "__main__":
    sys.exit(main())
