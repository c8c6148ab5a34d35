"""Kill a data-parallel run at random moments, resume it each time, and compare its end with an undisturbed run's.

After each kill every file must be whole and every worker must end by itself. Exit status 1 if anything differs.
"""

import argparse
import csv
import io
import json
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import yaml
from pyarrow import parquet

PROGRAM = str(Path(sys.executable).with_name("eprop-run"))
RUN = [
    *("training=data_parallel", "task.n_batch=2", "engine.n_workers=2", "training.checkpoint_every=3"),
    *("training.do_early_stopping=true", "training.stop_crit=0", "training.n_iter_test=2"),
    *("task.n_in=8", "task.n_cues=3", "task.input_spike_prob=0.3", "neuron.n_reg=4", "neuron.n_ad=4"),
    *("task.steps={cue: 15, spacing: 0, bg_noise: 25, recall: 30}", "plots=none"),
]
EARLY, STARTING = 0.4, 2.0  # part of the kills that come while a run starts, and within how many seconds
ITERATION = 0.2  # s, about as long as an iteration takes
ENDING = 60.0  # s, that workers get to notice that their driver is gone


def main() -> int:
    """Read the command line, make both runs, tell what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how often the run is killed")
    parser.add_argument("--engine", choices=["nest", "compiled"], default="nest")
    parser.add_argument("--n-iter", type=int, default=200, help="training iterations")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; drawn and told if not given")
    parser.add_argument("overrides", nargs="*", help="further keys, e.g. engine.n_workers=1")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"Seed of the moments: {seed}", flush=True)
    overrides = [*RUN, f"engine={options.engine}", f"task.n_iter={options.n_iter}", *options.overrides]
    with tempfile.TemporaryDirectory() as place:
        problems = compare(Path(place), overrides, options.kills, options.n_iter // options.kills, random.Random(seed))
    print("\n".join(problems) or f"After {options.kills} kills the run ended as the undisturbed one, bit for bit.")
    return 1 if problems else 0


def compare(place: Path, overrides: Sequence[str], kills: int, apart: int, moments: random.Random) -> list[str]:
    """Make an undisturbed run and one that is killed, in a directory; returns all that is wrong with the second.

    apart: rows within which a kill follows the one before.
    """
    undisturbed, killed = place / "undisturbed", place / "killed"
    finish(start(undisturbed, overrides))
    problems = []
    for number in range(1, kills + 1):
        process = resume(killed) if killed.exists() else start(killed, overrides)
        wait_until(lambda: (killed / "checkpoint.npz").exists())  # before, there is nothing to resume
        await_moment(process, killed, apart, moments)
        found = kill(process) + damage(killed)
        print(f"kill {number:>3}: {reached(killed)}", *found, sep="; ", flush=True)
        problems += [f"kill {number}: {problem}" for problem in found]
    finish(resume(killed))
    return problems + damage(killed) + differences(undisturbed, killed)


def kill(process: "subprocess.Popen[bytes]") -> list[str]:
    """Kill a run, and it alone; returns what is wrong with the processes."""
    if process.poll() is not None:
        return [f"the run had ended already, with status {process.returncode}"]
    process.kill()
    process.wait()
    return [] if wait_until(lambda: not processes(process.pid), ENDING) else ["workers outlive their driver"]


def await_moment(process: "subprocess.Popen[bytes]", run: Path, apart: int, moments: random.Random) -> None:
    """Wait until a run is to be killed: any time from its start on, in the middle of whatever it does."""
    if moments.random() < EARLY:
        time.sleep(moments.uniform(0, STARTING))
        return
    goal = len(rows(run)) + moments.randrange(apart)
    wait_until(lambda: len(rows(run)) >= goal or process.poll() is not None)
    time.sleep(moments.uniform(0, ITERATION))


def start(directory: Path, overrides: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Begin a run in a directory that does not exist."""
    return _start([*overrides, f"hydra.run.dir={directory}"])


def resume(directory: Path) -> "subprocess.Popen[bytes]":
    """Let a run go on."""
    return _start([f"resume={directory}"])


def _start(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # each has its log
    return subprocess.Popen([PROGRAM, *arguments], start_new_session=True, **silent)


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a run's end; raises CalledProcessError unless it completed."""
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, process.args)


def reached(directory: Path) -> str:
    """How far a run has come."""
    with np.load(directory / "checkpoint.npz", allow_pickle=False) as checkpoint:
        iteration = int(checkpoint["iteration"])
    return f"{len(rows(directory)) - 1} rows, checkpoint of iteration {iteration}"


def rows(directory: Path) -> list[list[str]]:
    """metrics.csv without its seconds, the header first."""
    with (directory / "metrics.csv").open(newline="") as file:
        return [row[:-1] for row in csv.reader(file)]


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two runs: rows but for their seconds, and weights."""
    found = []
    if rows(one) != rows(other):
        pairs = enumerate(zip(rows(one), rows(other), strict=False))
        first = next((number for number, pair in pairs if pair[0] != pair[1]), min(len(rows(one)), len(rows(other))))
        found.append(f"metrics.csv differs from line {first + 1} on")
    with np.load(one / "weights.npz") as before, np.load(other / "weights.npz") as after:
        names = sorted({*before.files, *after.files})
        same = {name: name in before and name in after and _bits(before[name]) == _bits(after[name]) for name in names}
    return found + [f"weights.npz: {name} differs" for name in names if not same[name]]


def _bits(array: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> tuple[tuple[int, ...], bytes]:
    return array.shape, array.tobytes()


def damage(directory: Path) -> list[str]:
    """What is wrong with the files of a run that was killed; hidden ones may be torn, as they do not count yet."""
    found = []
    for path in sorted(directory.rglob("*")):
        check = CHECKS.get(path.suffix)
        if path.is_file() and check and not path.name.startswith("."):
            try:
                check(path.read_bytes())
            except Exception as error:
                found.append(f"{path.relative_to(directory)} is damaged: {error}")
    return found


def _check_csv(content: bytes) -> None:
    header, *lines = content.decode().splitlines(keepends=True)
    if any(line.count(",") != header.count(",") or not line.endswith("\n") for line in [header, *lines]):
        raise ValueError("a line is not whole")


def _check_npz(content: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if broken := archive.testzip():
            raise ValueError(f"{broken} is broken")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        dict(arrays)


def _check_yaml(content: bytes) -> None:
    if yaml.safe_load(content) is None:
        raise ValueError("it is empty")


CHECKS: dict[str, Callable[[bytes], object]] = {
    ".json": json.loads,
    ".csv": _check_csv,
    ".npz": _check_npz,
    ".parquet": lambda content: parquet.read_table(io.BytesIO(content)),
    ".yaml": _check_yaml,
}


def processes(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it ended meanwhile
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(path.parent.name))
    return found


def wait_until(condition: Callable[[], bool], timeout: float = 300.0) -> bool:
    """Wait for something to happen; returns whether it did."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


if __name__ == "__main__":
    sys.exit(main())
