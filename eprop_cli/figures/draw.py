"""Draw the figures of a run from its directory."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from eprop_cli.figures.dynamics import dynamics
from eprop_cli.figures.learning import PHASES, learning
from eprop_cli.figures.style import save
from eprop_cli.figures.weights import weight_matrices, weight_time_courses
from eprop_cli.phases import TRAINING
from eprop_cli.runs.files import WEIGHT_CHANGES, WEIGHTS
from eprop_cli.runs.reader import Run


def draw_run(run: Run, figures: Sequence[str], formats: Sequence[str], dpi: int, into: Path) -> list[Path]:
    """Draw the named figures of a run into a directory and return their files; what was not recorded is left out."""
    paths = []
    for name in figures:
        for stem, figure in DRAWN[name](run):
            for kind in formats:
                paths.append(into / f"{stem}.{kind}")
                save(figure, paths[-1], dpi)
    return paths


def _learning(run: Run) -> Iterator[tuple[str, Figure]]:
    metrics = run.metrics
    if len(metrics):
        yield "learning", learning(metrics, run.config["neuron"]["out"]["loss"])


def _dynamics(run: Run) -> Iterator[tuple[str, Figure]]:
    config = run.config
    sizes = {"in": config["task"]["n_in"], "reg": config["neuron"]["n_reg"], "ad": config["neuron"]["n_ad"]}
    recordings = {iteration: run.recording(iteration, 0) for iteration in run.recorded}
    kinds = sorted(
        {str(kind) for tables in recordings.values() if "windows" in tables for kind in tables["windows"]["kind"]}
    )
    for iteration, tables in recordings.items():
        if tables.keys() - {"windows"}:
            figure = dynamics(tables, sizes, config["neuron"]["out"]["loss"], kinds, iteration)
            yield f"dynamics_iteration_{iteration}", figure


def _weight_time_courses(run: Run) -> Iterator[tuple[str, Figure]]:
    if (run.directory / WEIGHT_CHANGES).exists() and (run.directory / WEIGHTS).exists():
        n_record = run.config["recording"]["n_record_w"]
        yield "weight_time_courses", weight_time_courses(run.weights, run.weight_changes, n_record, _end(run))


def _weight_matrices(run: Run) -> Iterator[tuple[str, Figure]]:
    if (run.directory / WEIGHTS).exists():
        yield "weight_matrices", weight_matrices(run.weights, run.config["neuron"]["n_reg"])


def _end(run: Run) -> float | None:
    """Task time (ms) at which training ended; None if the duration of a sequence is not known from a recording."""
    config = run.config
    tables = [table for number in run.recorded for table in run.recording(number, 0).items()]
    lasts = [float(table["time"].max()) for name, table in tables if name in ("reg", "ad", "out") and len(table)]
    if not lasts:
        return None
    sequence: float = max(lasts) + config["recording"]["interval"]  # which divides it
    # Only in one continuous simulation does time pass in the other phases too.
    phases = list(PHASES) if config["training"]["name"] == "continuous" else [TRAINING]
    n_sequences: int = run.metrics["phase"].isin(phases).sum() * config["task"]["n_batch"]
    return n_sequences * sequence


# name (as in plots.figures) -> what draws it: file names without ending, and figures; none where there is no data
DRAWN: dict[str, Callable[[Run], Iterator[tuple[str, Figure]]]] = {
    "learning": _learning,
    "dynamics": _dynamics,
    "weight_time_courses": _weight_time_courses,
    "weight_matrices": _weight_matrices,
}
