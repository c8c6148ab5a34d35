"""Stop a trial that its search has seen enough of, from within the process that trains it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eprop_cli.config.config import Config
from eprop_cli.objectives import Reports, parse_objective
from eprop_cli.runs.trials import read_trials
from eprop_cli.sweeps.optuna_study import Judge, make_pruner, quiet
from eprop_cli.values import Row


def judge_of(directory: Path, config: Config, pruner: Mapping[str, Any]) -> Callable[[Row], bool] | None:
    """What says of each row of a run whether to prune it there; None if the run is none of a search's.

    directory: of the run. pruner: as in hydra.sweeper.pruner. In its last iteration a run is not pruned any more.
    """
    quiet()
    record, made = read_trials(directory.parent), make_pruner(pruner)
    runs = [trial.run for trial in record.trials] if record else []
    if record is None or made is None or directory.name not in runs:
        return None
    judge = Judge(made, record, runs.index(directory.name))
    better = {column.name: column.better for column in config.columns}
    reports = Reports(parse_objective(config.objective, better), config.training.do_early_stopping)
    seen = -1

    def is_hopeless(row: Row) -> bool:
        nonlocal seen
        value = reports.take(row.phase, row.metrics)
        if value is None or row.iteration <= seen:
            return False
        seen = row.iteration
        return judge.is_hopeless(row.iteration, value) and row.iteration < config.task.n_iter

    return is_hopeless
