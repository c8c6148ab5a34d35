"""Begin, interrupt, resume, compare and look at many short runs in one process, and count what is left over.

    python -m benchmarks.soak                 500 steps in random order, from seed 0
    python -m benchmarks.soak --steps 100 --seed 5

Open files, threads, child processes, handlers of logging and of signals, and unfinished files must be as many as
before; memory may not grow from the first fifth of the steps on by more than 32 MiB. Exit status 1 otherwise.
"""

import argparse
import gc
import logging
import os
import random
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eprop_cli import api
from eprop_cli.errors import UserError
from eprop_cli.reports.page import write_page
from eprop_cli.runs.comparison import summarise
from eprop_cli.runs.reader import Run
from eprop_cli.values import Row

TINY = [
    *("task.n_in=8", "task.n_cues=3", "task.input_spike_prob=0.3", "neuron.n_reg=4", "neuron.n_ad=4", "task.n_batch=2"),
    *("task.steps={cue: 15, spacing: 0, bg_noise: 25, recall: 30}", "plots=none", "training.n_iter_test=1"),
]
STREAM = [
    *("experiment=sine_waves_eprop_iaf", "engine=compiled", "task.n_in=12", "task.steps.sequence=100", "plots=none"),
    *("task.periods=[100,50]", "neuron.n_rec=10"),
]
WAYS = [
    *([[*TINY, "training=data_parallel", "engine=compiled"]] * 6),
    *([STREAM] * 3),
    [*TINY, "training.n_iter_test=0"],  # on NEST, in this process
]
KEPT = 12  # runs at a time
MOST_GROWTH = 32.0  # MiB
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Soak:
    """Runs in a folder, and what is done with them; everything follows from the seed."""

    def __init__(self, place: Path, seed: int) -> None:
        self.random, self.place = random.Random(seed), place
        self.counts: Counter[str] = Counter()
        self._number = 0

    def step(self) -> None:
        """Do something."""
        acts: list[Callable[[], str]] = [
            *([self._begin] * 4),
            *([self._interrupt] * 2),
            *([self._resume] * 3),
            *(self._compare, self._refuse),
            *([self._look] * 2),
        ]
        self.counts[self.random.choice(acts)()] += 1

    def runs(self) -> list[Path]:
        """Those that there are."""
        return sorted(path.parent for path in self.place.glob("*/run.json"))

    def _begin(self, on_row: Callable[[Row], object] | None = None) -> str:
        self._number += 1
        way = [*self.random.choice(WAYS), f"task.n_iter={self.random.choice([1, 2, 3])}", f"seed={self._number}"]
        api.run(way, directory=self.place / f"run{self._number}", on_row=on_row)
        for old in self.runs()[:-KEPT]:
            for path in sorted(old.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            old.rmdir()
        return "begun"

    def _interrupt(self) -> str:
        try:
            self._begin(lambda _row: signal.raise_signal(signal.SIGINT))
        except KeyboardInterrupt:
            return "interrupted"
        return "over before they could be interrupted"

    def _resume(self) -> str:
        if not (runs := self.runs()):
            return "nothing to resume"
        chosen = self.random.choice(runs)
        longer = Run(chosen).config["task"]["n_iter"] + 1
        try:
            api.run([f"resume='{chosen}'", f"task.n_iter={longer}"])
        except UserError:  # on NEST in one simulation
            return "not resumable"
        return "resumed"

    def _compare(self) -> str:
        summarise([Run(path) for path in self.runs()])
        return "compared"

    def _look(self) -> str:
        if not (runs := self.runs()):
            return "nothing to look at"
        run = Run(self.random.choice(runs))
        assert len(run.metrics)
        assert run.weights
        if self.random.random() < 0.1:
            write_page(run.directory)
        return "looked at"

    def _refuse(self) -> str:
        try:
            api.run(["task.n_itr=5"], directory=self.place / "refused")
        except UserError:
            return "refused"
        raise AssertionError("a key that there is not was accepted")


def left_over(place: Path) -> dict[str, Any]:
    """What is counted before and after."""
    gc.collect()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        "open files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "child processes": len(children),
        "handlers of logging": sum(len(logging.getLogger(name).handlers) for name in (None, "eprop_cli")),
        "handlers of signals": str([signal.getsignal(number) for number in SIGNALS]),
        "unfinished files": len([*place.rglob("*.part"), *place.rglob(".reserve")]),
        "files in temporary folders": len(list(Path(tempfile.gettempdir()).glob(f"*{os.getpid()}*"))),
    }


def memory() -> float:
    """MiB that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    """Read the command line, go through the steps, tell what is left over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500, help="how many (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="of their order (default: 0)")
    options = parser.parse_args()
    os.environ.setdefault("PYNEST_QUIET", "1")
    with tempfile.TemporaryDirectory() as temporary:
        soak, problems = Soak(Path(temporary), options.seed), []
        settled = 0.0
        for way in (WAYS[0], STREAM, WAYS[-1]):  # what is loaded once
            run = api.run([*way, "task.n_iter=1"], directory=Path(temporary) / f"first{len(soak.runs())}")
        write_page(run.directory)  # Matplotlib keeps its fonts open
        before = left_over(Path(temporary))
        for number in range(1, options.steps + 1):
            try:
                soak.step()
            except Exception as error:
                problems.append(f"step {number}: {type(error).__name__}: {error}")
            if number == max(1, options.steps // 5):
                gc.collect()
                settled = memory()
        after, end = left_over(Path(temporary)), memory()
    problems += [
        f"{name}: {before[name]} before, {after[name]} after" for name in before if before[name] != after[name]
    ]
    if end - settled > MOST_GROWTH:
        problems.append(f"memory grew by {end - settled:.0f} MiB")
    print(", ".join(f"{count} {what}" for what, count in sorted(soak.counts.items())))
    print(f"memory {settled:.0f} MiB after a fifth of the steps, {end:.0f} MiB at the end")
    print("; ".join(f"{name} {before[name]}, {after[name]}" for name in before if isinstance(before[name], int)))
    print(*problems, sep="\n", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
