"""Cut files of a run off at random lengths, as when the power fails, and resume it: exactly, or refused in one line.

    python -m benchmarks.cuts                 200 cuts, each file in turn
    python -m benchmarks.cuts --cuts 30 --seed 5

A run that is refused must be left as it is. Exit status 1 if anything else happens.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.faults import differences
from benchmarks.fuzz import contents, make_run
from eprop_cli import api
from eprop_cli.errors import UserError


def files(directory: Path) -> list[Path]:
    """Those that a run may depend on, relative to its directory."""
    return sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())


def train_on(directory: Path) -> str | None:
    """Train a run for longer; returns why it was refused, if it was."""
    try:
        api.run([f"resume={directory}", "task.n_iter=4"])
    except UserError as error:
        return str(error)
    return None


def make_longer(whole: Path, place: Path) -> Path:
    """A copy of a run, trained on undisturbed."""
    directory = copy(whole, place)
    if (why := train_on(directory)) is not None:
        raise AssertionError(why)
    return directory


def copy(whole: Path, place: Path) -> Path:
    """A copy of a run."""
    directory: Path = shutil.copytree(whole, place)
    (directory / "sweep.json").unlink()  # with it, it would be a multirun
    return directory


def cut(whole: Path, longer: Path, place: Path, file: Path, chosen: random.Random) -> str:
    """Cut a file of a copy of a run off and resume it; returns what came of it. Raises AssertionError if that is wrong.

    longer: as make_longer() gives it. file: which one, relative to the run. chosen: where.
    """
    directory = copy(whole, place)
    try:
        path = directory / file
        path.write_bytes(path.read_bytes()[: chosen.randrange(max(1, path.stat().st_size))])
        before = contents(directory)
        refused = train_on(directory)
        if refused is None:
            if different := differences(longer, directory):
                raise AssertionError("; ".join(different))
            return "resumed exactly"
        if "\n" in refused:
            raise AssertionError(f"told in several lines: {refused}")
        if contents(directory) != before:
            raise AssertionError(f"changed though it was refused: {refused}")
        return "refused"
    finally:
        shutil.rmtree(directory)


def main() -> int:
    """Read the command line, cut, tell what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the lengths (default: 0)")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        whole = make_run(Path(temporary))
        longer = make_longer(whole, Path(temporary) / "longer")
        chosen, all_files = random.Random(options.seed), [file for file in files(whole) if file.name != "sweep.json"]
        for number in range(options.cuts):
            file = all_files[number % len(all_files)]
            try:
                counts[cut(whole, longer, Path(temporary) / "cut", file, chosen)] += 1
            except Exception as error:
                counts["FOUND"] += 1
                print(f"cut {number}, {file}: {type(error).__name__}: {error}", file=sys.stderr)
    print(f"{len(all_files)} files:", ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    return 1 if counts["FOUND"] else 0


if __name__ == "__main__":
    sys.exit(main())
