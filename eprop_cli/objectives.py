"""The number that a job returns to the search that started it: one of those in metrics.csv, by name."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eprop_cli.errors import require
from eprop_cli.phases import TEST, TRAINING, VALIDATION

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Objective:
    """A column of one phase, and what is taken of its rows: "last", "min" or "mean"."""

    phase: str
    column: str
    take: str

    def value(self, metrics: "pd.DataFrame") -> float:
        """The number, from a table as Run.metrics; nan if the phase has no row."""
        values = metrics.loc[metrics["phase"] == self.phase, self.column]
        if not len(values):
            return math.nan
        return float(values.iloc[-1] if self.take == "last" else values.agg(self.take))


OBJECTIVES = {
    "loss": Objective(TRAINING, "loss", "last"),
    "best_loss": Objective(TRAINING, "loss", "min"),
    "recall_error": Objective(TRAINING, "recall_error", "last"),
    "val_loss": Objective(VALIDATION, "loss", "last"),
    "val_error": Objective(VALIDATION, "recall_error", "last"),
    "test_loss": Objective(TEST, "loss", "mean"),
    "test_error": Objective(TEST, "recall_error", "mean"),
}


def check_objective(config: Any) -> None:
    """Raise ConfigError unless config.objective is one that a run of this config has."""
    key, name, training = "objective", config.objective, config.training
    require(name in OBJECTIVES, key, name, f"must be one of {', '.join(OBJECTIVES)}")
    objective = OBJECTIVES[name]
    if objective.phase == TEST:
        require(training.n_iter_test > 0, key, name, "needs a test; set training.n_iter_test, e.g. to 4")
    if objective.phase == VALIDATION:
        validates = training.do_early_stopping and config.task.n_iter > 0
        require(validates, key, name, "needs validation; set training.do_early_stopping=true")
    if objective.column == "recall_error":
        remedy = "needs classes; set neuron.out.loss=cross_entropy, or choose a loss"
        require(config.neuron.out.loss == "cross_entropy", key, name, remedy)
