"""Measure eprop-run beside what a user would otherwise run, in one go; prints tables of ratios and writes a CSV.

Every comparison alternates its candidates, so that a disturbance of the machine hits all of them; a ratio is given as
the median over repetitions with its range.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from eprop_cli.engines.nest.workers import Workers

QUIET = ["plots=none", "training.n_iter_test=0"]


@dataclass(frozen=True)
class Measured:
    """One process: wall-clock seconds, peak memory of it and its children together (MB), training losses."""

    seconds: float
    peak: float
    losses: list[float]
    directory_rows: list[dict[str, str]]


def tutorial(n_batch: int, n_iter: int) -> Measured:
    """NEST's own script."""
    settings = [f"task.n_batch={n_batch}", f"task.n_iter={n_iter}"]
    settings += ["training.n_iter_test=0", "training.do_early_stopping=false"]
    script = "classification_evidence-accumulation_bsshslm_2020"
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "eprop_cli.engines.nest.shipped", directory, script, *settings]
        seconds, peak, output = _watch(command)
    losses = [loss for phase, loss in json.loads(output.splitlines()[-1]) if phase == "training"]
    return Measured(seconds, peak, losses, [])


def eprop(*overrides: str) -> Measured:
    """eprop-run in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        seconds, peak, _ = _watch([_program("eprop-run"), *overrides, f"hydra.run.dir={run}"])
        with (run / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
    return Measured(seconds, peak, [float(row["loss"]) for row in rows if row["phase"] == "training"], rows)


def steady(measured: Measured) -> float:
    """Median seconds of an iteration, the first left out."""
    return statistics.median(float(row["seconds"]) for row in measured.directory_rows[1:])


def compare(name: str, repeats: int, candidates: dict[str, Callable[[], float]], base: str) -> list[dict[str, str]]:
    """Time candidates alternately; ratios say how many times as fast as base each is."""
    times: dict[str, list[float]] = {key: [] for key in candidates}
    for _ in range(repeats):
        for key, measure in candidates.items():
            times[key].append(measure())
    rows = []
    for key, values in times.items():
        ratios = [first / value for first, value in zip(times[base], values, strict=True)]
        rows.append(
            {
                "benchmark": name,
                "candidate": key,
                "median": f"{statistics.median(values):.3f} s",
                "times as fast": f"{statistics.median(ratios):.2f}",
                "range": f"{min(ratios):.2f}-{max(ratios):.2f}",
            }
        )
    return rows


def against_tutorial(args: argparse.Namespace) -> list[dict[str, str]]:
    """(a) The shipped tutorial against both ways of training: whole processes, same numbers, losses checked."""
    size = [f"task.n_batch={args.n_batch}", f"task.n_iter={args.n_iter}", *QUIET]
    losses: dict[str, list[float]] = {}

    def timed(key: str, run: Callable[[], Measured]) -> Callable[[], float]:
        def measure() -> float:
            measured = run()
            losses[key] = measured.losses
            return measured.seconds

        return measure

    parallel = ["training=data_parallel", "training.as_continuous=true", *size]
    candidates = {
        "tutorial": timed("tutorial", lambda: tutorial(args.n_batch, args.n_iter)),
        "continuous": timed("continuous", lambda: eprop(*size)),
        "data_parallel, 1 worker": timed("parallel 1", lambda: eprop(*parallel)),
        "data_parallel, 2 workers": timed("parallel 2", lambda: eprop(*parallel, "engine.n_workers=2")),
    }
    rows = compare(f"tutorial, n_batch {args.n_batch}, {args.n_iter} iterations", args.repeats, candidates, "tutorial")
    for key, values in losses.items():
        difference = max(abs(a - b) for a, b in zip(losses["tutorial"], values, strict=True))
        print(f"largest difference of a loss from the tutorial's, {key}: {difference:.1e}")
        if difference > 1e-10:
            sys.exit(f"benchmarks: the losses of {key} are not the tutorial's")
    return rows


def engines(args: argparse.Namespace) -> list[dict[str, str]]:
    """(e) The compiled engine against the tutorial: seconds per iteration in steady state, and whole processes."""
    size = [f"task.n_batch={args.n_batch}", *QUIET, "training=data_parallel", "engine=compiled"]
    few, many = 2, 6

    def tutorial_iteration() -> float:
        return (tutorial(args.n_batch, many).seconds - tutorial(args.n_batch, few).seconds) / (many - few)

    candidates: dict[str, Callable[[], float]] = {"tutorial": tutorial_iteration}
    for workers, draws in ((1, "per_step"), (2, "per_step"), (2, "per_spike")):
        overrides = [*size, "task.n_iter=60", f"engine.n_workers={workers}", "recording=none"]
        overrides.append(f"task.input_draws={draws}")
        candidates[f"compiled, {workers} threads, {draws}"] = lambda overrides=overrides: steady(eprop(*overrides))
    rows = compare(f"one iteration, n_batch {args.n_batch}", args.repeats, candidates, "tutorial")
    whole = {
        "tutorial": lambda: tutorial(args.n_batch, 50).seconds,
        "compiled, 2 threads": lambda: eprop(*size, "task.n_iter=50", "engine.n_workers=2").seconds,
    }
    return rows + compare(f"50 iterations, n_batch {args.n_batch}, whole process", 1, whole, "tutorial")


def online(args: argparse.Namespace) -> list[dict[str, str]]:
    """(f) The online family: seconds per iteration of its sine waves (per synaptic event: benchmarks.online)."""
    rows = []
    for model in ("eprop_iaf", "eprop_iaf_psc_delta_adapt"):
        size = [*QUIET, "recording=none", f"experiment=sine_waves_{model}"]
        candidates: dict[str, Callable[[], float]] = {
            f"NEST, {model}": lambda size=size: steady(eprop(*size, f"task.n_iter={args.n_iter}")),
            f"compiled, {model}": lambda size=size: steady(eprop(*size, "engine=compiled", "task.n_iter=60")),
        }
        rows += compare(f"one iteration of sine waves, {model}", args.repeats, candidates, f"NEST, {model}")
    return rows


def memory(args: argparse.Namespace) -> list[dict[str, str]]:
    """(b) Peak memory after few and many iterations of 8 sequences."""
    size, few, rows = ["task.n_batch=8", *QUIET], 5, []
    parallel = ["training=data_parallel", *size]
    candidates: dict[str, tuple[int, Callable[[int], Measured]]] = {
        "tutorial": (20, lambda n: tutorial(8, n)),  # it takes ever longer
        "continuous": (args.n_iter_memory, lambda n: eprop(*size, f"task.n_iter={n}")),
        # As they learn, neurons fire more, and NEST stores more of each sequence.
        "continuous, eta 0": (args.n_iter_memory, lambda n: eprop(*size, f"task.n_iter={n}", "optimizer.eta=0")),
        "data_parallel": (args.n_iter_memory, lambda n: eprop(*parallel, f"task.n_iter={n}")),
        "compiled": (10 * args.n_iter_memory, lambda n: eprop(*parallel, "engine=compiled", f"task.n_iter={n}")),
    }
    for name, (many, run) in candidates.items():
        before, after = run(few).peak, run(many).peak
        rows.append(
            {
                "benchmark": "peak memory, n_batch 8",
                "candidate": name,
                f"{few} iterations": f"{before:.0f} MB",
                "more iterations": f"{after:.0f} MB after {many}",
                "growth": f"{100 * (after / before - 1):+.1f} %",
            }
        )
    return rows


def startup(args: argparse.Namespace) -> list[dict[str, str]]:
    """(c) What a user waits for first."""
    eprop_run = _program("eprop-run")

    def command(*arguments: str) -> Callable[[], float]:
        return lambda: _watch([eprop_run, *arguments])[0]

    candidates = {
        "eprop-run --help": command("--help"),
        "eprop-run --cfg job": command("--cfg", "job"),
        "experiment=smoke": lambda: eprop("experiment=smoke").seconds,
        "experiment=smoke, compiled": lambda: (
            eprop("experiment=smoke", "training=data_parallel", "engine=compiled").seconds
        ),
        "python -c 'import nest'": lambda: _watch([sys.executable, "-c", "import nest"])[0],
    }
    return compare("start-up", max(3, args.repeats), candidates, "eprop-run --help")


def workers(args: argparse.Namespace) -> list[dict[str, str]]:
    """(d) Seconds per iteration of continuous training and of 1 and 2 workers, and what part is spent outside them."""
    size = [f"task.n_batch={args.n_batch}", f"task.n_iter={args.n_iter}", *QUIET]
    candidates: dict[str, Callable[[], float]] = {"continuous": lambda: steady(eprop(*size))}
    for n in (1, 2):
        overrides = [*size, "training=data_parallel", f"engine.n_workers={n}"]
        candidates[f"data_parallel, {n} workers"] = lambda overrides=overrides: steady(eprop(*overrides))
    rows = compare(f"one iteration, n_batch {args.n_batch}", args.repeats, candidates, "continuous")
    for n in (1, 2):
        outside = outside_workers(args.n_batch, args.n_iter, n)
        rows[n]["outside the workers"] = f"{100 * outside:.1f} %"
    return rows


def outside_workers(n_batch: int, n_iter: int, n_workers: int) -> float:
    """Fraction of an iteration in which no worker builds or simulates a network; the first iteration is left out."""
    from hydra import compose, initialize_config_dir

    from eprop_cli.config.composed import without_hydra
    from eprop_cli.config.files import conf_dir
    from eprop_cli.config.load import load
    from eprop_cli.training.data_parallel import DataParallel

    overrides = ["training=data_parallel", f"engine.n_workers={n_workers}", f"task.n_batch={n_batch}"]
    overrides += [f"task.n_iter={n_iter}", *QUIET]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = load(without_hydra(compose("config", overrides=overrides)))
    trainer = DataParallel(config)
    trainer._engine._workers = watched = TimedWorkers(config.engine)  # type: ignore[attr-defined]
    try:
        records = trainer.records()
        next(records)
        busy, began = watched.busy, time.perf_counter()
        for _ in records:
            continue
        return 1.0 - (watched.busy - busy) / (time.perf_counter() - began)
    finally:
        trainer.close()


class TimedWorkers(Workers):
    """Workers that say for how long the longest of them was at work."""

    busy = 0.0  # s

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], builds: int) -> list[Any]:
        """As Workers.map."""
        done = super().map(partial(_timed, function), items, builds)
        self.busy += max(seconds for seconds, _ in done)
        return [result for _, result in done]


def _timed(function: Callable[[Any], Any], item: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    result = function(item)
    return time.perf_counter() - began, result


def scaling(args: argparse.Namespace) -> list[dict[str, str]]:
    """(f) Iteration time over batch size and workers, fitted; and two Dask workers."""
    import numpy as np
    from distributed import LocalCluster

    def iteration(n_batch: int, n_workers: int, *more: str) -> float:
        size = [f"task.n_batch={n_batch}", "task.n_iter=4", f"engine.n_workers={n_workers}", "recording=none"]
        return steady(eprop("training=data_parallel", *size, *more, *QUIET))

    sizes = [(n_batch, n_workers) for n_batch in (4, 8, 16, 32) for n_workers in (1, 2)]
    times = {size: statistics.median(iteration(*size) for _ in range(args.repeats)) for size in sizes}
    # seconds = start + simulate * (sequences of the largest share) + drive * (sequences)
    terms = np.array([[1.0, -(-n_batch // n_workers), n_batch] for n_batch, n_workers in sizes])
    start, simulate, drive = np.linalg.lstsq(terms, np.array(list(times.values())), rcond=None)[0]

    def model(n_batch: int, n_workers: int) -> float:
        return float(start + simulate * -(-n_batch // n_workers) + drive * n_batch)

    rows = [
        {
            "benchmark": "iteration over batch and workers",
            "candidate": f"n_batch {n_batch}, {n_workers} workers",
            "measured": f"{seconds:.3f} s",
            "model": f"{model(n_batch, n_workers):.3f} s",
        }
        for (n_batch, n_workers), seconds in times.items()
    ]
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        dask = ["engine.backend=dask", f"engine.scheduler={cluster.scheduler_address}"]
        seconds = statistics.median(iteration(32, 2, *dask) for _ in range(args.repeats))
    measured = {"benchmark": "iteration over batch and workers", "candidate": "n_batch 32, 2 Dask workers"}
    rows.append(measured | {"measured": f"{seconds:.3f} s", "model": f"{model(32, 2):.3f} s"})
    print(f"model: {start:.3f} s + {simulate:.4f} s per sequence of a share + {drive:.4f} s per sequence of the batch")
    hours = 2000 * model(64, 64) / 3600
    print(f"it predicts for 2000 iterations of 64 sequences on 64 cores: {hours:.2f} h")
    return rows


def sweep(args: argparse.Namespace) -> list[dict[str, str]]:
    """(g) What a job of a sweep costs beside its training: from its start to the next one's, less its batches."""
    with tempfile.TemporaryDirectory() as directory:
        began = time.time()
        overrides = ["experiment=smoke", "training=data_parallel", "engine=compiled", "recording=none", *QUIET]
        _watch([_program("eprop-run"), "-m", *overrides, f"seed=range({args.n_jobs})", f"hydra.sweep.dir={directory}"])
        starts, trained = [], []
        for path in Path(directory).glob("*/run.json"):
            starts.append(datetime.fromisoformat(json.loads(path.read_text())["start"]).timestamp())
            with path.with_name("metrics.csv").open() as file:
                trained.append(sum(float(row["seconds"]) for row in csv.DictReader(file)))
    order = sorted(range(len(starts)), key=starts.__getitem__)
    beside = [starts[b] - starts[a] - trained[a] for a, b in pairwise(order)]
    row = {"benchmark": f"a sweep of {args.n_jobs} jobs", "candidate": "basic launcher"}
    row["until the first"] = f"{min(starts) - began:.2f} s"
    row["a job beside its training"] = f"{statistics.median(beside):.2f} s"
    return [row | {"range": f"{min(beside):.2f}-{max(beside):.2f} s"}]


