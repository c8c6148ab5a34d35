"""The number that a job returns to the search that started it: one of those in metrics.csv, by name.

[best_ | medianK_][val_ | test_]METRIC: of the training batches the last, the best, or the median of the last K; of the
validation batches likewise; of the test batches the mean.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from eprop_cli.columns import HIGHER
from eprop_cli.errors import ConfigError, require
from eprop_cli.phases import TEST, TRAINING, VALIDATION

if TYPE_CHECKING:
    import pandas as pd

PHASES = {"": TRAINING, "val_": VALIDATION, "test_": TEST}
SHORT = {"error": "recall_error"}  # other names of metrics
FORM = re.compile(r"(?:(?P<best>best)_|median(?P<last>[1-9]\d*)_)?(?P<phase>val_|test_)?(?P<metric>\w+)")


@dataclass(frozen=True)
class Objective:
    """A column of one phase, and what is taken of it: "last", "min", "max", "mean", or the median of the last k."""

    phase: str
    column: str
    take: str | int

    def value(self, metrics: "pd.DataFrame") -> float:
        """The number, from a table as Run.metrics; nan if the phase has no row."""
        values = metrics.loc[metrics["phase"] == self.phase, self.column]
        if not len(values):
            return math.nan
        if isinstance(self.take, int):
            return float(median(values.iloc[-self.take :]))
        return float(values.iloc[-1] if self.take == "last" else values.agg(self.take))


class Reports:
    """What an objective comes to while a run goes on; one of the test, while there is none, of validations or training.

    validates: whether the run does.
    """

    def __init__(self, objective: Objective, validates: bool) -> None:
        self._phase = objective.phase
        if objective.phase == TEST:
            self._phase = VALIDATION if validates else TRAINING
        self._column, self._take = objective.column, objective.take
        self._values: list[float] = []

    def take(self, phase: str, metrics: Mapping[str, float]) -> float | None:
        """Take the next row; returns what the objective is then, None if the row is none of its or it is no number."""
        if phase != self._phase:
            return None
        self._values.append(float(metrics[self._column]))
        value = self._values[-1]
        numbers = [each for each in self._values if not math.isnan(each)]
        if isinstance(self._take, int):
            value = float(median(self._values[-self._take :]))
        elif self._take in ("min", "max") and numbers:
            value = (min if self._take == "min" else max)(numbers)
        return value if math.isfinite(value) else None


def parse_objective(name: str, better: dict[str, str]) -> Objective:
    """The objective that a name means. better: which way each metric is better, by column.

    Raises ConfigError if it means none.
    """
    match = FORM.fullmatch(name)
    column = match["metric"] if match else ""
    column = SHORT.get(column, column)
    if not match or column not in better:
        choices = ", ".join(better)
        raise ConfigError("objective", name, f"must be a metric ({choices}), or val_, test_, best_ or median5_ of one")
    phase = PHASES[match["phase"] or ""]
    if match["best"]:
        require(bool(better[column]), "objective", name, "has no best value; leave best_ out")
        return Objective(phase, column, "max" if better[column] == HIGHER else "min")
    if match["last"]:
        return Objective(phase, column, int(match["last"]))
    return Objective(phase, column, "mean" if phase == TEST else "last")


def check_objective(config: Any) -> None:
    """Raise ConfigError unless config.objective is one that a run of this config has."""
    name, training = config.objective, config.training
    objective = parse_objective(name, {column.name: column.better for column in config.columns})
    if objective.phase == TEST:
        require(training.n_iter_test > 0, "objective", name, "needs a test; set training.n_iter_test, e.g. to 4")
    if objective.phase == VALIDATION:
        validates = training.do_early_stopping and config.task.n_iter > 0
        require(validates, "objective", name, "needs validation; set training.do_early_stopping=true")
