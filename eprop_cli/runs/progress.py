"""Show how a run is getting on: a live display on a terminal, a line now and then in a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from eprop_cli.columns import EPOCH, Column, judged
from eprop_cli.config.config import Config
from eprop_cli.phases import TRAINING
from eprop_cli.values import Row

log = logging.getLogger(__name__)
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
        with _live(config, done) as report:
            yield report
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
            parts.append(f"loss {metrics['loss']:.4f}")
        else:
            parts.append(f"{column.short} {metrics[column.name]:.3f}")
    return ", ".join(parts)


def lines(config: Config) -> Callable[[Row], None]:
    """A function that takes each row and tells of one now and then."""
    columns = config.columns
    began = time.monotonic()
    due = 0.0

    def report(row: Row) -> None:
        nonlocal due
        now = time.monotonic()
        last = row.phase == TRAINING and row.iteration == config.task.n_iter
        if now >= due or last:
            phase = "" if row.phase == TRAINING else f" ({row.phase})"
            done = f"{row.iteration}/{config.task.n_iter}{_epoch(row)}{phase}"
            log.info("iteration %s: %s", done, describe(row, columns))
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
    columns = config.columns
    with Progress(*shown) as display:
        bar = display.add_task("", total=config.task.n_iter, completed=done, phase="starting", state="")

        def report(row: Row) -> None:
            rate = config.task.n_batch / row.seconds if row.seconds else 0.0
            result = f"{_epoch(row)}, {describe_metrics(row.metrics, columns)}".removeprefix(", ")
            state = f"{result}  {rate:.1f} sequences/s"
            display.update(bar, completed=row.iteration, phase=row.phase, state=state)

        yield report