def data_sets(args: argparse.Namespace) -> list[dict[str, str]]:
    """Batches of the shape of SHD beside published figures, and samples per second of the loaders."""
    from benchmarks import data_sets as measured

    return measured.data_sets(repeats=args.repeats)


def cuda(args: argparse.Namespace) -> list[dict[str, str]]:
    """Training steps on a GPU, beside those of the compiled engine."""
    from benchmarks import cuda as measured

    unknown = set(args.problems) - set(measured.PROBLEMS)
    if unknown:
        told = f"--problems: there is no {', '.join(sorted(unknown))}; there are {', '.join(measured.PROBLEMS)}"
        print(f"benchmarks: {told}", file=sys.stderr)
        sys.exit(2)
    return measured.cuda(args.problems, args.threads, asked="cuda" in args.names)


BENCHMARKS = {
    "cuda": cuda,
    "data_sets": data_sets,
    "tutorial": against_tutorial,
    "workers": workers,
    "memory": memory,
    "startup": startup,
    "engines": engines,
    "online": online,
    "scaling": scaling,
    "sweep": sweep,
}


def main() -> None:
    """Run the benchmarks asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    described = ", ".join(f"{name}: {measure.__doc__}" for name, measure in BENCHMARKS.items())
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which; all without any. {described}")
    parser.add_argument("--n-batch", type=int, default=32, help="sequences per iteration (default %(default)s)")
    parser.add_argument("--n-iter", type=int, default=5, help="training iterations (default %(default)s)")
    parser.add_argument("--n-iter-memory", type=int, default=50, help="iterations for memory (default %(default)s)")
    parser.add_argument("--n-jobs", type=int, default=8, help="jobs of the sweep (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions (default %(default)s)")
    parser.add_argument("--problems", nargs="*", default=[], metavar="NAME", help="of cuda; all without any")
    parser.add_argument("--threads", type=int, nargs="*", default=[2, 16], help="of the CPU, for cuda (default 2 16)")
    parser.add_argument("--csv", type=Path, default=Path("benchmarks.csv"), help="where to write (default %(default)s)")
    args = parser.parse_args()
    unknown = set(args.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    rows = []
    for name in args.names or BENCHMARKS:
        measured = BENCHMARKS[name](args)
        _print(measured)
        rows += measured
    with args.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def _print(rows: Sequence[dict[str, str]]) -> None:
    from rich import print as rich_print
    from rich.table import Table

    table = Table(title=rows[0]["benchmark"])
    columns = list(dict.fromkeys(key for row in rows for key in row))[1:]
    for column in columns:
        table.add_column(column, justify="left" if column == "candidate" else "right")
    for row in rows:
        table.add_row(*(row.get(column, "") for column in columns))
    rich_print(table)


def _program(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    return found or sys.exit(f"benchmarks: {name} is not installed")


def _watch(command: list[str]) -> tuple[float, float, str]:
    """Run a command; wall-clock seconds, peak memory of its process tree in MB, output. Stops at a failure."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peak = 0.0
    done = threading.Event()

    def poll() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, sum(map(_resident, _tree(process.pid))))

    watcher = threading.Thread(target=poll)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"benchmarks: {' '.join(command)} failed:\n{output}")
    return seconds, peak, output


def _tree(pid: int) -> list[int]:
    """A process and all that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(descendant for child in children for descendant in _tree(int(child)))]


def _resident(pid: int) -> float:
    """Resident memory in MB."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


if __name__ == "__main__":
    main()
