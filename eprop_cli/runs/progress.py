"""Show how a run is getting on: a live display on a terminal, a line now and then in a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from eprop_cli.columns import EPOCH, Column, judged
from eprop_cli.config.config import Config
from eprop_cli.phases import EARLY_STOPPING, TEST, TRAINING, VALIDATION
from eprop_cli.values import Row

log = logging.getLogger(__name__)
log_to_file = logging.getLogger("eprop_cli.file")  # conf/hydra/job_logging keeps it off the terminal
LOG_EVERY = 10.0  # s, between two lines of a log ...
LOG_FRACTION = 0.02  # ... or this part of the time that the run has taken, if that is longer


class Terminal(logging.Handler):
    """Prints each line to what standard output is at that moment: a live display lets it pass above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line."""
        try:
            print(self.format(record), flush=True)
        except Exception:
            self.handleError(record)


@contextmanager
def reporter(config: Config, done: int = 0) -> Iterator[Callable[[Row], None]]:
    """Give a function that takes each row; done: training iterations that an earlier run finished."""
    if sys.stdout.isatty():
        to_file = lines(config, log_to_file)
        with _live(config, done) as report:

            def both(row: Row) -> None:
                report(row)
                to_file(row)

            yield both
    else:
        yield lines(config)


def describe(row: Row, columns: Sequence[Column]) -> str:
    """A row in a few words: the metrics by which it is judged, and the firing rates."""
    parts = [describe_metrics(row.metrics, columns)]
    rates = {
        column.label.partition(", ")[2]: row.metrics[column.name]
        for column in columns
        if column.name.startswith("rate_")
    }
    if rates:
        listed = " and ".join(f"{rate:.1f} ({label})" for label, rate in rates.items())
        parts.append(f"{'rates' if len(rates) > 1 else 'rate'} {listed} spikes/s")
    return ", ".join(parts)


def describe_metrics(metrics: Mapping[str, float], columns: Sequence[Column]) -> str:
    """The loss, and the metric that says best how well the task is done."""
    parts = []
    for column in judged(columns):
        if column.name == "loss":
            parts.append(f"loss {_digits(metrics['loss'])}")
        else:
            parts.append(f"{column.short} {metrics[column.name]:.3f}")
    return ", ".join(parts)


def _digits(value: float) -> str:
    """A number with four digits that count; a whole number where it has more."""
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:#.4g}"


class Place:
    """Tells where in a run a row is: test and early stopping count batches of their own."""

    def __init__(self, config: Config) -> None:
        self._n_iter = config.task.n_iter
        self._totals = {TEST: config.training.n_iter_test, EARLY_STOPPING: config.training.n_iter_early_stop}
        self._last: tuple[int, str] | None = None
        self._count = 0

    def of(self, row: Row) -> tuple[int, int]:
        """Number of a row in its phase, and how many there will be; to be asked of each row once."""
        here = row.iteration, row.phase
        self._count = self._count + 1 if here == self._last else 1
        self._last = here
        own = row.phase in self._totals
        return (self._count, self._totals[row.phase]) if own else (row.iteration, self._n_iter)


def lines(config: Config, log: logging.Logger = log) -> Callable[[Row], None]:
    """A function that takes each row and logs one now and then."""
    columns, place = config.columns, Place(config)
    began = time.monotonic()
    due = 0.0

    def report(row: Row) -> None:
        nonlocal due
        now = time.monotonic()
        number, total = place.of(row)
        last = row.phase in (TRAINING, TEST) and number == total
        if now >= due or last:
            # validation has one batch, after an iteration
            counted = f"{row.phase} batch" if row.phase in (TEST, EARLY_STOPPING) else "iteration"
            phase = " (validation)" if row.phase == VALIDATION else ""
            log.info("%s %d/%d%s%s: %s", counted, number, total, _epoch(row), phase, describe(row, columns))
            due = now + max(LOG_EVERY, LOG_FRACTION * (now - began))

    return report


def _epoch(row: Row) -> str:
    """How often training has gone through its samples, where there are any."""
    return f", epoch {row.metrics[EPOCH.name]:.1f}" if EPOCH.name in row.metrics else ""


@contextmanager
def _live(config: Config, done: int) -> Iterator[Callable[[Row], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    shown = (
        SpinnerColumn(),
        TextColumn("{task.fields[phase]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    columns, place = config.columns, Place(config)
    with Progress(*shown) as display:
        bar = display.add_task("", total=config.task.n_iter, completed=done, phase="starting", state="")

        def report(row: Row) -> None:
            rate = config.task.n_batch / row.seconds if row.seconds else 0.0
            result = f"{_epoch(row)}, {describe_metrics(row.metrics, columns)}".removeprefix(", ")
            state = f"{result}  {rate:.1f} sequences/s"
            number, total = place.of(row)
            display.update(bar, completed=number, total=total, phase=row.phase, state=state)

        yield report
