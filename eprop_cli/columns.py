"""The columns of metrics.csv: what they are called, in which unit they are, and which way is better."""

from collections.abc import Sequence
from dataclasses import dataclass

LOWER, HIGHER = "lower", "higher"


@dataclass(frozen=True)
class Column:
    """A column of metrics.csv.

    name: in its first line. label, unit: on axes. better: LOWER, HIGHER, or neither, as of a firing rate.
    least, most: what it can be at all; None: no bound. abbreviation: where the label is too long.
    """

    name: str
    label: str
    unit: str = ""
    better: str = ""
    least: float | None = None
    most: float | None = None
    abbreviation: str = ""

    @property
    def short(self) -> str:
        """What it is called in lines on the terminal."""
        return self.abbreviation or self.label


def judged(columns: Sequence[Column]) -> list[Column]:
    """The loss, and the metric that says best how well the task is done: an error, of which less is better."""
    others = [column for column in columns if column.better == LOWER and not column.name.startswith("loss")]
    return [*(column for column in columns if column.name == "loss"), *others[:1]]


EPOCH = Column("epoch", "epochs of training")


def rate_column(population: str, label: str) -> Column:
    """The column of a population's mean firing rate."""
    return Column(f"rate_{population}", f"firing rate, {label}", "spikes/s", "", 0.0)
